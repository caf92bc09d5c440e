//! Removing a volume with all that belongs to it: whole or not at all.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::DynoName;
use dyno_failpoint::failpoint;

use super::folders::{Folders, failed, make_folder, sync};
use super::parse;
use super::quota::{self, Quota};
use super::users::dynos;
use crate::durable::{self, Survives};
use crate::host::{Host, blocking};
use crate::quota::clear;
use crate::trash;

/// Removes a volume with its data.
///
/// # Errors
/// NotFound; Conflict while a dyno mounts it, or it has snapshots and that is not forced.
pub(crate) async fn remove(host: Arc<Host>, name: &str, force: bool) -> Result<(), ApiError> {
    let name = parse(name)?;
    let claim = host.volumes.claims.claim(&name)?;
    blocking(move || {
        let _claim = claim;
        let volumes = &host.volumes;
        volumes.folders.must_exist(&name)?;
        volumes.claims.must_not_be_read(&name, None)?;
        let volume = volumes.shown(&dynos(&host), &name)?;
        if let Some(user) = volume.used_by.first() {
            let message = format!("dyno {user} mounts the volume {name}");
            return Err(ApiError::new(ErrorKind::Conflict, message)
                .hint(format!("remove that dyno first: `dyno rm {user}`")));
        }
        if volume.snapshots > 0 && !force {
            let message = format!("volume {name} has {} snapshots", volume.snapshots);
            return Err(ApiError::new(ErrorKind::Conflict, message)
                .hint("remove them first, or force it: they go with it"));
        }
        let data = volumes.folders.data(&name);
        let given = volumes.folders.known(&name).and_then(|record| record.quota);
        let given = given.map(|given| quota::of(&data, given));
        let removed = volumes.folders.remove(&name, given);
        removed.map_err(failed("remove", &data))
    })
    .await
}

impl Folders {
    /// Removes what a crash has left.
    pub(super) fn sweep(&self) {
        for folder in [self.being_made(), self.trash()] {
            if folder.exists()
                && let Err(error) = trash::empty(&folder)
            {
                tracing::warn!(%error, folder = %folder.display(), "what is left of a volume stays");
            }
        }
        if let Err(error) = self.complete_all() {
            tracing::warn!(%error, "what is left of a volume stays");
        }
    }

    /// Removes a volume with its snapshots and its record. From its mark on a crash
    /// completes that: what was lost by other means is never taken for a removal.
    pub(super) fn remove(&self, volume: &DynoName, given: Option<Quota>) -> io::Result<()> {
        make_folder(&self.being_removed())?;
        sync(self.root())?;
        durable::write(&self.mark(volume), b"", Survives::PowerCut)?;
        failpoint("volume_remove.marked");
        self.remove_marked(volume, given)
    }

    /// Completes a removal that was cut short, so that another volume of that name gets
    /// nothing of it.
    pub(super) fn complete_removal(&self, volume: &DynoName) -> io::Result<()> {
        match self.mark(volume).exists() && !self.data(volume).exists() {
            true => self.remove_marked(volume, self.quota(volume)),
            false => Ok(()),
        }
    }

    fn remove_marked(&self, volume: &DynoName, given: Option<Quota>) -> io::Result<()> {
        let removed = self.remove_all(volume, given);
        // Where its files are still there it is a volume, and nobody was told otherwise.
        if removed.is_ok() || self.data(volume).exists() {
            durable::remove(&self.mark(volume), Survives::PowerCut)?;
        }
        removed
    }

    fn remove_all(&self, volume: &DynoName, given: Option<Quota>) -> io::Result<()> {
        for folder in [self.data(volume), self.snapshots(volume)] {
            if folder.exists() {
                self.throw(&folder)?;
                failpoint("volume_remove.part");
            }
        }
        failpoint("volume_remove.thrown");
        if let Some(given) = given {
            clear(self.root(), given.project);
        }
        durable::remove(&self.record(volume), Survives::PowerCut)?;
        failpoint("volume_remove.unrecorded");
        Ok(())
    }

    fn complete_all(&self) -> io::Result<()> {
        for volume in Self::names(&self.being_removed())? {
            self.remove_marked(&volume, self.quota(&volume))?;
        }
        // A record precedes its volume.
        for volume in self.recorded()? {
            let nothing = |path: &Path| {
                let found = fs::symlink_metadata(path).map_err(|error| error.kind());
                found.is_err_and(|kind| kind == io::ErrorKind::NotFound)
            };
            if nothing(&self.data(&volume)) && nothing(&self.snapshots(&volume)) {
                if let Some(given) = self.quota(&volume) {
                    clear(self.root(), given.project);
                }
                durable::remove(&self.record(&volume), Survives::PowerCut)?;
            }
        }
        Ok(())
    }

    /// The volumes that have a record, or half of one, which goes.
    fn recorded(&self) -> io::Result<Vec<DynoName>> {
        let entries = match fs::read_dir(self.root().join(".records")) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut volumes = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let name = path
                .file_stem()
                .and_then(|name| name.to_str()?.parse().ok());
            match path.extension().and_then(|ending| ending.to_str()) {
                Some("json") => volumes.extend(name),
                Some("new") => durable::remove(&path, Survives::Crash)?,
                _ => {}
            }
        }
        Ok(volumes)
    }

    fn quota(&self, volume: &DynoName) -> Option<Quota> {
        let record = self.read_record(volume);
        record.ok().flatten().and_then(|record| record.quota)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_start_completes_what_was_asked_for_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders::new(root.path().to_owned());
        let has_snapshots = ["lost", "marked"];
        for name in ["lost", "marked", "half", "kept"] {
            let volume = name.parse().unwrap();
            make_folder(&root.path().join(".records")).unwrap();
            durable::write(&folders.record(&volume), b"{}", Survives::Crash).unwrap();
            if has_snapshots.contains(&name) {
                make_folder(&folders.snapshots(&volume).join("then")).unwrap();
            }
        }
        make_folder(&folders.data(&"kept".parse().unwrap())).unwrap();
        let marked = "marked".parse().unwrap();
        make_folder(&folders.being_removed()).unwrap();
        durable::write(&folders.mark(&marked), b"", Survives::Crash).unwrap();

        folders.sweep();
        let left = |name: &str| {
            let volume = name.parse().unwrap();
            (
                folders.record(&volume).exists(),
                folders.snapshots(&volume).exists(),
            )
        };
        // Its files were lost by other means: the snapshots are all there is of them.
        assert_eq!(left("lost"), (true, true));
        assert_eq!(left("marked"), (false, false));
        assert!(!folders.mark(&marked).exists());
        assert_eq!(left("half"), (false, false));
        assert_eq!(left("kept"), (true, false));
    }
}
