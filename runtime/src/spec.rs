//! A bundle's `config.json` (OCI runtime spec, config.md), read and checked.

mod check;
mod names;
pub(crate) mod process;
pub(crate) mod ranges;

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Hook, Hooks, LinuxIdMapping, LinuxNamespaceType, PosixRlimit, Spec};

pub(crate) use check::{check_intel_rdt, check_process, inside_name, sysctl_namespace};
pub(crate) use names::parse;

/// No `config.json` is larger than this, in bytes (P15).
const MAX_CONFIG: u64 = 4 << 20;

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The file cannot be read.
    #[error("read {path}")]
    Read {
        /// Where it was looked for.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is a FIFO, a device, a folder.
    #[error("{path} is no regular file")]
    NoFile {
        /// What it would be.
        path: PathBuf,
    },
    /// The file is larger than any configuration.
    #[error("{path} is larger than {MAX_CONFIG} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a valid configuration.
    #[error("parse {path}, {property}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The property that is wrong, dotted.
        property: String,
        /// What the parser said, with line and column.
        source: serde_json::Error,
    },
    /// A property that must be there is not.
    #[error("config.json lacks {0}")]
    Missing(&'static str),
    /// A property has a value that the spec does not allow.
    #[error("config.json: {property} is {value:?}, expected {expected}")]
    Invalid {
        /// Path of the property, dotted.
        property: &'static str,
        /// The value found.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A property that this kernel cannot honour.
    #[error("config.json asks for {property}, which needs {needed}, and this host has none")]
    Host {
        /// Path of the property, dotted.
        property: &'static str,
        /// What the host would have to have.
        needed: &'static str,
    },
    /// A property that this runtime cannot honour yet; ignoring it would do
    /// less than the configuration says.
    #[error("config.json asks for {0}, which this runtime does not support")]
    Unsupported(&'static str),
}

/// A bundle: its folder and its configuration.
#[derive(Debug)]
pub struct Bundle {
    dir: PathBuf,
    /// A bundle is handed on many times, and its configuration has kilobytes.
    spec: Box<Spec>,
    /// The file as it was read.
    text: Vec<u8>,
}

/// P15: a FIFO is opened without waiting for who writes into it.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

impl Bundle {
    /// Reads `config.json` in `dir` and checks it.
    ///
    /// # Errors
    /// [`SpecError`] when the file is missing, malformed, or asks for what
    /// this runtime cannot do.
    pub fn load(dir: &Path) -> Result<Self, SpecError> {
        Self::load_from(&dir.join("config.json"), dir)
    }

    /// The bundle in `dir` with a configuration that was kept elsewhere.
    ///
    /// # Errors
    /// As [`Bundle::load`].
    pub fn load_from(path: &Path, dir: &Path) -> Result<Self, SpecError> {
        let path = path.to_owned();
        let read = |source| SpecError::Read {
            path: path.clone(),
            source,
        };
        let file = open(&path).map_err(read)?;
        let metadata = file.metadata().map_err(read)?;
        if !metadata.is_file() {
            return Err(SpecError::NoFile { path });
        }
        // One byte more tells the end of the file without another read.
        let length = metadata.len().min(MAX_CONFIG) + 1;
        let mut text = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        file.take(MAX_CONFIG + 1)
            .read_to_end(&mut text)
            .map_err(read)?;
        if text.len() as u64 > MAX_CONFIG {
            return Err(SpecError::TooLarge { path });
        }
        let spec: Box<Spec> = parse(&text).map_err(|malformed| SpecError::Parse {
            path: path.clone(),
            property: malformed.property,
            source: malformed.source,
        })?;
        let dir = dir.canonicalize().map_err(read)?;
        check::check(&spec)?;
        Ok(Self { dir, spec, text })
    }

    /// A bundle from a configuration that is in memory already.
    ///
    /// # Errors
    /// As [`Bundle::load`].
    pub fn new(dir: PathBuf, spec: Spec) -> Result<Self, SpecError> {
        check::check(&spec)?;
        Ok(Self {
            dir,
            spec: Box::new(spec),
            text: Vec::new(),
        })
    }

    /// `config.json` as it was read; empty where it was in memory already.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The same bundle, with these mappings.
    pub(crate) fn with_mappings(
        mut self,
        uids: Vec<LinuxIdMapping>,
        gids: Vec<LinuxIdMapping>,
    ) -> Self {
        if let Some(linux) = self.spec.linux_mut() {
            linux
                .set_uid_mappings(Some(uids))
                .set_gid_mappings(Some(gids));
        }
        self
    }

    /// Puts these variables in place of those of the same names.
    pub(crate) fn set_variables(&mut self, variables: Vec<String>) {
        fn name(variable: &str) -> &str {
            variable.split('=').next().unwrap_or(variable)
        }
        let Some(process) = self.spec.process_mut() else {
            return;
        };
        let mut env = process.env().clone().unwrap_or_default();
        env.retain(|known| variables.iter().all(|new| name(new) != name(known)));
        env.extend(variables);
        process.set_env(Some(env));
    }

    /// Puts this resource limit in place of the one of its type.
    pub(crate) fn set_rlimit(&mut self, rlimit: PosixRlimit) {
        if let Some(process) = self.spec.process_mut() {
            process::put_rlimit(process, rlimit);
        }
    }

    /// The folder, absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The configuration.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The folder that the root file system is mounted on, absolute.
    pub fn rootfs(&self) -> PathBuf {
        let path = self
            .spec
            .root()
            .as_ref()
            .map_or(Path::new("rootfs"), |root| root.path());
        self.dir.join(path)
    }

    /// Whether the container gets a new namespace of this type or joins one by path.
    pub(crate) fn namespace(&self, kind: LinuxNamespaceType) -> Option<Option<&Path>> {
        let namespaces = self.spec.linux().as_ref()?.namespaces().as_ref()?;
        let namespace = namespaces
            .iter()
            .find(|namespace| namespace.typ() == kind)?;
        Some(namespace.path().as_deref())
    }

    /// The hooks of one kind.
    pub(crate) fn hooks(&self, kind: fn(&Hooks) -> &Option<Vec<Hook>>) -> &[Hook] {
        let hooks = self.spec.hooks().as_ref();
        hooks
            .and_then(|hooks| kind(hooks).as_deref())
            .unwrap_or_default()
    }

    /// Whether there are hooks between the root's change and the program.
    pub(crate) fn has_start_hooks(&self) -> bool {
        !self.hooks(|hooks| hooks.start_container()).is_empty()
    }

    /// Whether there are hooks that come before the root is changed.
    pub(crate) fn has_create_hooks(&self) -> bool {
        let prestart = self.hooks(|hooks| hooks.prestart());
        let others = [
            self.hooks(|hooks| hooks.create_runtime()),
            self.hooks(|hooks| hooks.create_container()),
        ];
        !prestart.is_empty() || others.iter().any(|hooks| !hooks.is_empty())
    }

    /// The uid mappings of a new user namespace.
    pub(crate) fn uid_mappings(&self) -> &[LinuxIdMapping] {
        let linux = self.spec.linux().as_ref();
        linux
            .and_then(|linux| linux.uid_mappings().as_deref())
            .unwrap_or_default()
    }

    /// The gid mappings of a new user namespace.
    pub(crate) fn gid_mappings(&self) -> &[LinuxIdMapping] {
        let linux = self.spec.linux().as_ref();
        linux
            .and_then(|linux| linux.gid_mappings().as_deref())
            .unwrap_or_default()
    }
}
