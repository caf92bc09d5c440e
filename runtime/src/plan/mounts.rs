//! The mounts of a configuration as steps of the child.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Mount};
use rustix::mount::MountAttrFlags;

use super::options::{self, Bind, Options};
use super::target::{Kind, Target};
use super::{Late, Mapped, PlanError, rootfs};
use crate::spec::{Bundle, SpecError};
use crate::sys::mount::{Attributes, mount_setattr};

/// One mount that the child makes.
#[derive(Debug)]
pub(crate) struct MountStep {
    /// What is mounted.
    pub(crate) source: Source,
    /// Where.
    pub(crate) target: Target,
}

/// What is mounted.
#[derive(Debug)]
pub(crate) enum Source {
    /// A mount that the parent prepared and that needs attaching only.
    Detached(OwnedFd),
    /// A file system that must be made inside the container's namespaces.
    FileSystem {
        /// Its type.
        kind: CString,
        /// What it calls its source.
        device: CString,
        /// Its parameters.
        parameters: Vec<(CString, Option<CString>)>,
        /// Attributes of the mount.
        attributes: MountAttrFlags,
    },
}

impl MountStep {
    /// A file system with the usual attributes of the kernel's own.
    pub(super) fn file_system(
        kind: &CStr,
        target: Target,
        parameters: Vec<(CString, Option<CString>)>,
        attributes: MountAttrFlags,
    ) -> Self {
        let kind = kind.to_owned();
        let source = Source::FileSystem {
            device: kind.clone(),
            kind,
            parameters,
            attributes,
        };
        Self { source, target }
    }
}

impl fmt::Display for MountStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Detached(_) => write!(f, "{}", self.target),
            Source::FileSystem { kind, .. } => {
                write!(f, "{} on {}", kind.to_string_lossy(), self.target)
            }
        }
    }
}

/// Parses the options of `mount`, naming the one that cannot be honoured.
pub(super) fn parse_options(mount: &Mount) -> Result<Options, PlanError> {
    options::parse(mount.options().as_deref().unwrap_or_default()).map_err(|option| {
        PlanError::MountOption {
            target: mount.destination().clone(),
            option: option.to_owned(),
        }
    })
}

/// The attributes of a file system that is mounted anew.
pub(super) fn new_mount_flags(
    mount: &Mount,
    options: &Options,
) -> Result<MountAttrFlags, PlanError> {
    let flags = options.for_new_mount();
    flags.map_err(|option| unsupported(mount, option))
}

/// The step for a mount that is neither the root, nor `/dev`, nor cgroups.
pub(super) fn step(
    mount: &Mount,
    bundle: &Bundle,
    late: &mut Late,
) -> Result<MountStep, PlanError> {
    let options = parse_options(mount)?;
    let kind = mount.typ().as_deref().unwrap_or("none");
    match options.bind.or((kind == "bind").then_some(Bind::Plain)) {
        Some(bind) => bind_step(mount, bundle, &options, bind, late),
        None => file_system_step(mount, kind, options),
    }
}

fn bind_step(
    mount: &Mount,
    bundle: &Bundle,
    options: &Options,
    bind: Bind,
    late: &mut Late,
) -> Result<MountStep, PlanError> {
    if let Some((key, _)) = options.data.first() {
        return Err(unsupported(mount, &key.to_string_lossy()));
    }
    let source = mount
        .source()
        .as_deref()
        .ok_or(SpecError::Missing("mounts.source of a bind"))?;
    let source = bundle.dir().join(source);
    let recursive = bind == Bind::Recursive;
    let tree = rootfs::detached_tree(&source, recursive)?;
    let prepare = |what| {
        let subject = source.display().to_string();
        move |source| PlanError::Prepare {
            what,
            subject,
            source,
        }
    };
    if options.idmap {
        if bundle.namespace(LinuxNamespaceType::User).is_none() {
            return Err(unsupported(mount, "idmap"));
        }
        late.mapped.push(Mapped {
            mount: rustix::io::fcntl_dupfd_cloexec(&tree, 3).map_err(prepare("keep"))?,
            recursive,
            source: source.display().to_string(),
        });
    }
    // A copy of a shared mount would send its mounts back to the host.
    let private = Attributes {
        propagation: libc::MS_PRIVATE,
        ..Attributes::default()
    };
    let mut changes = vec![(true, private)];
    changes.push((false, options.attributes));
    changes.push((true, options.recursive));
    for (recursive, attributes) in changes.into_iter().filter(|(_, a)| !a.is_empty()) {
        mount_setattr(tree.as_fd(), c"", recursive, attributes)
            .map_err(prepare("set the mount attributes of"))?;
    }
    let stat = rustix::fs::fstat(&tree).map_err(prepare("look at"))?;
    let folder = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
    let kind = if folder { Kind::Folder } else { Kind::File };
    let target = Target::new(mount.destination(), kind)?;
    Ok(MountStep {
        source: Source::Detached(tree),
        target,
    })
}

fn file_system_step(mount: &Mount, kind: &str, options: Options) -> Result<MountStep, PlanError> {
    let attributes = new_mount_flags(mount, &options)?;
    let text = |text: &Path| {
        CString::new(text.as_os_str().as_encoded_bytes()).map_err(|_nul| PlanError::Nul("a mount"))
    };
    let device = mount.source().as_deref().unwrap_or(Path::new(kind));
    let source = Source::FileSystem {
        kind: text(Path::new(kind))?,
        device: text(device)?,
        parameters: options.data,
        attributes,
    };
    Ok(MountStep {
        source,
        target: Target::new(mount.destination(), Kind::Folder)?,
    })
}

fn unsupported(mount: &Mount, option: &str) -> PlanError {
    PlanError::MountOption {
        target: mount.destination().clone(),
        option: option.to_owned(),
    }
}
