//! Parameters after the `?`, one type per request that takes any.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::dyno::Stream;
use crate::name::DynoName;

/// `POST /v1/dynos`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct CreateQuery {
    /// Start it in the same request. When the start fails nothing is left.
    pub start: bool,
}

/// `DELETE /v1/dynos/{dyno}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct RemoveQuery {
    /// Kill it first if it runs; without this a running dyno is a conflict.
    pub force: bool,
}

/// `DELETE /v1/secrets/{secret}` and `DELETE /v1/volumes/{volume}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ForceQuery {
    /// A secret that dynos are given, or a volume that has snapshots, which go with
    /// it; without this that is a conflict.
    pub force: bool,
}

/// `POST /v1/dynos/{dyno}/stop` and `/restart`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct StopQuery {
    /// Signal that asks it to end, `TERM`, `SIGTERM` or `15`; its own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Milliseconds until the whole dyno is killed; its own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
}

/// `POST /v1/dynos/{dyno}/kill`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct KillQuery {
    /// Signal to send, `HUP`, `SIGHUP` or `1`; `KILL` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
}

/// `GET /v1/dynos/{dyno}/wait`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct WaitQuery {
    /// Of a dyno with `rm`, wait until it is removed, too: its name and ports
    /// are free then.
    pub removed: bool,
}

/// `GET /v1/dynos/{dyno}/logs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct LogsQuery {
    /// Go on with new lines until the dyno has ended.
    pub follow: bool,
    /// Only the last so many lines of what there is; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<usize>,
    /// Only lines read at or after this time (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// Only lines read before this time (RFC 3339); a follower ends then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// Only this stream; both when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub stream: Option<Stream>,
}

/// `GET` and `PUT /v1/dynos/{dyno}/archive`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ArchiveQuery {
    /// Absolute path inside the dyno.
    pub path: String,
}

/// `GET /v1/dynos/{dyno}/stats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct StatsQuery {
    /// One measurement a second, as JSON lines, until the dyno has ended.
    pub stream: bool,
}

/// `GET /v1/events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Begin after this sequence number, as far back as is kept; with new
    /// events only when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Go on with new events; `true` when absent.
    pub follow: bool,
}

impl Default for EventsQuery {
    fn default() -> Self {
        Self {
            since: None,
            follow: true,
        }
    }
}

/// `GET /v1/audit`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Only what was begun at or after this time (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// Only what was begun before this time (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// Only the last so many of what there is, 10,000 at the most; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Only this operation, `dyno.create`, or those of this noun, `dyno`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Only those of this caller: the number of a user, or the name or id of a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// Go on with operations as they end.
    pub follow: bool,
}

/// `POST /v1/images/load`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct LoadQuery {
    /// Name for an image whose archive names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// `POST /v1/images/import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportQuery {
    /// Name for the image made of the root file system in the body.
    pub reference: String,
}

/// `GET /v1/volumes/{volume}/archive`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    /// One of its snapshots; the volume as it is when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub snapshot: Option<DynoName>,
    /// Do not pause the dynos that write to it meanwhile.
    pub live: bool,
}

/// `PUT /v1/volumes/{volume}/archive`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct QuotaQuery {
    /// Bytes that it may take up on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// Files, folders and links that it may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_inodes: Option<u64>,
}
