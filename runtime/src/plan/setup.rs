//! The order of the steps, and why it is so.
//!
//! ```text
//!  wait for the parent ── cgroups and id mappings are its business
//!  session, keyring, standard streams
//!  attach the root         as the host's root: its folder may be closed to others
//!  become root inside      from here on files belong to the mapped ids
//!  cgroup namespace        before /sys/fs/cgroup shows it
//!  mounts, sysctls, terminal, masks
//!  pivot_root              the host's tree is gone
//!  ── ready, wait for start ──
//!  working folder          before capabilities to reach it are dropped
//!  identity, no_new_privs, seccomp, execve
//! ```

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Mount, Process};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::process::{Gid, Uid};

use super::devices::{HostIds, dev_tmpfs};
use super::mounts::{self, MountStep, Source};
use super::options::Options;
use super::rootfs::IdMap;
use super::target::{Kind, Target};
use super::{Capabilities, Plan, PlanError, Program, Step, rootfs};
use crate::cgroup::Cgroup;
use crate::container::Stdio;
use crate::seccomp::Filter;
use crate::spec::{Bundle, SpecError};
use crate::sys::mount::Attributes;

/// What an init's plan is made from.
#[derive(Debug)]
pub(crate) struct InitParts<'a> {
    /// The bundle.
    pub(crate) bundle: &'a Bundle,
    /// Its user namespace, where it has one of its own.
    pub(crate) user_namespace: Option<BorrowedFd<'a>>,
    /// Its cgroup.
    pub(crate) cgroup: &'a Cgroup,
    /// Kill the payload when its parent dies.
    pub(crate) die_with_parent: bool,
}

/// The plan of a container's first process.
pub(crate) fn init_plan(parts: &InitParts<'_>, stdio: Stdio) -> Result<Plan, PlanError> {
    let spec = parts.bundle.spec();
    let process = spec
        .process()
        .as_ref()
        .ok_or(SpecError::Missing("process"))?;
    let new = |kind| parts.bundle.namespace(kind) == Some(None);
    let mounts = Mounts::sort(parts)?;
    let mut steps = first_steps();
    let terminal = match stdio {
        Stdio::Terminal => true,
        Stdio::Fds {
            stdin,
            stdout,
            stderr,
        } => {
            steps.push(Step::Stdio([stdin, stdout, stderr]));
            false
        }
    };
    steps.push(Step::Propagation(root_propagation(parts.bundle)?));
    steps.push(Step::AttachRoot {
        mount: mounts.root,
        at: c_path(&parts.bundle.rootfs())?,
    });
    if parts.user_namespace.is_some() {
        steps.push(Step::BecomeRoot);
    }
    if new(LinuxNamespaceType::Cgroup) {
        steps.push(Step::NewCgroupNamespace);
    }
    if let Some(name) = spec.hostname().as_ref().filter(|name| !name.is_empty()) {
        steps.push(Step::HostName(c_text("hostname", name)?));
    }
    if let Some(name) = spec.domainname().as_ref().filter(|name| !name.is_empty()) {
        steps.push(Step::DomainName(c_text("domainname", name)?));
    }
    steps.extend(mounts.steps);
    for (key, value) in spec
        .linux()
        .iter()
        .flat_map(|linux| linux.sysctl())
        .flatten()
    {
        let path = c_text("linux.sysctl", &key.replace('.', "/"))?;
        steps.push(Step::Sysctl {
            path,
            value: value.clone().into_bytes(),
        });
    }
    if terminal {
        let console = Target::new(Path::new("/dev/console"), Kind::File)?;
        steps.push(Step::Terminal {
            owner: Uid::from_raw(process.user().uid()),
            console,
        });
    }
    steps.push(Step::MakeFolder(Target::new(process.cwd(), Kind::Folder)?));
    steps.extend(protection_steps(parts.bundle)?);
    steps.push(Step::PivotRoot);
    if spec
        .root()
        .as_ref()
        .is_some_and(|root| root.readonly() == Some(true))
    {
        let set = libc::MOUNT_ATTR_RDONLY;
        steps.push(Step::RootAttributes(Attributes {
            set,
            ..Attributes::default()
        }));
    }
    steps.push(Step::AwaitStart);
    steps.extend(last_steps(process, parts.bundle, parts.die_with_parent)?);
    Ok(Plan {
        steps,
        program: program(process)?,
    })
}

