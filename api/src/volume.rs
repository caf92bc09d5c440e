//! Volumes: data that outlives dynos.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::name::DynoName;

/// `POST /v1/volumes`: a new volume, empty or a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeSpec {
    /// Its name.
    pub name: DynoName,
    /// What it may take up.
    #[serde(default)]
    pub quota: VolumeQuota,
    /// What its files are copied of; it is empty when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<VolumeSource>,
    /// Of a volume: do not pause the dynos that write to it while it is copied.
    #[serde(default)]
    pub live: bool,
}

/// What a volume may take up; without limits when nothing is given. The file system
/// enforces it by project quotas, or it is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VolumeQuota {
    /// Bytes on disk.
    pub bytes: Option<u64>,
    /// Files, folders and links.
    pub inodes: Option<u64>,
}

impl VolumeQuota {
    /// Whether nothing is limited.
    pub fn is_unset(&self) -> bool {
        *self == Self::default()
    }
}

/// A volume, or a snapshot of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeSource {
    /// The volume.
    pub volume: DynoName,
    /// One of its snapshots; the volume as it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<DynoName>,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Its name.
    pub name: DynoName,
    /// When it was made; absent where a hostd made it that did not record it.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created: Option<Timestamp>,
    /// What it may take up.
    pub quota: VolumeQuota,
    /// What it was copied of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<VolumeSource>,
    /// How many snapshots of it there are.
    pub snapshots: u64,
    /// Dynos that mount it, running or not.
    pub used_by: Vec<DynoName>,
    /// What it takes up. Told of one volume, absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<VolumeUsage>,
}

/// What a volume takes up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeUsage {
    /// Bytes on disk. What snapshots share with it by reflinks counts in both.
    pub bytes: u64,
    /// Files, folders and links.
    pub inodes: u64,
    /// Not everything was counted, for there is too much: it is at least this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// A snapshot of a volume: its files as they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Its name.
    pub name: DynoName,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// Bytes of all its files, holes and what is shared included.
    pub bytes: u64,
    /// Its files share their blocks with the volume's until either changes.
    pub reflinked: bool,
    /// Dynos that were writing to the volume were not paused.
    pub live: bool,
}

/// `POST /v1/volumes/{volume}/snapshots`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SnapshotRequest {
    /// Its name; made of the time when absent.
    pub name: Option<DynoName>,
    /// Do not pause the dynos that write to the volume while it is copied.
    pub live: bool,
}

/// `POST /v1/volumes/{volume}/rollback`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The snapshot whose files the volume shall have.
    pub snapshot: DynoName,
}
