//! The mounts of a configuration as steps of the child.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Mount};
use rustix::mount::MountAttrFlags;

use super::options::{self, Bind, NewMount, Options};
use super::propagation::RootPropagation;
use super::target::{Kind, Target};
use super::{Late, Mapped, PlanError, Step};
use crate::spec::{Bundle, SpecError};
use crate::sys::mount::{Attributes, mount_idmap, mount_setattr};

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
        /// What is done before anybody sees it.
        finish: Finish,
    },
}

/// What is done to a new file system before it is attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Finish {
    /// Give its root the owner and mode of the folder that it hides.
    pub(crate) as_target: bool,
    /// Copy what it hides.
    pub(crate) copy_up: bool,
    /// Attributes that would be in the way before.
    pub(crate) attributes: Attributes,
}

/// A mount that is there already and is changed.
#[derive(Debug)]
pub(crate) struct Remount {
    /// Where it is.
    pub(crate) target: Target,
    /// What changes of the mount itself.
    pub(crate) attributes: Attributes,
    /// What changes of it and of all below.
    pub(crate) recursive: Attributes,
    /// What changes of its file system.
    pub(crate) parameters: Vec<(CString, Option<CString>)>,
}

impl fmt::Display for Remount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.target)
    }
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
            finish: Finish::default(),
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
pub(super) fn new_mount(mount: &Mount, options: &Options) -> Result<NewMount, PlanError> {
    if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
        return Err(unsupported(mount, "mappings of its own without bind"));
    }
    let new = options.for_new_mount();
    new.map_err(|option| unsupported(mount, option))
}

/// What the steps of mounts are made from.
#[derive(Debug)]
pub(super) struct Mounts<'a> {
    pub(super) bundle: &'a Bundle,
    pub(super) propagation: RootPropagation,
    /// `linux.mountLabel`, as an option of a file system.
    pub(super) label: Option<CString>,
}

impl Mounts<'_> {
    /// The step for a mount that is neither the root, nor a tmpfs on `/dev`, nor cgroups.
    pub(super) fn step(&self, mount: &Mount, late: &mut Late) -> Result<Step, PlanError> {
        let options = parse_options(mount)?;
        let kind = mount.typ().as_deref().unwrap_or("none");
        let bind = options.bind.or((kind == "bind").then_some(Bind::Plain));
        if options.copy_up && (bind.is_some() || kind != "tmpfs") {
            return Err(unsupported(mount, "tmpcopyup without type tmpfs"));
        }
        if options.remount {
            return remount_step(mount, &options, bind);
        }
        check_proc(mount, kind, bind.is_some(), self.bundle)?;
        let step = match bind {
            Some(bind) => self.bind_step(mount, &options, bind, late)?,
            None => self.file_system_step(mount, kind, &options)?,
        };
        Ok(Step::Mount(Box::new(step)))
    }

    fn bind_step(
        &self,
        mount: &Mount,
        options: &Options,
        bind: Bind,
        late: &mut Late,
    ) -> Result<MountStep, PlanError> {
        if let Some(option) = options.beyond_a_bind() {
            return Err(unsupported(mount, &option));
        }
        let source = bind_source(mount, self.bundle)?;
        let recursive = bind == Bind::Recursive;
        let tree = self.propagation.take(&source, recursive, options)?;
        let prepare = |what| {
            let subject = source.display().to_string();
            move |source| PlanError::Prepare {
                what,
                subject,
                source,
            }
        };
        if let Some(scope) = self.mapping_of(mount, options)? {
            let recursive = scope == Bind::Recursive;
            if let Some((uids, gids)) = own_mappings(mount)? {
                let namespace = crate::container::mapped(uids, gids);
                let namespace = namespace.map_err(|source| PlanError::Mapping {
                    target: mount.destination().clone(),
                    source: Box::new(source),
                })?;
                mount_idmap(tree.as_fd(), recursive, namespace.as_fd())
                    .map_err(prepare("map the owners of"))?;
            } else {
                late.mapped.push(Mapped {
                    mount: rustix::io::fcntl_dupfd_cloexec(&tree, 3).map_err(prepare("keep"))?,
                    recursive,
                    source: source.display().to_string(),
                });
            }
        }
        let mut changes = self.propagation.of_copy(options);
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

    /// Whether the owners of a bind are mapped, and how much of it.
    fn mapping_of(&self, mount: &Mount, options: &Options) -> Result<Option<Bind>, PlanError> {
        let own = own_mappings(mount)?.is_some();
        // As runc has it, mappings ask for it by themselves.
        let scope = options.idmap.or(own.then_some(Bind::Plain));
        let possible = own || self.bundle.namespace(LinuxNamespaceType::User).is_some();
        if scope.is_some() && !possible {
            let what = "idmap without mappings and without a user namespace";
            return Err(unsupported(mount, what));
        }
        Ok(scope)
    }

    fn file_system_step(
        &self,
        mount: &Mount,
        kind: &str,
        options: &Options,
    ) -> Result<MountStep, PlanError> {
        if mount.typ().is_none() {
            return Err(SpecError::Missing("mounts.type of a mount that is no bind").into());
        }
        let new = new_mount(mount, options)?;
        let text = |text: &Path| {
            let bytes = text.as_os_str().as_encoded_bytes();
            CString::new(bytes).map_err(|_nul| PlanError::Nul("a mount"))
        };
        let device = mount.source().as_deref().unwrap_or(Path::new(kind));
        let mut parameters = options.parameters();
        if LABELLED.contains(&kind) {
            let label = self.label.clone();
            parameters.extend(label.map(|label| (c"context".to_owned(), Some(label))));
        }
        let tmpfs = kind == "tmpfs";
        let mode_given = options
            .data
            .iter()
            .any(|(key, _)| key.as_c_str() == c"mode");
        let mut attributes = new.attributes;
        let mut finish = Finish {
            as_target: tmpfs && !mode_given,
            copy_up: options.copy_up,
            attributes: Attributes {
                propagation: new.propagation,
                ..Attributes::default()
            },
        };
        if finish.as_target || finish.copy_up {
            let read_only = attributes & MountAttrFlags::MOUNT_ATTR_RDONLY;
            attributes -= read_only;
            finish.attributes.set = u64::from(read_only.bits());
        }
        let source = Source::FileSystem {
            kind: text(Path::new(kind))?,
            device: text(device)?,
            parameters,
            attributes,
            finish,
        };
        Ok(MountStep {
            source,
            target: Target::new(mount.destination(), Kind::Folder)?,
        })
    }
}

