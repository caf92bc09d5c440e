//! Volumes that are made, by themselves or for a dyno.

use std::sync::Arc;

use dyno_api::dyno::DynoSpec;
use dyno_api::error::ApiError;
use dyno_api::volume::{Volume, VolumeSpec};
use dyno_failpoint::failpoint;

use super::folders::{self, failed, open_folder};
use super::records::VolumeRecord;
use super::source::{Source, copied};
use super::users::{dynos, mounted};
use super::{Volumes, backup};
use crate::durable::Survives;
use crate::host::{Host, blocking};

impl Volumes {
    /// Makes the volumes of a dyno that are missing. They survive what its record does.
    ///
    /// # Errors
    /// Conflict where one is being made by somebody else; what the file system says.
    pub(crate) fn make_missing(&self, spec: &DynoSpec, survives: Survives) -> Result<(), ApiError> {
        // Two dynos make one after the other, and nobody claims it in between.
        let closed = self.claims.close();
        for name in mounted(spec) {
            let data = self.folders.data(name);
            if data.exists() {
                continue;
            }
            closed.must_be_free(name)?;
            self.folders
                .write_record(name, &VolumeRecord::new(None, None), survives)?;
            open_folder(&data).map_err(failed("make", &data))?;
            if survives == Survives::PowerCut {
                folders::sync(self.folders.root()).map_err(failed("sync", &data))?;
            }
        }
        Ok(())
    }
}

/// Makes a volume, empty or a copy.
///
/// # Errors
/// Conflict where the name is taken; Unsupported for a quota that nobody would enforce;
/// why it cannot be copied. Nothing of it is left then.
pub(crate) async fn create(host: Arc<Host>, spec: VolumeSpec) -> Result<Volume, ApiError> {
    backup::check(&spec.backup)?;
    let claim = host.volumes.claims.claim(&spec.name)?;
    host.volumes.folders.must_not_exist(&spec.name)?;
    let mut source = None;
    if let Some(from) = &spec.from {
        source = Some(Source::open(&host, from, spec.live).await?);
    }
    let shared = host.clone();
    let from = source.as_ref().map(Source::files);
    let made = blocking(move || {
        let _claim = claim;
        let making = shared.volumes.folders.begin(spec.quota)?;
        failpoint("volume.begun");
        if let Some((from, moment)) = from {
            copied(&from, &making.path, &moment)?;
        }
        let mut record = VolumeRecord::new(making.quota, spec.from);
        record.backup = spec.backup;
        shared
            .volumes
            .folders
            .finish(&spec.name, &making, &record)?;
        shared.volumes.shown(&dynos(&shared), &spec.name)
    })
    .await;
    match source {
        Some(source) => source.close_after(made).await,
        None => made,
    }
}

#[cfg(test)]
mod tests {
    use dyno_api::dyno::Mount;
    use dyno_api::error::ErrorKind;
    use dyno_api::name::DynoName;

    use super::*;

    fn volumes(top: &tempfile::TempDir) -> Volumes {
        let root = top.path().join("volumes");
        folders::make_folder(&root).unwrap();
        Volumes::at(root)
    }

    fn mounting(volume: &str) -> DynoSpec {
        let mount = Mount::Volume {
            name: volume.parse().unwrap(),
            target: "/data".to_owned(),
            read_only: false,
        };
        DynoSpec {
            mounts: vec![mount],
            ..DynoSpec::default()
        }
    }

    #[test]
    fn dynos_make_a_volume_that_nobody_else_is_making() {
        let top = tempfile::tempdir().unwrap();
        let volumes = volumes(&top);
        let name = "db".parse::<DynoName>().unwrap();
        let claim = volumes.claims.claim(&name).unwrap();
        let refused = volumes.make_missing(&mounting("db"), Survives::PowerCut);
        assert_eq!(refused.unwrap_err().kind, ErrorKind::Conflict);
        assert!(!volumes.folders.data(&name).exists() && volumes.folders.known(&name).is_none());
        drop(claim);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                let make = || volumes.make_missing(&mounting("db"), Survives::Crash);
                scope.spawn(move || make().unwrap());
            }
        });
        assert!(volumes.folders.known(&name).is_some());
        // What exists is mounted, whoever reads it meanwhile.
        let _claim = volumes.claims.claim(&name).unwrap();
        volumes
            .make_missing(&mounting("db"), Survives::Crash)
            .unwrap();
    }

    #[test]
    fn a_volume_is_shown_without_what_a_power_cut_has_left_of_its_record() {
        let top = tempfile::tempdir().unwrap();
        let volumes = volumes(&top);
        let name = "db".parse::<DynoName>().unwrap();
        volumes
            .make_missing(&mounting("db"), Survives::Crash)
            .unwrap();
        for (left, is_lost) in [("", true), ("\0\0\0", true), ("{", false)] {
            crate::durable::write(
                &volumes.folders.record(&name),
                left.as_bytes(),
                Survives::Crash,
            )
            .unwrap();
            assert_eq!(volumes.shown(&[], &name).unwrap().created, None);
            volumes.usage(&name).unwrap();
            assert_eq!(
                volumes.folders.read_record(&name).is_ok(),
                is_lost,
                "{left:?}"
            );
        }
    }
}
