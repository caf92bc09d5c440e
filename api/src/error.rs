//! How a request fails.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What kind of failure it was: decides the HTTP status and the exit code of
/// the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request itself is wrong (400).
    Invalid,
    /// It is not known who asks: no token, or none that is good (401).
    Unauthorized,
    /// The caller may not (403).
    Forbidden,
    /// No such dyno, image or volume (404).
    NotFound,
    /// It clashes with what is there: name or port in use, wrong state (409).
    Conflict,
    /// The host has too little memory, disk, addresses, ports left (503).
    Exhausted,
    /// This kernel or machine cannot do what was asked (501).
    Unsupported,
    /// A registry or another outside party failed (502).
    Upstream,
    /// hostd or the runtime failed (500).
    Internal,
}

impl ErrorKind {
    /// The HTTP status code of this kind (RFC 9110 section 15).
    pub fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Internal => 500,
            Self::Unsupported => 501,
            Self::Upstream => 502,
            Self::Exhausted => 503,
        }
    }
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind of failure it was.
    pub kind: ErrorKind,
    /// What was wrong and with which value: one sentence, lower case, no full stop.
    pub message: String,
    /// What to try next, where there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ApiError {
    /// A failure of this kind with no hint.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
        }
    }

    /// The same failure with something to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
