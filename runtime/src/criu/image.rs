//! What we note beside CRIU's images: what of a container lies outside of it.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, External, Outside};

const FILE: &str = "dyno-runtime.json";
const VERSION: u32 = 1;

/// `dyno-runtime.json` in a folder of images.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Image {
    version: u32,
    /// Mounts of things that restore has to name again.
    pub(crate) mounts: Vec<External>,
    /// Where the file systems are mounted that CRIU makes anew.
    #[serde(default)]
    pub(crate) saved: Vec<String>,
    /// Standard streams that restore has to hand over.
    pub(crate) streams: Vec<Outside>,
    /// Whether its TCP connections were saved with it.
    #[serde(default)]
    pub(crate) tcp_established: bool,
    /// Whether its network was joined rather than made.
    pub(crate) network: bool,
    /// The table by which CRIU keeps that network locked until it is brought back.
    #[serde(default)]
    pub(crate) lock: Option<String>,
}

impl Image {
    /// With these.
    pub(crate) fn new(
        mounts: Vec<External>,
        saved: Vec<String>,
        streams: Vec<Outside>,
        network: bool,
    ) -> Self {
        Self {
            version: VERSION,
            mounts,
            saved,
            streams,
            tcp_established: false,
            network,
            lock: None,
        }
    }

    /// Notes it in a folder of images.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), Error> {
        let (path, new) = (folder.join(FILE), folder.join("dyno-runtime.json.new"));
        serde_json::to_vec(self)
            .map_err(std::io::Error::from)
            .and_then(|text| File::create(&new)?.write_all(&text))
            .and_then(|()| fs::rename(&new, &path))
            .map_err(Error::io(format!("write {}", path.display())))
    }

    /// Takes it back after a failure, so that nobody restores half of a container.
    pub(crate) fn remove(folder: &Path) {
        // What is said is the failure; `restore` would fail for lack of images, too.
        fs::remove_file(folder.join(FILE)).ok();
    }

    /// Reads it back.
    ///
    /// # Errors
    /// When it is not there, damaged, or another version's.
    pub(crate) fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let name = path.display();
        let text = fs::read(&path).map_err(Error::io(format!("read {name}")))?;
        let image: Self = serde_json::from_slice(&text)
            .map_err(|error| Error::Unfit(format!("{name} is damaged: {error}")))?;
        if image.version != VERSION {
            let version = image.version;
            let other = format!("{name} is of version {version}, expected {VERSION}");
            return Err(Error::Unfit(other));
        }
        Ok(image)
    }
}
