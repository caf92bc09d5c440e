//! An image that is ready to run: its layers on disk and what its config says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, LayerId};
use crate::platform::Platform;
use crate::reference::Reference;

/// A complete, unpacked image. One exists only after everything it refers to is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What it was pulled, loaded or imported as.
    pub reference: Reference,
    /// What the reference resolved to: the digest of the index, or of the manifest if there is
    /// no index. Pulling `repository@digest` gives the same image again.
    pub digest: Digest,
    /// The image's id: the digest of its config.
    pub id: Digest,
    /// What it was built for.
    pub platform: Platform,
    /// When it was built, if its config says so.
    pub created: Option<Timestamp>,
    /// When it came into this store.
    pub stored: Timestamp,
    /// Size of its unpacked files in bytes, layers shared with other images included.
    pub size_bytes: u64,
    /// Its unpacked layers, topmost first.
    pub layers: Vec<LayerId>,
    /// What the image's author wants run. P6: untrusted.
    pub config: ImageConfig,
    /// Folders of the machine shown inside, read-only. Only the built-in image has any.
    pub binds: Vec<Bind>,
    /// `…/layers`, to which `layers` are relative.
    pub(crate) layers_root: PathBuf,
}

/// A folder of the machine that belongs to an image: bind-mounted read-only, not idmapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Folder on the machine.
    pub source: PathBuf,
    /// Absolute path inside.
    pub target: String,
}

/// The part of an image's config that says how to run it (OCI image spec, `config.config`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageConfig {
    /// Program and leading arguments; empty if only `cmd` counts.
    pub entrypoint: Vec<String>,
    /// Default arguments, or the whole command where there is no entrypoint.
    pub cmd: Vec<String>,
    /// Environment as `NAME=value`.
    pub env: Vec<String>,
    /// `user[:group]` by name or number; empty means root. See [`crate::identity`].
    pub user: String,
    /// Working directory; empty means `/`.
    pub workdir: String,
    /// Signal that asks the program to stop, by name or number.
    pub stop_signal: Option<String>,
    /// Paths that the author wants on volumes.
    pub volumes: BTreeSet<String>,
    /// `port[/protocol]` the program listens on.
    pub exposed_ports: BTreeSet<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// How its author would have it checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
}

/// Docker's `HEALTHCHECK`, which images of OCI format carry as well. Times are
/// nanoseconds; 0 and less mean the default, as in Docker's own documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Healthcheck {
    /// `["CMD", PROGRAM, ARGUMENT…]`, `["CMD-SHELL", COMMAND]` or `["NONE"]`.
    pub test: Vec<String>,
    /// Nanoseconds between two checks.
    pub interval: i64,
    /// Nanoseconds that a check may take.
    pub timeout: i64,
    /// Failures in a row that count.
    pub retries: i64,
}

impl Image {
    /// The folders to give to overlayfs as `lowerdir=`, topmost first.
    pub fn layer_dirs(&self) -> Vec<PathBuf> {
        self.layers
            .iter()
            .map(|layer| layer_fs(&self.layers_root, layer))
            .collect()
    }
}

impl ImageConfig {
    /// The default command: entrypoint followed by cmd, or a shell where the image names none.
    pub fn command(&self) -> Vec<String> {
        match (self.entrypoint.is_empty(), self.cmd.is_empty()) {
            (true, true) => vec!["/bin/sh".to_owned()],
            _ => self.entrypoint.iter().chain(&self.cmd).cloned().collect(),
        }
    }
}

/// The file tree of an unpacked layer.
pub(crate) fn layer_fs(layers_root: &Path, layer: &LayerId) -> PathBuf {
    layers_root.join(layer.0.hex()).join("fs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_command_gives_a_shell() {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let mut config = ImageConfig::default();
        assert_eq!(config.command(), ["/bin/sh"]);
        config.cmd = words(&["serve"]);
        assert_eq!(config.command(), ["serve"]);
        config.entrypoint = words(&["/init", "--"]);
        assert_eq!(config.command(), ["/init", "--", "serve"]);
    }
}