/// File systems that take a label for all their files.
const LABELLED: [&str; 3] = ["tmpfs", "devpts", "mqueue"];

/// Changes the mount that is there: what is named changes, the rest stays.
fn remount_step(mount: &Mount, options: &Options, bind: Option<Bind>) -> Result<Step, PlanError> {
    let parameters = options.parameters();
    if bind.is_some()
        && let Some(option) = options.beyond_a_bind()
    {
        return Err(unsupported(mount, &option));
    }
    if options.idmap.is_some() || mount.uid_mappings().is_some() {
        return Err(unsupported(mount, "idmap with remount"));
    }
    Ok(Step::Remount(Box::new(Remount {
        target: Target::new(mount.destination(), Kind::Folder)?.over_proc(),
        attributes: options.attributes,
        recursive: options.recursive,
        parameters: if bind.is_some() {
            Vec::new()
        } else {
            parameters
        },
    })))
}

fn bind_source(mount: &Mount, bundle: &Bundle) -> Result<PathBuf, PlanError> {
    let source = mount.source().as_deref();
    let source = source.ok_or(SpecError::Missing("mounts.source of a bind"))?;
    Ok(bundle.dir().join(source))
}

/// Mappings of a mount: both or none.
type OwnMappings<'a> = Option<(&'a [LinuxIdMapping], &'a [LinuxIdMapping])>;

fn own_mappings(mount: &Mount) -> Result<OwnMappings<'_>, PlanError> {
    let list = |list: &'_ Option<Vec<LinuxIdMapping>>| list.as_ref().is_some_and(|l| !l.is_empty());
    match (list(mount.uid_mappings()), list(mount.gid_mappings())) {
        (false, false) => Ok(None),
        (true, true) => Ok(mount
            .uid_mappings()
            .as_deref()
            .zip(mount.gid_mappings().as_deref())),
        (false, true) => Err(SpecError::Missing("mounts.uidMappings beside gidMappings").into()),
        (true, false) => Err(SpecError::Missing("mounts.gidMappings beside uidMappings").into()),
    }
}

/// Files of procfs that may be hidden behind others: those that lxcfs shows in
/// its own way, and the few that tools of checkpoints and cryptography need.
const OVER_PROC: [&str; 11] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "net/dev",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

/// Whether this path of a container is a file of procfs that may be hidden.
pub(super) fn may_hide_in_proc(path: &str) -> bool {
    let below = path.strip_prefix("/proc/");
    below.is_some_and(|below| OVER_PROC.contains(&below))
}

/// Whoever mounts something over procfs decides what is written to labels and
/// sysctls, and what is masked (P2): but for a procfs itself and a few files,
/// nothing may be.
fn check_proc(mount: &Mount, kind: &str, bind: bool, bundle: &Bundle) -> Result<(), PlanError> {
    let path = Target::new(mount.destination(), Kind::Folder)?.to_string();
    let refused = |expected| {
        Err(SpecError::Invalid {
            property: "mounts.destination",
            value: mount.destination().display().to_string(),
            expected,
        }
        .into())
    };
    if path == "/proc" {
        let proc = if bind {
            let source = bind_source(mount, bundle)?;
            rustix::fs::statfs(&source).is_ok_and(|stat| stat.f_type == PROC_SUPER_MAGIC)
        } else {
            kind == "proc"
        };
        return match proc {
            true => Ok(()),
            false => refused("a procfs there, and nothing else"),
        };
    }
    match !path.starts_with("/proc/") || may_hide_in_proc(&path) {
        true => Ok(()),
        false => refused("nothing over procfs but the files that lxcfs shows"),
    }
}

/// `PROC_SUPER_MAGIC` of `<linux/magic.h>`.
const PROC_SUPER_MAGIC: i64 = 0x9fa0;

fn unsupported(mount: &Mount, option: &str) -> PlanError {
    PlanError::MountOption {
        target: mount.destination().clone(),
        option: option.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_files_of_procfs_may_be_hidden() {
        for (path, may) in [
            ("/proc/uptime", true),
            ("/proc/net/dev", true),
            ("/proc/sys/kernel/ns_last_pid", true),
            ("/proc/self/attr/exec", false),
            ("/proc/sys", false),
            ("/proc/uptime/x", false),
            ("/procx/uptime", false),
        ] {
            assert_eq!(may_hide_in_proc(path), may, "{path}");
        }
    }
}
