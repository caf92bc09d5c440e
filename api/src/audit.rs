//! Who changed what on a host, when, and how it ended.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ErrorKind;
use crate::name::{DynoId, DynoName};
use crate::token::TokenId;

/// One operation that was asked of a host, as `GET /v1/audit` streams it (JSON lines) and as
/// hostd keeps it on disk. Nothing of a request's body, parameters or headers is in it.
// No `deny_unknown_fields`: a line of a later hostd is read as far as it is understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Grows with each operation of this host since it was set up.
    pub id: u64,
    /// When it was begun.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The `X-Request-Id` of the request, and of its answer.
    pub request: String,
    /// Who asked.
    pub caller: AuditCaller,
    /// Which operation: `dyno.create`, `volume.remove`. Those of hostd itself are `hostd.start`,
    /// `audit.lost` and `audit.cut`.
    pub operation: String,
    /// What it was done to, as the caller named it; what was made, where a name was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The dyno that this was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dyno: Option<DynoId>,
    /// How far it is.
    pub state: AuditState,
    /// The status of the answer (RFC 9110 section 15).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it failed; also of a stream that failed after its status was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorKind>,
    /// Microseconds from its begin to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_us: Option<u64>,
}

/// Who asked for an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum AuditCaller {
    /// A process of the machine, by the kernel's word.
    User {
        /// Its user.
        uid: u32,
        /// Its id, where the kernel knew it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<i32>,
    },
    /// Whoever had this token.
    Token {
        /// Its id.
        token: TokenId,
        /// Its name.
        name: DynoName,
        /// Where they were: address and port.
        #[schema(value_type = String)]
        address: SocketAddr,
    },
    /// hostd itself.
    Hostd,
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditState {
    /// It was begun and has not ended.
    Running,
    /// It has ended as its status and error say.
    Done,
    /// It was begun, and its end was not seen: hostd was killed, or gave up. It may have been
    /// done, or not.
    Unknown,
}

impl AuditCaller {
    /// Whether a text means this caller: the number of a user, the name or id of a token, or
    /// `hostd`.
    pub fn is(&self, text: &str) -> bool {
        match self {
            Self::User { uid, .. } => text.parse() == Ok(*uid),
            Self::Token { token, name, .. } => text == token.as_str() || text == name.as_str(),
            Self::Hostd => text == "hostd",
        }
    }
}

impl AuditEntry {
    /// Whether its operation is this one, or one of this noun: `dyno.create`, `dyno`.
    pub fn is_operation(&self, text: &str) -> bool {
        let rest = self.operation.strip_prefix(text);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_and_operations_are_found_by_what_people_call_them() {
        let json = r#"{"id": 7, "time": "2026-11-28T00:00:00.000000001Z", "request": "a-1",
            "caller": {"by": "token", "token": "0123456789ab", "name": "ci",
                       "address": "[2001:db8::1]:9"},
            "operation": "dyno.create", "state": "running", "of a later hostd": 1}"#;
        let entry: AuditEntry = serde_json::from_str(json).unwrap();
        for (text, is) in [
            ("ci", true),
            ("0123456789ab", true),
            ("c", false),
            ("0", false),
        ] {
            assert_eq!(entry.caller.is(text), is, "{text}");
        }
        for (text, is) in [
            ("dyno", true),
            ("dyno.create", true),
            ("dyno.c", false),
            ("", false),
        ] {
            assert_eq!(entry.is_operation(text), is, "{text}");
        }
        let root = AuditCaller::User { uid: 0, pid: None };
        assert!(root.is("0") && !root.is("root") && !root.is("hostd"));
        assert!(AuditCaller::Hostd.is("hostd"));
    }
}
