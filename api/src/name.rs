//! Names and ids, valid by construction.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a string is not a [`DynoName`] or [`DynoId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name is empty or longer than a DNS label may be.
    #[error("a name has 1 to 63 characters, this one has {0}")]
    Length(usize),
    /// A character outside `a-z`, `0-9` and `-`.
    #[error("{0:?} is not allowed in a name; use a-z, 0-9 and -")]
    Character(char),
    /// A hyphen at the start or the end.
    #[error("a name begins and ends with a letter or a digit")]
    Hyphen,
    /// An id is 12 hexadecimal digits.
    #[error("{0:?} is not a dyno id (12 hexadecimal digits)")]
    Id(String),
}

/// What a person calls a dyno: a DNS label (RFC 1123 section 2.1), because
/// other dynos find it under that name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
pub struct DynoName(String);

/// The identity of a dyno: 12 hexadecimal digits, never reused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^[0-9a-f]{12}$")]
pub struct DynoId(String);

impl DynoName {
    /// The name as a string slice.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl DynoId {
    /// The id as a string slice.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id made of these six bytes.
    pub fn from_bytes(bytes: [u8; 6]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl FromStr for DynoName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let length = name.chars().count();
        if !(1..=63).contains(&length) {
            return Err(NameError::Length(length));
        }
        let allowed = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-';
        if let Some(odd) = name.chars().find(|c| !allowed(c)) {
            return Err(NameError::Character(odd));
        }
        if name.starts_with('-') || name.ends_with('-') {
            return Err(NameError::Hyphen);
        }
        Ok(Self(name.to_owned()))
    }
}

impl FromStr for DynoId {
    type Err = NameError;

    fn from_str(id: &str) -> Result<Self, NameError> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if id.len() == 12 && id.bytes().all(hex) {
            Ok(Self(id.to_owned()))
        } else {
            Err(NameError::Id(id.to_owned()))
        }
    }
}

macro_rules! string_newtype {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

string_newtype!(DynoName);
string_newtype!(DynoId);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_a_dns_label() {
        for good in ["a", "web-1", "0", "a-b-c"] {
            assert!(good.parse::<DynoName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a_b",
            "a.b",
            "ä",
            "../x",
            &"a".repeat(64),
        ] {
            assert!(bad.parse::<DynoName>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_id_of_any_bytes_parses_back(bytes: [u8; 6]) {
            let id = DynoId::from_bytes(bytes);
            prop_assert_eq!(id.as_str().parse::<DynoId>(), Ok(id));
        }
    }
}
