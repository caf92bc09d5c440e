//! What shall run on this host: one record per dyno, `dynos/<id>/dyno.json`.
//!
//! A record is on the disk before the request that made it is answered. The
//! one exception is a dyno with `rm` set: it exists for the client that
//! waits for it, so it survives a crash of hostd but is not promised to
//! survive a power cut, and its creation waits for no disk.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use dyno_api::dyno::{DynoSpec, ExitStatus, Phase, PortMapping};
use dyno_api::health::FailedCheck;
use dyno_api::name::{DynoId, DynoName};
use dyno_images::{ImageConfig, LayerId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::durable::{self, DurableError, Survives};
use crate::layer;
use crate::paths::{DynoPaths, Paths};

/// The version of [`Record`] that this build writes and reads.
pub const VERSION: u32 = 1;

/// One dyno as it shall be, and what was chosen for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Format of this record, [`VERSION`].
    pub version: u32,
    /// Its identity.
    pub id: DynoId,
    /// Its name.
    pub name: DynoName,
    /// What was asked for.
    pub spec: DynoSpec,
    /// When it was created.
    pub created: Timestamp,
    /// What its image's reference meant when it was created.
    pub image: PinnedImage,
    /// What was last asked of it.
    pub wanted: Wanted,
    /// First id of its user id range.
    pub uid_base: u32,
    /// Its address on the default network.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address there.
    pub ipv6: Option<Ipv6Addr>,
    /// Its ports with the host ports that were chosen.
    pub ports: Vec<PortMapping>,
    /// The phase it rests in while nothing of it runs.
    pub rest: Phase,
    /// Why it rests, where that needs saying.
    pub reason: Option<String>,
    /// How it last ended.
    pub exit: Option<ExitStatus>,
    /// How often it was started again under earlier monitors since it was last
    /// started by request.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restarts: u32,
    /// The checkpoint that it comes back from; none once it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<DynoName>,
    /// The latest check that failed since it was last started by request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_check: Option<FailedCheck>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// The image of a dyno: it stays the same when the reference moves on, and
/// nothing but its layers on disk is needed to start it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedImage {
    /// The full reference.
    pub reference: String,
    /// Its layers, which the store keeps as long as this record exists.
    pub layers: Vec<LayerId>,
    /// The layers' folders, topmost first.
    pub folders: Vec<PathBuf>,
    /// Folders of the machine that belong to the built-in image.
    pub binds: Vec<ImageBind>,
    /// What its author wants. P6: untrusted.
    pub config: ImageConfig,
}

/// A folder of the machine that is shown inside, read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageBind {
    /// Folder on the machine.
    pub source: PathBuf,
    /// Absolute path inside.
    pub target: String,
}

/// What was last asked of a dyno.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// To exist.
    Created,
    /// To run.
    Running,
    /// To end.
    Stopped,
}

impl Record {
    /// Writes the record; it holds when this returns.
    ///
    /// # Errors
    /// [`DurableError`]; the former record holds then.
    pub fn save(&self, paths: &Paths) -> Result<(), DurableError> {
        let path = paths.dyno(&self.id).record();
        durable::write_json(&path, self, self.survives())
    }

    fn of_another_version(&self, paths: &Paths) -> DurableError {
        DurableError::Version {
            path: paths.dyno(&self.id).record(),
            found: self.version,
            known: VERSION,
        }
    }

    /// What changes of this record survive.
    pub fn survives(&self) -> Survives {
        match self.spec.rm {
            true => Survives::Crash,
            false => Survives::PowerCut,
        }
    }
}

/// A record that could not be used, and why.
pub type Damaged = (String, DurableError);

