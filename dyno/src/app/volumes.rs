//! The volumes of an app: a service says `data`, on the host it is `APP-data`.

use std::collections::BTreeMap;

use dyno_api::dyno::Mount;
use dyno_api::name::DynoName;
use dyno_api::volume::VolumeQuota;

use super::document::Item;
use crate::value::size;

/// A volume as an app wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Volume {
    /// Its name on the host.
    pub(crate) name: DynoName,
    /// Others made it, and others remove it.
    pub(crate) external: bool,
    /// What it may take up.
    pub(crate) quota: VolumeQuota,
}

/// The volumes that a file names, by their names in it.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    app: Option<DynoName>,
    declared: BTreeMap<String, Volume>,
}

impl Volumes {
    pub(super) fn new(app: DynoName) -> Self {
        Self {
            app: Some(app),
            declared: BTreeMap::new(),
        }
    }

    /// One that a file describes: `name`, `external`, `quota` and `inodes`.
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
            fields.finish();
        }
        self.declared.insert(key.to_owned(), volume);
    }

    /// Whether the file describes it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.declared.contains_key(key)
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
        if !self.has(key) {
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

    fn usual(&self, key: &str, item: &Item<'_>) -> Option<Volume> {
        let name = format!("{}-{key}", self.app.as_ref()?);
        Some(Volume {
            name: item.take(name.parse())?,
            external: false,
            quota: VolumeQuota::default(),
        })
    }
}
