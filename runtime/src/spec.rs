//! A bundle's `config.json` (OCI runtime spec, config.md), read and checked.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Spec};

/// No `config.json` is larger than this, in bytes.
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
    /// The file is not a valid configuration.
    #[error("parse {path}")]
    Parse {
        /// The file.
        path: PathBuf,
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
    /// A property that this runtime cannot honour yet; ignoring it would do
    /// less than the configuration says.
    #[error("config.json asks for {0}, which this runtime does not support")]
    Unsupported(&'static str),
}

/// A bundle: its folder and its configuration.
#[derive(Debug)]
pub struct Bundle {
    dir: PathBuf,
    spec: Spec,
}

impl Bundle {
    /// Reads `config.json` in `dir` and checks it.
    ///
    /// # Errors
    /// [`SpecError`] when the file is missing, malformed, or asks for what
    /// this runtime cannot do.
    pub fn load(dir: &Path) -> Result<Self, SpecError> {
        let path = dir.join("config.json");
        let read = |source| SpecError::Read {
            path: path.clone(),
            source,
        };
        let mut text = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_CONFIG).read_to_end(&mut text))
            .map_err(read)?;
        let spec = serde_json::from_slice(&text).map_err(|source| SpecError::Parse {
            path: path.clone(),
            source,
        })?;
        let dir = dir.canonicalize().map_err(read)?;
        Self::new(dir, spec)
    }

    /// A bundle from a configuration that is in memory already.
    ///
    /// # Errors
    /// As [`Bundle::load`].
    pub fn new(dir: PathBuf, spec: Spec) -> Result<Self, SpecError> {
        check(&spec)?;
        Ok(Self { dir, spec })
    }

    /// The same bundle, with this `linux.cgroupsPath` where it names none.
    #[must_use]
    pub fn default_cgroups_path(mut self, path: &str) -> Self {
        if let Some(linux) = self.spec.linux_mut()
            && linux.cgroups_path().is_none()
        {
            linux.set_cgroups_path(Some(PathBuf::from(path)));
        }
        self
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

/// Refuses what is malformed and what would silently be less than asked for (P18).
fn check(spec: &Spec) -> Result<(), SpecError> {
    if !spec.version().starts_with("1.") {
        return Err(SpecError::Invalid {
            property: "ociVersion",
            value: spec.version().clone(),
            expected: "a version 1.x of the runtime spec",
        });
    }
    if spec.root().is_none() {
        return Err(SpecError::Missing("root"));
    }
    let process = spec
        .process()
        .as_ref()
        .ok_or(SpecError::Missing("process"))?;
    check_process(process)?;
    let linux = spec.linux().as_ref().ok_or(SpecError::Missing("linux"))?;
    let unsupported = [
        (spec.hooks().is_some(), "hooks"),
        (linux.intel_rdt().is_some(), "linux.intelRdt"),
        (linux.memory_policy().is_some(), "linux.memoryPolicy"),
        (linux.personality().is_some(), "linux.personality"),
        (linux.time_offsets().is_some(), "linux.timeOffsets"),
        (linux.net_devices().is_some(), "linux.netDevices"),
        (
            linux
                .mount_label()
                .as_ref()
                .is_some_and(|label| !label.is_empty()),
            "linux.mountLabel",
        ),
    ];
    refuse_first(&unsupported)?;
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    for (index, namespace) in namespaces.iter().enumerate() {
        if namespaces
            .iter()
            .take(index)
            .any(|earlier| earlier.typ() == namespace.typ())
        {
            return Err(SpecError::Invalid {
                property: "linux.namespaces",
                value: namespace.typ().to_string(),
                expected: "each type once",
            });
        }
    }
    let has = |kind| namespaces.iter().any(|namespace| namespace.typ() == kind);
    if !has(LinuxNamespaceType::Mount) {
        return Err(SpecError::Unsupported(
            "a container without a mount namespace",
        ));
    }
    let user_namespace = namespaces
        .iter()
        .find(|n| n.typ() == LinuxNamespaceType::User);
    let mapped = linux.uid_mappings().is_some() && linux.gid_mappings().is_some();
    if user_namespace.is_some_and(|namespace| namespace.path().is_none()) && !mapped {
        return Err(SpecError::Missing(
            "linux.uidMappings and linux.gidMappings",
        ));
    }
    Ok(())
}

/// The checks that also bind a process executed in a running container.
pub(crate) fn check_process(process: &oci_spec::runtime::Process) -> Result<(), SpecError> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(SpecError::Missing("process.args"));
    }
    if !process.cwd().is_absolute() {
        return Err(SpecError::Invalid {
            property: "process.cwd",
            value: process.cwd().display().to_string(),
            expected: "an absolute path",
        });
    }
    let labelled = |label: &Option<String>| label.as_ref().is_some_and(|label| !label.is_empty());
    refuse_first(&[
        (
            labelled(process.apparmor_profile()),
            "process.apparmorProfile",
        ),
        (labelled(process.selinux_label()), "process.selinuxLabel"),
        (process.scheduler().is_some(), "process.scheduler"),
        (process.io_priority().is_some(), "process.ioPriority"),
        (
            process.exec_cpu_affinity().is_some(),
            "process.execCPUAffinity",
        ),
    ])
}

fn refuse_first(asked: &[(bool, &'static str)]) -> Result<(), SpecError> {
    match asked.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(SpecError::Unsupported(what)),
        None => Ok(()),
    }
}
