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
    /// What dynos do before and after a copy of it.
    #[serde(default, skip_serializing_if = "BackupHooks::is_unset")]
    pub backup: BackupHooks,
}

/// Commands that dynos run around a copy of a volume: a snapshot, a clone, an export. Each
/// dyno that runs and mounts the volume, not read-only, runs them, one after the other by
/// their names, as `exec` runs one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BackupHooks {
    /// Program and arguments, before dynos are paused; none when empty. Where it fails in
    /// one dyno, nothing is copied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<String>,
    /// Program and arguments, once dynos have gone on; none when empty. It is run wherever
    /// `before` was begun, whatever came of that and of the copy: at least once, by the
    /// next hostd where this one is killed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Milliseconds that each may take, 10 to 3,600,000; 60,000 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl BackupHooks {
    /// Whether nothing is done.
    pub fn is_unset(&self) -> bool {
        *self == Self::default()
    }

    /// These commands with what is asked for in their place.
    #[must_use]
    pub fn changed(self, asked: BackupChange) -> Self {
        let timeout_ms = match asked.timeout_ms {
            None => self.timeout_ms,
            Some(asked) => Some(asked).filter(|asked| *asked != 0),
        };
        Self {
            before: asked.before.unwrap_or(self.before),
            after: asked.after.unwrap_or(self.after),
            timeout_ms,
        }
    }
}

/// Other commands around a copy of a volume: what is absent stays, and an empty one is
/// none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BackupChange {
    /// Before dynos are paused.
    pub before: Option<Vec<String>>,
    /// Once they have gone on.
    pub after: Option<Vec<String>>,
    /// Milliseconds that each may take; 0 is the default.
    pub timeout_ms: Option<u64>,
}

impl BackupChange {
    /// Whether nothing is asked for.
    pub fn is_unset(&self) -> bool {
        *self == Self::default()
    }
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

    /// This quota with what is asked for in its place: what is absent stays, and 0 is no
    /// limit.
    #[must_use]
    pub fn changed(self, asked: Self) -> Self {
        let one = |asked: Option<u64>, before| match asked {
            None => before,
            Some(0) => None,
            Some(limit) => Some(limit),
        };
        Self {
            bytes: one(asked.bytes, self.bytes),
            inodes: one(asked.inodes, self.inodes),
        }
    }

    /// Whether a volume takes up more than it may: nothing more can be written to it then,
    /// or made in it.
    pub fn is_exceeded(&self, usage: VolumeUsage) -> bool {
        self.bytes.is_some_and(|most| usage.bytes > most)
            || self.inodes.is_some_and(|most| usage.inodes > most)
    }
}

/// `PATCH /v1/volumes/{volume}`: what shall be otherwise. What is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VolumeChange {
    /// What it may take up from now on; 0 is no limit. It may be less than what it takes
    /// up: files stay, and nothing more is written until it is below.
    pub quota: VolumeQuota,
    /// Other commands around a copy of it.
    pub backup: BackupChange,
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
    /// What dynos do before and after a copy of it.
    #[serde(default, skip_serializing_if = "BackupHooks::is_unset")]
    pub backup: BackupHooks,
    /// What it was copied of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<VolumeSource>,
    /// How many snapshots of it there are.
    pub snapshots: u64,
    /// Dynos that mount it, running or not.
    pub used_by: Vec<DynoName>,
    /// What it takes up. Told of one volume; in lists, where the file system counts it for
    /// a quota.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_that_is_not_asked_for_stays_and_zero_is_none() {
        let quota = |bytes, inodes| VolumeQuota { bytes, inodes };
        let before = quota(Some(1), Some(2));
        assert_eq!(before.changed(VolumeQuota::default()), before);
        assert_eq!(
            before.changed(quota(Some(0), Some(3))),
            quota(None, Some(3))
        );
        assert_eq!(
            VolumeQuota::default().changed(quota(Some(9), None)),
            quota(Some(9), None)
        );
    }

    #[test]
    fn a_volume_at_its_quota_is_not_beyond_it() {
        let usage = |bytes, inodes| VolumeUsage {
            bytes,
            inodes,
            partial: false,
        };
        let quota = VolumeQuota {
            bytes: Some(10),
            inodes: None,
        };
        assert!(!quota.is_exceeded(usage(10, 1000)));
        assert!(quota.is_exceeded(usage(11, 0)));
        let quota = VolumeQuota {
            bytes: None,
            inodes: Some(5),
        };
        assert!(quota.is_exceeded(usage(0, 6)));
    }
}