/// The plan of a further process in a running container: its namespaces, root
/// and mounts are there already.
pub(crate) fn exec_plan(
    process: &Process,
    bundle: &Bundle,
    cgroup_namespace: Option<OwnedFd>,
    stdio: Stdio,
) -> Result<Plan, PlanError> {
    let mut steps = first_steps();
    steps.extend(cgroup_namespace.map(Step::JoinCgroupNamespace));
    match stdio {
        Stdio::Terminal => {
            let console = Target::new(Path::new("/"), Kind::Folder)?;
            steps.push(Step::Terminal {
                owner: Uid::from_raw(process.user().uid()),
                console,
            });
        }
        Stdio::Fds {
            stdin,
            stdout,
            stderr,
        } => steps.push(Step::Stdio([stdin, stdout, stderr])),
    }
    if bundle.namespace(LinuxNamespaceType::User).is_some() {
        steps.push(Step::BecomeRoot);
    }
    steps.push(Step::AwaitStart);
    steps.extend(last_steps(process, bundle, true)?);
    Ok(Plan {
        steps,
        program: program(process)?,
    })
}

/// What runs in a jail, see [`crate::jail`].
#[derive(Debug)]
pub(crate) struct JailPlan {
    /// The folder, as a detached mount.
    pub(crate) root: OwnedFd,
    /// Where it is attached.
    pub(crate) at: CString,
    /// What the program may do inside.
    pub(crate) capabilities: Capabilities,
    /// Its system calls.
    pub(crate) filter: Filter,
    /// The program.
    pub(crate) program: Program,
}

/// The plan of a jailed program: nothing but the folder.
pub(crate) fn jail_plan(jail: JailPlan) -> Plan {
    let root = (Uid::from_raw(0), Gid::from_raw(0));
    let mut steps = first_steps();
    steps.extend([
        Step::Propagation(libc::MS_PRIVATE),
        Step::AttachRoot {
            mount: jail.root,
            at: jail.at,
        },
        Step::BecomeRoot,
        Step::PivotRoot,
        Step::AwaitStart,
        Step::WorkingDirectory(c"/".to_owned()),
        Step::Identity {
            uid: root.0,
            gid: root.1,
            groups: Vec::new(),
            capabilities: jail.capabilities,
        },
        Step::NoNewPrivileges,
        Step::DieWithParent,
        Step::Seccomp(jail.filter),
    ]);
    Plan {
        steps,
        program: jail.program,
    }
}

fn first_steps() -> Vec<Step> {
    vec![
        Step::AwaitParent,
        Step::ResetSignals,
        Step::NewSession,
        Step::NewKeyring,
    ]
}

/// From "started" to execve.
fn last_steps(
    process: &Process,
    bundle: &Bundle,
    die_with_parent: bool,
) -> Result<Vec<Step>, PlanError> {
    let user = process.user();
    let groups = user
        .additional_gids()
        .iter()
        .flatten()
        .map(|&gid| Gid::from_raw(gid))
        .collect();
    let identity = Step::Identity {
        uid: Uid::from_raw(user.uid()),
        gid: Gid::from_raw(user.gid()),
        groups,
        capabilities: Capabilities::from_spec(process.capabilities().as_ref()),
    };
    let mut steps = vec![
        Step::Umask(user.umask().unwrap_or(0o022)),
        Step::WorkingDirectory(c_path(process.cwd())?),
    ];
    let profile = bundle
        .spec()
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().as_ref());
    let filter = profile.map(seccomp_step).transpose()?;
    // A filter needs CAP_SYS_ADMIN or no_new_privs. Without the latter it is
    // loaded while the former is still there, and must allow what follows.
    let no_new_privileges = process.no_new_privileges() == Some(true);
    let (early, late) = if no_new_privileges {
        (None, filter)
    } else {
        (filter, None)
    };
    steps.extend(early);
    steps.push(identity);
    if die_with_parent {
        // After the identity: a change of user clears the setting.
        steps.push(Step::DieWithParent);
    }
    if no_new_privileges {
        steps.push(Step::NoNewPrivileges);
    }
    steps.extend(late);
    Ok(steps)
}

