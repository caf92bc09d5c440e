//! A token on disk: `tokens/ID.json`, without its secret.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use dyno_api::name::DynoName;
use dyno_api::token::{Scope, TokenId, TokenSpec};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::secret::Hash;
use crate::durable::{self, DurableError, Survives, chain};

/// The version of [`Record`] that this build writes and reads.
const VERSION: u32 = 1;

/// What is kept of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) version: u32,
    pub(super) id: TokenId,
    pub(super) name: DynoName,
    /// SHA-256 of the secret, or of the certificate that takes its place.
    pub(super) hash: Hash,
    pub(super) scopes: BTreeSet<Scope>,
    pub(super) created: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_used: Option<Timestamp>,
}

/// Why a token is not on the disk, or still is.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    /// The folder, or a file in it, cannot be used.
    #[error("cannot use {path}")]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The record cannot be written.
    #[error(transparent)]
    Record(#[from] DurableError),
}

impl Record {
    pub(super) fn new(
        id: TokenId,
        spec: TokenSpec,
        hash: Hash,
        expires: Option<Timestamp>,
    ) -> Self {
        Self {
            version: VERSION,
            id,
            name: spec.name,
            hash,
            scopes: spec.scopes,
            created: Timestamp::now(),
            expires,
            last_used: None,
        }
    }
}

fn file(folder: &Path, id: &TokenId) -> PathBuf {
    folder.join(format!("{id}.json"))
}

/// Every token of a folder that can be read. What is half written goes.
pub(super) fn all(folder: &Path) -> io::Result<Vec<Record>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "new") {
            durable::remove(&path, Survives::Crash)?;
            continue;
        }
        match durable::read_json::<Record>(&path) {
            Ok(Some(record)) if record.version == VERSION && path == file(folder, &record.id) => {
                records.push(record);
            }
            Ok(Some(record)) => {
                tracing::error!(file = %path.display(), version = record.version, "not the record of a token of this version; it is good for nothing");
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(error = chain(&error), "a token is good for nothing");
            }
        }
    }
    Ok(records)
}

/// Writes a new one; it is there once this returns.
pub(super) fn create(folder: &Path, record: &Record) -> Result<(), RecordError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| RecordError::Folder {
        path: folder.to_owned(),
        source,
    })?;
    Ok(durable::write_json(
        &file(folder, &record.id),
        record,
        Survives::PowerCut,
    )?)
}

/// Writes down when it was used.
pub(super) fn save_use(folder: &Path, record: &Record) -> Result<(), DurableError> {
    durable::write_json(&file(folder, &record.id), record, Survives::PowerCut)
}

/// Removes one; it is gone once this returns.
pub(super) fn remove(folder: &Path, id: &TokenId) -> Result<(), RecordError> {
    let path = file(folder, id);
    durable::remove(&path, Survives::PowerCut)
        .map_err(|source| RecordError::Folder { path, source })
}
