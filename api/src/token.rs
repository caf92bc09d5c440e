//! Tokens: who may ask from elsewhere, and for what.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::name::DynoName;

/// Seconds that a token is good for, at the most: ten years. One that shall not end has
/// none.
pub const TOKEN_MAX_SECONDS: u64 = 10 * 366 * 24 * 3600;

/// A part of what can be asked of a host. Each operation belongs to one, and none
/// contains another.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// See what there is and how it is: dynos with their variables, images, volumes, events,
    /// measurements.
    Read,
    /// Read what dynos write.
    Logs,
    /// Create, start, stop and remove dynos, go into them, and keep their images and volumes.
    Run,
    /// Set and remove secrets, give them to dynos, and go into dynos that are given some.
    Secrets,
    /// Do what root of the host can.
    Host,
}

/// The identity of a token: 12 hexadecimal digits, never reused. It tells nothing of its
/// secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^[0-9a-f]{12}$")]
pub struct TokenId(String);

/// Why a text is no [`TokenId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the id of a token (12 hexadecimal digits)")]
pub struct TokenIdError(String);

impl TokenId {
    /// The id as a string slice.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id made of these six bytes.
    pub fn from_bytes(bytes: [u8; 6]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl TryFrom<String> for TokenId {
    type Error = TokenIdError;

    fn try_from(id: String) -> Result<Self, TokenIdError> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        match id.len() == 12 && id.bytes().all(digit) {
            true => Ok(Self(id)),
            false => Err(TokenIdError(id)),
        }
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> Self {
        id.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `POST /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenSpec {
    /// What people call it; no two have the same.
    pub name: DynoName,
    /// What it is good for; at least one.
    pub scopes: BTreeSet<Scope>,
    /// Seconds from now for which it is good; for good when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

/// `POST /v1/certificates`: a token that is shown by a certificate instead of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateSpec {
    /// The token.
    pub token: TokenSpec,
    /// The public key of whoever is to show it: EC on P-256, as PEM (`PUBLIC KEY`, RFC 7468
    /// section 13). Its private key stays where it was made.
    pub public_key: String,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// Its name.
    pub name: DynoName,
    /// What it is good for.
    pub scopes: BTreeSet<Scope>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// From when it is good for nothing; absent where it does not end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// When it was last used, to the minute; absent where it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used: Option<Timestamp>,
}

/// A token that was just made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// The token.
    pub token: Token,
    /// What whoever has it sends as `Authorization: Bearer SECRET`. It is in this answer and
    /// nowhere else.
    pub secret: String,
    /// Where it can be used; absent where hostd listens on its socket alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
}

/// A token that was just made, to be shown by a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCertificate {
    /// The token.
    pub token: Token,
    /// The certificate, as PEM. It is no secret.
    pub certificate: String,
    /// Where it can be used.
    pub endpoint: Endpoint,
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewToken")
            .field("token", &self.token)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// Where a host is reached from elsewhere, by HTTP/1.1 over TLS 1.3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// `HOST:PORT`, as the host knows itself.
    pub address: String,
    /// `sha256:HEX` of the certificate (DER) that the host's certificate has to be signed by.
    /// It is sent as the second of the chain.
    pub ca: String,
}

/// Why a text is no [`Scope`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no scope; there are read, logs, run, secrets and host")]
pub struct ScopeError(String);

impl Scope {
    /// Every scope, the weakest first.
    pub const ALL: [Self; 5] = [Self::Read, Self::Logs, Self::Run, Self::Secrets, Self::Host];

    /// Its name, as it travels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Logs => "logs",
            Self::Run => "run",
            Self::Secrets => "secrets",
            Self::Host => "host",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let found = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        found.ok_or_else(|| ScopeError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_by_accident() {
        let new: NewToken = serde_json::from_str(
            r#"{"token": {"id": "0123456789ab", "name": "ci", "scopes": ["run"],
                "created": "2026-11-28T00:00:00Z"}, "secret": "hush"}"#,
        )
        .unwrap();
        let shown = format!("{new:?}");
        assert!(shown.contains("ci") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn an_id_is_twelve_digits() {
        assert_eq!(
            TokenId::from_bytes([1, 2, 3, 4, 5, 255]).as_str(),
            "0102030405ff"
        );
        for bad in ["", "0123456789AB", "../secrets/a", "0123456789abc"] {
            assert!(TokenId::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_scope_travels_by_its_name() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(scope));
            let json = serde_json::to_string(&scope).unwrap();
            assert_eq!(json, format!("{:?}", scope.as_str()));
        }
        let error = "Read".parse::<Scope>().unwrap_err();
        assert!(
            Scope::ALL
                .iter()
                .all(|scope| error.to_string().contains(scope.as_str()))
        );
    }
}