fn seccomp_step(profile: &oci_spec::runtime::LinuxSeccomp) -> Result<Step, PlanError> {
    Ok(Step::Seccomp(crate::seccomp::compile(profile)?))
}

fn program(process: &Process) -> Result<Program, PlanError> {
    let args = process.args().as_deref().unwrap_or_default();
    Program::search(args, process.env().as_deref().unwrap_or_default())
}

fn protection_steps(bundle: &Bundle) -> Result<Vec<Step>, PlanError> {
    let Some(linux) = bundle.spec().linux().as_ref() else {
        return Ok(Vec::new());
    };
    let mut steps = Vec::new();
    for path in linux.readonly_paths().iter().flatten() {
        steps.push(Step::ReadOnly(Target::new(Path::new(path), Kind::File)?));
    }
    for path in linux.masked_paths().iter().flatten() {
        steps.push(Step::Mask(Target::new(Path::new(path), Kind::File)?));
    }
    Ok(steps)
}

fn root_propagation(bundle: &Bundle) -> Result<u64, PlanError> {
    let linux = bundle.spec().linux().as_ref();
    match linux.and_then(|linux| linux.rootfs_propagation().as_deref()) {
        None | Some("" | "private" | "rprivate") => Ok(libc::MS_PRIVATE),
        Some("slave" | "rslave") => Ok(libc::MS_SLAVE),
        Some(_) => Err(SpecError::Unsupported(
            "linux.rootfsPropagation other than private or slave",
        )
        .into()),
    }
}

/// The mounts of a configuration, each with whoever must prepare it.
struct Mounts {
    root: OwnedFd,
    steps: Vec<Step>,
}

impl Mounts {
    fn sort(parts: &InitParts<'_>) -> Result<Self, PlanError> {
        let bundle = parts.bundle;
        let mounts = bundle.spec().mounts().as_deref().unwrap_or_default();
        let (root, rest) = match mounts.split_first() {
            Some((first, rest)) if first.destination() == Path::new("/") => {
                (overlay_root(first, parts)?, rest)
            }
            _ => (rootfs::detached_tree(&bundle.rootfs(), true)?, mounts),
        };
        let mut steps = Vec::new();
        for mount in rest {
            match mount.typ().as_deref() {
                Some("tmpfs") if mount.destination() == Path::new("/dev") => {
                    steps.push(dev_step(mount, parts)?);
                }
                Some("cgroup" | "cgroup2") => cgroup_steps(mount, parts, &mut steps)?,
                _ => steps.push(mount_step(mounts::step(
                    mount,
                    bundle,
                    parts.user_namespace,
                )?)),
            }
        }
        let devices = bundle
            .spec()
            .linux()
            .as_ref()
            .and_then(|linux| linux.devices().as_ref());
        let dev = rest
            .iter()
            .any(|mount| mount.destination() == Path::new("/dev"));
        if devices.is_some_and(|devices| !devices.is_empty()) && !dev {
            return Err(SpecError::Unsupported("linux.devices without a tmpfs on /dev").into());
        }
        Ok(Self { root, steps })
    }
}

fn mount_step(step: MountStep) -> Step {
    Step::Mount(Box::new(step))
}

fn overlay_root(mount: &Mount, parts: &InitParts<'_>) -> Result<OwnedFd, PlanError> {
    let options = mounts::parse_options(mount)?;
    if mount.typ().as_deref() != Some("overlay") {
        let property = "mounts[0].type";
        let value = mount.typ().clone().unwrap_or_default();
        return Err(SpecError::Invalid {
            property,
            value,
            expected: "overlay for /",
        }
        .into());
    }
    let root = parts.bundle.uid(0).zip(parts.bundle.gid(0));
    let ids = match (parts.user_namespace, root) {
        (None, _) => None,
        (Some(user_namespace), Some(root)) => Some(IdMap {
            user_namespace,
            root,
        }),
        (Some(_), None) => return Err(SpecError::Missing("a mapping of uid 0 and gid 0").into()),
    };
    rootfs::overlay(options, &parts.bundle.rootfs(), ids)
}