/// Every record on disk, in order of creation. A damaged one is reported and
/// left alone: it must not keep the others from running.
///
/// # Errors
/// When the folder itself cannot be read.
pub fn load_all(paths: &Paths) -> io::Result<(Vec<Record>, Vec<Damaged>)> {
    let (mut records, mut damaged) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(paths.dynos())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Ok(id) = name.parse::<DynoId>() else {
            continue;
        };
        match durable::read_json::<Record>(&paths.dyno(&id).record()) {
            Ok(Some(record)) if record.version == VERSION => records.push(record),
            Ok(Some(record)) => damaged.push((name, record.of_another_version(paths))),
            Ok(None) => sweep(&paths.dyno(&id)),
            Err(error) => damaged.push((name, error)),
        }
    }
    records.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    Ok((records, damaged))
}

/// Removes what a creation that was cut short before its record, or a removal
/// after it, has left: nothing was promised, and nobody waits for it.
fn sweep(own: &DynoPaths) {
    layer::forget(own);
    let state = &own.state;
    if let Err(error) = durable::remove_tree(state) {
        tracing::warn!(%error, folder = %state.display(), "what is left of a dyno stays until the next start");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(id: u8) -> Record {
        let id = DynoId::from_bytes([id; 6]);
        Record {
            version: VERSION,
            name: format!("dyno-{id}").parse().unwrap(),
            id,
            spec: DynoSpec {
                image: "host".into(),
                ..DynoSpec::default()
            },
            created: Timestamp::UNIX_EPOCH,
            image: PinnedImage {
                reference: "host".into(),
                layers: Vec::new(),
                folders: vec!["/l/top".into(), "/l/bottom".into()],
                binds: Vec::new(),
                config: ImageConfig::default(),
            },
            wanted: Wanted::Created,
            uid_base: 1 << 28,
            ipv4: None,
            ipv6: None,
            ports: Vec::new(),
            rest: Phase::Created,
            reason: None,
            exit: None,
            restarts: 0,
            restore: None,
            failed_check: None,
        }
    }

    /// hostd is upgraded with live dynos: what it does not find was not asked for.
    #[test]
    fn a_record_of_before_checks_restarts_and_order_is_read() {
        let old = serde_json::to_value(record(1)).unwrap();
        let fields = old.as_object().unwrap();
        // And the former one reads what it writes, should it have to come back.
        assert!(fields.get("restarts").is_none());
        for (place, field) in [
            ("spec", "service"),
            ("spec", "health"),
            ("spec", "after"),
            ("spec", "priority"),
            ("spec", "init"),
            ("spec", "secrets"),
            ("spec", "secret_env"),
            ("spec", "config_files"),
        ] {
            assert!(
                fields[place].get(field).is_none(),
                "{field} is written unasked"
            );
        }
        assert!(fields.get("failed_check").is_none());
        assert!(fields.get("restore").is_none());
        assert!(fields["image"]["config"].get("healthcheck").is_none());
        assert_eq!(serde_json::from_value::<Record>(old).unwrap(), record(1));
    }

    #[test]
    fn records_come_back_and_damaged_ones_are_reported_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths {
            state_dir: folder.path().into(),
            run_dir: folder.path().join("run"),
        };
        for id in [2, 1] {
            fs::create_dir_all(paths.dyno(&record(id).id).state).unwrap();
            record(id).save(&paths).unwrap();
        }
        let broken = paths.dyno(&DynoId::from_bytes([3; 6]));
        fs::create_dir_all(&broken.state).unwrap();
        durable::write(
            &broken.record(),
            b"{\"version\":1,\"odd\":2}",
            Survives::Crash,
        )
        .unwrap();
        let newer = Record {
            version: VERSION + 1,
            ..record(5)
        };
        fs::create_dir_all(paths.dyno(&newer.id).state).unwrap();
        newer.save(&paths).unwrap();
        let half = paths.dyno(&DynoId::from_bytes([4; 6]));
        fs::create_dir_all(&half.state).unwrap();
        let (records, damaged) = load_all(&paths).unwrap();
        assert_eq!(records, [record(1), record(2)]);
        assert_eq!(damaged.len(), 2);
        assert!(broken.state.exists());
        assert!(paths.dyno(&newer.id).record().exists());
        assert!(!half.state.exists());
    }
}
