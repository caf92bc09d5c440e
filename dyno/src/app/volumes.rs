//! The volumes of an app: a service says `data`, on the host it is `APP-data`.

use std::collections::BTreeMap;

use dyno_api::dyno::Mount;
use dyno_api::name::DynoName;
use dyno_api::volume::{BackupHooks, VolumeQuota};

use super::document::{Fields, Item};
use super::words;
use crate::value::{duration, size};

/// A volume as an app wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Volume {
    /// Its name on the host.
    pub(crate) name: DynoName,
    /// Others made it, and others remove it.
    pub(crate) external: bool,
    /// What it may take up.
    pub(crate) quota: VolumeQuota,
    /// What its dynos do before and after a copy of it.
    pub(crate) backup: BackupHooks,
}

/// The volumes that a file names, by their names in it.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    app: Option<DynoName>,
    declared: BTreeMap<String, Volume>,
    /// Keys of those that were added, by their names on the host.
    keys: BTreeMap<DynoName, String>,
}

impl Volumes {
    pub(super) fn new(app: DynoName) -> Self {
        Self {
            app: Some(app),
            ..Self::default()
        }
    }

    /// One that a file describes: `name`, `external`, `quota`, `inodes` and what is done
    /// before and after a copy.
    pub(super) fn declare(&mut self, key: &str, item: &Item<'_>) {
        let Some(mut volume) = self.usual(key, item) else {
            return;
        };
        if !item.is_null()
            && let Some(mut fields) = item.fields()
        {
            volume.external = fields.read("external", Item::flag).unwrap_or(false);
            match fields.read("name", Item::typed) {
                Some(name) => volume.name = name,
                // Others did not name it after this app.
                None if volume.external => {
                    if let Some(name) = item.take(key.parse()) {
                        volume.name = name;
                    }
                }
                None => {}
            }
            volume.quota.bytes = fields.read("quota", |item| item.parsed(size::parse));
            volume.quota.inodes = fields.read("inodes", Item::typed);
            if volume.external && !volume.quota.is_unset() {
                item.wrong("an external volume has its quota already");
            }
            let command = |fields: &mut Fields<'_>, key| fields.read(key, words::of);
            volume.backup = BackupHooks {
                before: command(&mut fields, "before_backup").unwrap_or_default(),
                after: command(&mut fields, "after_backup").unwrap_or_default(),
                timeout_ms: fields
                    .read("backup_timeout", |item| item.parsed(duration::parse))
                    .map(duration::millis),
            };
            if volume.external && !volume.backup.is_unset() {
                item.wrong("an external volume has its commands already");
            }
            fields.finish();
        }
        self.declared.insert(key.to_owned(), volume);
    }

    /// One that a file describes in another way, whose key is not its name.
    pub(super) fn add(&mut self, key: &str, volume: Volume, item: &Item<'_>) {
        let name = volume.name.clone();
        if let Some(other) = self.keys.insert(name.clone(), key.to_owned()) {
            item.wrong(format_args!("it is {name} on the host, as {other} is"));
        }
        self.declared.insert(key.to_owned(), volume);
    }

    /// The one that the file describes, or names, by this key.
    pub(super) fn get(&self, key: &str) -> Option<&Volume> {
        self.declared.get(key)
    }

    /// The mount with the volume's name on the host.
    pub(super) fn resolve(&mut self, mount: Mount, item: &Item<'_>) -> Option<Mount> {
        let Mount::Volume {
            name,
            target,
            read_only,
        } = mount
        else {
            return Some(mount);
        };
        let key = name.as_str();
        if self.get(key).is_none() {
            let volume = self.usual(key, item)?;
            self.declared.insert(key.to_owned(), volume);
        }
        Some(Mount::Volume {
            name: self.declared[key].name.clone(),
            target,
            read_only,
        })
    }

    /// All of them.
    pub(super) fn into_list(self) -> Vec<Volume> {
        self.declared.into_values().collect()
    }

    /// What a name alone says: a volume of the app.
    pub(super) fn usual(&self, key: &str, item: &Item<'_>) -> Option<Volume> {
        let name = format!("{}-{key}", self.app.as_ref()?);
        Some(Volume {
            name: item.take(name.parse())?,
            external: false,
            quota: VolumeQuota::default(),
            backup: BackupHooks::default(),
        })
    }
}