fn dev_step(mount: &Mount, parts: &InitParts<'_>) -> Result<Step, PlanError> {
    let options = mounts::parse_options(mount)?;
    let linux = parts.bundle.spec().linux().as_ref();
    let devices = linux
        .and_then(|linux| linux.devices().as_deref())
        .unwrap_or_default();
    let dev = dev_tmpfs(&options, devices, parts.bundle)?;
    let target = Target::new(mount.destination(), Kind::Folder)?;
    Ok(mount_step(MountStep {
        source: Source::Detached(dev),
        target,
    }))
}

/// `/sys/fs/cgroup` as the host has it: one v2 tree, or one folder for each
/// v1 hierarchy beside it; read-only where the configuration says so.
fn cgroup_steps(
    mount: &Mount,
    parts: &InitParts<'_>,
    steps: &mut Vec<Step>,
) -> Result<(), PlanError> {
    let options = mounts::parse_options(mount)?;
    let attributes =
        MountAttrFlags::from_bits_retain(u32::try_from(options.attributes.set).unwrap_or_default());
    let inner = parts.cgroup.inner_mounts();
    let (tmpfs, trees) = inner.split_at(usize::from(inner.len() > 1));
    if let [_] = tmpfs {
        let folders: Vec<&str> = trees.iter().map(|tree| tree.folder.as_str()).collect();
        let tmpfs = cgroup_tmpfs(&folders, &options, parts.bundle).map_err(|source| {
            PlanError::Prepare {
                what: "make",
                subject: "/sys/fs/cgroup".to_owned(),
                source,
            }
        })?;
        let target = Target::new(mount.destination(), Kind::Folder)?;
        steps.push(mount_step(MountStep {
            source: Source::Detached(tmpfs),
            target,
        }));
    }
    for tree in trees {
        let kind = c_text("a cgroup type", tree.fstype)?;
        let flag = |option: &String| Ok((c_text("a cgroup option", option)?, None));
        let flags = tree
            .options
            .iter()
            .map(flag)
            .collect::<Result<_, PlanError>>()?;
        let target = Target::new(&mount.destination().join(&tree.folder), Kind::Folder)?;
        steps.push(mount_step(MountStep::file_system(
            &kind, target, flags, attributes,
        )));
    }
    Ok(())
}

/// The folder of a hybrid host's hierarchies. The parent makes it, because it
/// must hold its folders before it becomes read-only.
fn cgroup_tmpfs(folders: &[&str], options: &Options, bundle: &Bundle) -> Result<OwnedFd, Errno> {
    let mode = (c"mode".to_owned(), Some(c"755".to_owned()));
    let tmpfs = rootfs::file_system(c"tmpfs", None, &[mode], MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    let empty = rustix::fs::AtFlags::EMPTY_PATH;
    rustix::fs::chownat(&tmpfs, c"", bundle.uid(0), bundle.gid(0), empty)?;
    for folder in folders {
        rustix::fs::mkdirat(&tmpfs, *folder, Mode::from_raw_mode(0o755))?;
    }
    crate::sys::mount::mount_setattr(tmpfs.as_fd(), c"", false, options.attributes)?;
    Ok(tmpfs)
}

impl HostIds for Bundle {
    fn uid(&self, uid: u32) -> Option<rustix::fs::Uid> {
        host_id(self, LinuxNamespaceType::User, self.uid_mappings(), uid)
            .map(rustix::fs::Uid::from_raw)
    }

    fn gid(&self, gid: u32) -> Option<rustix::fs::Gid> {
        host_id(self, LinuxNamespaceType::User, self.gid_mappings(), gid)
            .map(rustix::fs::Gid::from_raw)
    }
}

fn host_id(
    bundle: &Bundle,
    user: LinuxNamespaceType,
    mappings: &[oci_spec::runtime::LinuxIdMapping],
    id: u32,
) -> Option<u32> {
    if bundle.namespace(user).is_none() {
        return Some(id);
    }
    mappings.iter().find_map(|mapping| {
        let offset = id.checked_sub(mapping.container_id())?;
        (offset < mapping.size())
            .then(|| mapping.host_id().checked_add(offset))
            .flatten()
    })
}

fn c_path(path: &Path) -> Result<CString, PlanError> {
    CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_nul| PlanError::Nul("a path"))
}

fn c_text(what: &'static str, text: &str) -> Result<CString, PlanError> {
    CString::new(text).map_err(|_nul| PlanError::Nul(what))
}
