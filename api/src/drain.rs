//! Where the output of dynos is sent.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::name::{DynoId, DynoName};

/// `POST /v1/drains`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainSpec {
    /// Its name; made up when absent.
    #[serde(default)]
    pub name: Option<DynoName>,
    /// `syslog+tls://HOST[:PORT]`, `syslog+tcp://HOST:PORT`, `https://…` or `http://…`.
    pub url: String,
    /// Name or id of the one dyno whose output is sent; that of all dynos when absent.
    #[serde(default)]
    pub dyno: Option<String>,
    /// Certificates (PEM) of the authorities that the receiver's has to be from, instead of
    /// those that the host trusts.
    #[serde(default)]
    pub ca: Option<String>,
}

/// One drain: what was asked for, and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Its name.
    pub name: DynoName,
    /// Where it leads.
    pub url: String,
    /// The one dyno whose output it sends; absent where it is that of all.
    #[serde(default)]
    pub dyno: Option<DynoId>,
    /// That dyno's name.
    #[serde(default)]
    pub dyno_name: Option<DynoName>,
    /// When it was added.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// How it is.
    pub status: DrainStatus,
}

/// How a drain is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainStatus {
    /// The latest attempt to reach the receiver succeeded.
    pub connected: bool,
    /// Entries that have arrived there, as far as that can be known.
    pub sent: u64,
    /// Entries that were not sent: the receiver was too slow for too long, or refused them.
    pub dropped: u64,
    /// Log files that were removed before they were read; what was in them is not counted.
    pub missed_files: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Why the latest attempt failed, as long as none has succeeded since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
