//! Secrets, and the small files that a dyno is given when it starts.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::name::DynoName;

/// Bytes of one secret, at the most.
pub const SECRET_MAX_BYTES: usize = 256 << 10;

/// Bytes of one configuration file, at the most.
pub const CONFIG_FILE_MAX_BYTES: usize = 256 << 10;

/// The folder in a dyno where its secrets are, where nothing else was asked for.
pub const SECRETS_DIR: &str = "/run/secrets";

/// Why a text is no [`SecretName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretNameError {
    /// Empty, or longer than a name may be.
    #[error("a secret's name has 1 to 63 characters, this one has {0}")]
    Length(usize),
    /// A character that a name cannot have, or not there.
    #[error(
        "{0:?} is not the name of a secret; use letters, digits, `.`, `_` and `-`, a letter or digit first"
    )]
    Character(String),
}

/// What a secret is called: also the name of its file in a dyno.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
pub struct SecretName(String);

impl SecretName {
    /// The name as a string slice.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = SecretNameError;

    fn from_str(name: &str) -> Result<Self, SecretNameError> {
        let length = name.chars().count();
        if !(1..=63).contains(&length) {
            return Err(SecretNameError::Length(length));
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let begins_well = name.as_bytes()[0].is_ascii_alphanumeric();
        if begins_well && name.bytes().all(allowed) {
            Ok(Self(name.to_owned()))
        } else {
            Err(SecretNameError::Character(name.to_owned()))
        }
    }
}

impl TryFrom<String> for SecretName {
    type Error = SecretNameError;

    fn try_from(text: String) -> Result<Self, SecretNameError> {
        text.parse()
    }
}

impl From<SecretName> for String {
    fn from(name: SecretName) -> Self {
        name.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A secret without its value, which nothing tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// Its name.
    pub name: SecretName,
    /// When it was first set.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When its value was set last.
    #[schema(value_type = String, format = DateTime)]
    pub updated: Timestamp,
    /// How often its value was set.
    pub revision: u64,
    /// Id of the key that it is encrypted under.
    pub key: String,
    /// Dynos that are given it.
    pub used_by: Vec<DynoName>,
}

/// `POST /v1/secret-key/rotate`: what it led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// Id of the key that everything is encrypted under now.
    pub key: String,
    /// Secrets that were encrypted anew.
    pub secrets: u64,
}

/// A secret as a file of a dyno, in memory, read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretFile {
    /// The secret.
    pub name: SecretName,
    /// Path inside, beneath `/run/secrets` unless absolute; the name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Permission bits; 256 (octal 0400) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Owner inside; the dyno's user when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group inside; that of the dyno's user when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

impl SecretFile {
    /// Where it is in the dyno.
    pub fn path(&self) -> String {
        match &self.target {
            Some(target) if target.starts_with('/') => target.clone(),
            Some(target) => format!("{SECRETS_DIR}/{target}"),
            None => format!("{SECRETS_DIR}/{}", self.name),
        }
    }
}

/// A file that is no secret, kept with its dyno's record and mounted read-only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigFile {
    /// Absolute path inside.
    pub target: String,
    /// What it holds, text of at most 256 KiB. Absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Permission bits; 292 (octal 0444) when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secrets_name_is_a_file_name_and_no_path() {
        for good in ["a", "DB_PASSWORD", "tls.key", "9-lives"] {
            assert!(good.parse::<SecretName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".x",
            "-x",
            "a/b",
            "a b",
            "ä",
            "a\0",
            &"a".repeat(64),
        ] {
            assert!(bad.parse::<SecretName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_secret_is_beneath_its_folder_unless_told_otherwise() {
        let file = |target: Option<&str>| SecretFile {
            name: "db".parse().unwrap(),
            target: target.map(str::to_owned),
            mode: None,
            uid: None,
            gid: None,
        };
        assert_eq!(file(None).path(), "/run/secrets/db");
        assert_eq!(file(Some("x/y")).path(), "/run/secrets/x/y");
        assert_eq!(file(Some("/etc/key")).path(), "/etc/key");
    }
}
