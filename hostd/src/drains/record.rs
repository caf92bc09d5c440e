//! A drain on disk: `drains/NAME/drain.json` is what was asked for, `state.json` how far it
//! has come.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dyno_api::name::{DynoId, DynoName};
use dyno_failpoint::failpoint;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::durable::{self, DurableError, Survives, chain};
use crate::logs::Position;

/// The version of both that this build writes and reads.
const VERSION: u32 = 1;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) version: u32,
    pub(super) name: DynoName,
    pub(super) url: String,
    pub(super) dyno: Option<DynoId>,
    pub(super) dyno_name: Option<DynoName>,
    pub(super) ca: Option<String>,
    pub(super) created: Timestamp,
}

/// How far it has come. It is not synced: after a power cut entries come twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Progress {
    pub(super) version: u32,
    pub(super) sent: u64,
    pub(super) dropped: u64,
    pub(super) missed_files: u64,
    /// Where the first entry that may not have arrived begins, for each dyno.
    pub(super) positions: BTreeMap<DynoId, Position>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            version: VERSION,
            sent: 0,
            dropped: 0,
            missed_files: 0,
            positions: BTreeMap::new(),
        }
    }
}

impl Record {
    pub(super) fn new(name: DynoName, url: String) -> Self {
        Self {
            version: VERSION,
            name,
            url,
            dyno: None,
            dyno_name: None,
            ca: None,
            created: Timestamp::now(),
        }
    }
}

fn record(folder: &Path) -> PathBuf {
    folder.join("drain.json")
}

fn progress(folder: &Path) -> PathBuf {
    folder.join("state.json")
}

/// Writes a new drain; it is there once this returns.
pub(super) fn create(folder: &Path, drain: &Record, state: &Progress) -> Result<(), DurableError> {
    let failed = |source| DurableError::Write {
        path: folder.to_owned(),
        source,
    };
    fs::create_dir_all(folder).map_err(failed)?;
    failpoint("drain.folder");
    durable::write_json(&progress(folder), state, Survives::PowerCut)?;
    failpoint("drain.progress");
    durable::write_json(&record(folder), drain, Survives::PowerCut)?;
    failpoint("drain.recorded");
    let parent = folder.parent().unwrap_or(folder);
    fs::File::open(parent)
        .and_then(|parent| parent.sync_all())
        .map_err(failed)
}

/// Writes how far it has come.
pub(super) fn save(folder: &Path, state: &Progress) -> Result<(), DurableError> {
    durable::write_json(&progress(folder), state, Survives::Crash)
}

/// Takes a drain away: without its record it is none.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    durable::remove(&record(folder), Survives::PowerCut)?;
    failpoint("drain_remove.unrecorded");
    durable::remove_tree(folder)
}

/// All drains in this folder. What cannot be read is reported and left alone; half-made ones
/// are removed.
pub(super) fn load_all(drains: &Path) -> Vec<(Record, Progress)> {
    let Ok(entries) = fs::read_dir(drains) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for folder in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        match load(&folder) {
            Ok(Some(drain)) => found.push(drain),
            Ok(None) => {
                if let Err(error) = durable::remove_tree(&folder) {
                    tracing::warn!(folder = %folder.display(), %error, "half of a drain stays");
                }
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "this drain cannot be read and is left alone");
            }
        }
    }
    found
}

fn load(folder: &Path) -> Result<Option<(Record, Progress)>, DurableError> {
    let path = record(folder);
    let Some(drain) = durable::read_json::<Record>(&path)? else {
        return Ok(None);
    };
    if drain.version != VERSION {
        return Err(DurableError::Version {
            path,
            found: drain.version,
            known: VERSION,
        });
    }
    let state = match durable::read_json::<Progress>(&progress(folder)) {
        Ok(state) => state.unwrap_or_default(),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "how far a drain had come is not known: it begins anew");
            Progress::default()
        }
    };
    Ok(Some((drain, state)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_there_wholly_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let one = folder.path().join("one");
        let drain = Record::new("one".parse().unwrap(), "https://a".to_owned());
        let mut state = Progress::default();
        let position = Position { file: 3, offset: 9 };
        state.positions.insert(DynoId::from_bytes([1; 6]), position);
        create(&one, &drain, &state).unwrap();
        fs::create_dir(folder.path().join("half")).unwrap();
        assert_eq!(load_all(folder.path()), [(drain, state)]);
        assert!(!folder.path().join("half").exists());
        remove(&one).unwrap();
        assert_eq!(load_all(folder.path()), []);
        assert!(!one.exists());
    }
}
