//! The order of the steps, and why it is so.
//!
//! ```text
//!  session, keyring, standard streams
//!  wait for the parent     id mappings, and what is shown through them, are its business
//!  attach the root         as the host's root: its folder may be closed to others
//!  become root inside      from here on files belong to the mapped ids
//!  cgroup namespace        before /sys/fs/cgroup shows it
//!  mounts, sysctls         sysctls while the host's procfs still permits another
//!  terminal, masks         masks hide the result of everything before
//!  pivot_root              the host's tree is gone
//!  seccomp notifier        while the parent is there to take its listener
//!  ── ready, wait for start ──
//!  working folder          before capabilities to reach it are dropped
//!  close on exec           before a filter that might not allow it
//!  identity, death signal  in this order: a change of user clears the signal
//!  no_new_privs, seccomp   in this order: the former permits the latter
//!  execve
//! ```

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Hook, LinuxNamespaceType, LinuxNetDevice, LinuxSeccomp, Process, Spec};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use serde::{Deserialize, Serialize};

use super::propagation::RootPropagation;
use super::target::{Kind, Target};
use super::tree::{TreeParts, tree};
use super::{Capabilities, Late, Plan, PlanError, Program, Step};
use crate::cgroup::Cgroup;
use crate::container::Stdio;
use crate::init::{self, Speaker};
use crate::mountinfo;
use crate::net_devices::NetDevice;
use crate::own_file;
use crate::rootless;
use crate::seccomp;
use crate::spec::process::{labels, memory_policy, personality};
use crate::spec::{Bundle, SpecError, inside_name};
use crate::sys::mount::Attributes;

/// What an init's plan is made from.
#[derive(Debug)]
pub(crate) struct InitParts<'a> {
    /// The bundle.
    pub(crate) bundle: &'a Bundle,
    /// Its cgroup.
    pub(crate) cgroup: &'a Cgroup,
    /// Kill the payload when its parent dies.
    pub(crate) die_with_parent: bool,
    /// Whoever starts it will not hear what fails then.
    pub(crate) started_by_others: bool,
    /// How many descriptors from 3 on the program gets.
    pub(crate) preserved: u32,
    /// How it differs from the usual.
    pub(crate) switches: Switches,
    /// What an init of ours speaks by, where there shall be one.
    pub(crate) speaker: Option<Speaker>,
}

/// What a caller may want of a container in another way than usual.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Switches {
    /// Do not use `pivot_root(2)`, for a host whose root is in a ramdisk. The
    /// host's mounts stay below the container's root then, and are kept from it
    /// by `chroot(2)` only.
    pub no_pivot: bool,
    /// Do not make a session keyring: processes keep that of the caller.
    pub no_new_keyring: bool,
}

/// The plan of a container's first process.
pub(crate) fn init_plan(parts: InitParts<'_>, stdio: Stdio) -> Result<Plan, PlanError> {
    let spec = parts.bundle.spec();
    let process = spec
        .process()
        .as_ref()
        .ok_or(SpecError::Missing("process"))?;
    let new = |kind| parts.bundle.namespace(kind) == Some(None);
    let program = match &parts.speaker {
        Some(speaker) => own_init(process, speaker)?,
        None => program(process)?,
    };
    let at = root_folder(parts.bundle)?;
    let propagation = RootPropagation::new(parts.bundle)?;
    let tree = tree(&TreeParts {
        bundle: parts.bundle,
        at: &at,
        cgroup: parts.cgroup,
        propagation,
    })?;
    let mut steps = first_steps(parts.switches);
    let streams = stream_step(stdio);
    let terminal = streams.is_none();
    steps.extend(streams);
    steps.push(Step::Propagation(propagation.before_root()));
    steps.push(Step::AwaitParent);
    steps.push(Step::AttachRoot {
        mount: tree.root,
        at: c_path(&at)?,
    });
    steps.extend(become_root_step(parts.bundle));
    if new(LinuxNamespaceType::Network) {
        steps.push(Step::LoopbackUp);
    }
    if new(LinuxNamespaceType::Cgroup) {
        steps.push(Step::NewCgroupNamespace);
    }
    steps.extend(name_steps(spec)?);
    steps.extend(tree.steps);
    steps.extend(sysctl_steps(spec)?);
    steps.extend(labels(process)?.into_iter().map(Step::Label));
    if terminal {
        let console = Target::new(Path::new("/dev/console"), Kind::File)?;
        steps.push(Step::Terminal {
            owner: Uid::from_raw(process.user().uid()),
            console,
        });
    }
    steps.push(Step::MakeFolder(Target::new(process.cwd(), Kind::Folder)?));
    steps.extend(protection_steps(parts.bundle)?);
    if parts.bundle.has_create_hooks() {
        steps.push(Step::AwaitHooks);
    }
    steps.push(if parts.switches.no_pivot {
        Step::MoveRoot {
            hide: hidden_without_pivot()?,
        }
    } else {
        Step::PivotRoot
    });
    steps.extend(read_only_root(spec).map(Step::RootAttributes));
    steps.extend(propagation.of_root().map(Step::RootAttributes));
    if parts.started_by_others {
        steps.push(Step::FindProgram {
            name: program.name(),
        });
    }
    steps.extend(notifier_step(parts.bundle)?);
    steps.push(Step::AwaitStart);
    steps.extend(last_steps(process, parts.bundle, parts.die_with_parent)?);
    Ok(Plan {
        steps,
        program,
        preserved: parts.preserved,
        speaker: parts.speaker,
        late: Late {
            devices: net_devices(parts.bundle),
            ..tree.late
        },
    })
}

/// What the plan of a further process is made from.
#[derive(Debug)]
pub(crate) struct ExecParts<'a> {
    /// The process.
    pub(crate) process: &'a Process,
    /// The bundle of its container.
    pub(crate) bundle: &'a Bundle,
    /// Kill it when its parent dies.
    pub(crate) die_with_parent: bool,
    /// How many descriptors from 3 on the program gets.
    pub(crate) preserved: u32,
    /// How it differs from the usual.
    pub(crate) switches: Switches,
}

/// The plan of a further process in a running container: its namespaces, root
/// and mounts are there already.
pub(crate) fn exec_plan(
    parts: &ExecParts<'_>,
    cgroup_namespace: Option<OwnedFd>,
    stdio: Stdio,
) -> Result<Plan, PlanError> {
    let ExecParts {
        process, bundle, ..
    } = *parts;
    let mut steps = first_steps(parts.switches);
    steps.push(Step::AwaitParent);
    steps.extend(cgroup_namespace.map(Step::JoinCgroupNamespace));
    // Before the terminal is made: it belongs to whoever opens it, and the
    // host's root, whom nobody inside stands for, could not give it away.
    steps.extend(become_root_step(bundle));
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
    steps.extend(notifier_step(bundle)?);
    steps.extend(labels(process)?.into_iter().map(Step::Label));
    steps.push(Step::AwaitStart);
    steps.extend(last_steps(process, bundle, parts.die_with_parent)?);
    Ok(Plan {
        steps,
        program: program(process)?,
        preserved: parts.preserved,
        speaker: None,
        late: Late::default(),
    })
}

/// The plan of a hook that runs in the container's namespaces, as its root.
pub(crate) fn hook_plan(hook: &Hook, bundle: &Bundle, stdio: Stdio) -> Result<Plan, PlanError> {
    let mut steps = first_steps(Switches::default());
    if let Stdio::Fds {
        stdin,
        stdout,
        stderr,
    } = stdio
    {
        steps.push(Step::Stdio([stdin, stdout, stderr]));
    }
    steps.push(Step::AwaitParent);
    steps.extend(become_root_step(bundle));
    steps.extend([Step::AwaitStart, Step::CloseOnExec]);
    let name = hook.path().display().to_string();
    let args = hook.args().clone().filter(|args| !args.is_empty());
    let env = hook.env().clone().unwrap_or_default();
    Ok(Plan {
        steps,
        program: Program::at(&name, &args.unwrap_or_else(|| vec![name.clone()]), &env)?,
        preserved: 0,
        speaker: None,
        late: Late::default(),
    })
}

fn net_devices(bundle: &Bundle) -> Vec<NetDevice> {
    let linux = bundle.spec().linux().as_ref();
    let devices = linux.and_then(|linux| linux.net_devices().as_ref());
    let device = |(host, device): (&String, &LinuxNetDevice)| NetDevice {
        host: host.clone(),
        inside: inside_name(host, device).to_owned(),
    };
    devices.into_iter().flatten().map(device).collect()
}

/// In a user namespace: whoever is root in there sets the rest up.
fn become_root_step(bundle: &Bundle) -> Option<Step> {
    bundle.namespace(LinuxNamespaceType::User)?;
    let keep_groups = rootless::keeps_groups();
    Some(Step::BecomeRoot { keep_groups })
}

/// The step for standard streams that are not a terminal.
fn stream_step(stdio: Stdio) -> Option<Step> {
    match stdio {
        Stdio::Terminal => None,
        Stdio::Fds {
            stdin,
            stdout,
            stderr,
        } => Some(Step::Stdio([stdin, stdout, stderr])),
    }
}

pub(super) fn first_steps(switches: Switches) -> Vec<Step> {
    let mut steps = vec![Step::ResetSignals, Step::NewSession];
    if !switches.no_new_keyring {
        steps.push(Step::NewKeyring);
    }
    steps
}

/// Where the host has procfs and sysfs. Below a container's root they would
/// permit it to mount its own without the masks.
fn hidden_without_pivot() -> Result<Vec<CString>, PlanError> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo");
    let mounts = mounts.map_err(|error| PlanError::Prepare {
        what: "read",
        subject: "/proc/self/mountinfo".to_owned(),
        source: Errno::from_io_error(&error).unwrap_or(Errno::INVAL),
    })?;
    let kernels = |line: &&str| {
        let kind = line.split_once(" - ").map(|(_, rest)| rest);
        kind.is_some_and(|kind| kind.starts_with("proc ") || kind.starts_with("sysfs "))
    };
    let paths = mounts.lines().filter(kernels);
    let paths = paths.filter_map(|line| line.split(' ').nth(4));
    paths
        .map(|path| {
            CString::new(mountinfo::path(path).into_os_string().into_vec())
                .map_err(|_nul| PlanError::Nul("a mount"))
        })
        .collect()
}

/// From "started" to execve.
fn last_steps(
    process: &Process,
    bundle: &Bundle,
    die_with_parent: bool,
) -> Result<Vec<Step>, PlanError> {
    let user = process.user();
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    let groups = if rootless::keeps_groups() {
        // P11: what cannot be given must not be left out either.
        if !groups.is_empty() {
            return Err(SpecError::Invalid {
                property: "process.user.additionalGids",
                value: format!("{groups:?}"),
                expected: "none: in a user namespace with but one's own gid groups can't be set",
            }
            .into());
        }
        None
    } else {
        Some(groups.iter().map(|&gid| Gid::from_raw(gid)).collect())
    };
    let capabilities = Capabilities::from_spec(process.capabilities().as_ref());
    if bundle.namespace(LinuxNamespaceType::User).is_none() {
        // P18: found out after the start, there would be nobody to tell.
        let own = rustix::thread::capabilities(None);
        let own = own.map_err(|source| PlanError::Prepare {
            what: "read",
            subject: "our own capabilities".to_owned(),
            source,
        })?;
        if let Some(missing) = capabilities.beyond(own.permitted) {
            return Err(SpecError::Invalid {
                property: "process.capabilities",
                value: missing.to_owned(),
                expected: "capabilities that we have ourselves, or a new user namespace",
            }
            .into());
        }
    }
    let identity = Step::Identity {
        uid: Uid::from_raw(user.uid()),
        gid: Gid::from_raw(user.gid()),
        groups,
        capabilities,
    };
    let mut steps = vec![
        Step::Umask(user.umask().unwrap_or(0o022)),
        Step::WorkingDirectory(c_path(process.cwd())?),
        Step::CloseOnExec,
    ];
    if let Some(linux) = bundle.spec().linux() {
        steps.extend(memory_policy(linux)?.map(Step::MemoryPolicy));
        steps.extend(personality(linux)?.map(Step::Personality));
    }
    let filter = seccomp_profile(bundle).map(seccomp_step).transpose()?;
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

pub(super) fn read_only_root(spec: &Spec) -> Option<Attributes> {
    let asked = spec.root().as_ref()?.readonly() == Some(true);
    asked.then(|| Attributes {
        set: libc::MOUNT_ATTR_RDONLY,
        ..Attributes::default()
    })
}

fn name_steps(spec: &Spec) -> Result<Vec<Step>, PlanError> {
    let name = |what, name: &Option<String>| {
        let name = name.as_ref().filter(|name| !name.is_empty());
        name.map(|name| c_text(what, name)).transpose()
    };
    let host = name("hostname", spec.hostname())?.map(Step::HostName);
    let domain = name("domainname", spec.domainname())?.map(Step::DomainName);
    Ok(host.into_iter().chain(domain).collect())
}

fn sysctl_steps(spec: &Spec) -> Result<Vec<Step>, PlanError> {
    let sysctls = spec.linux().iter().flat_map(|linux| linux.sysctl());
    let step = |(key, value): (&String, &String)| {
        Ok(Step::Sysctl {
            path: c_text("linux.sysctl", &key.replace('.', "/"))?,
            value: value.clone().into_bytes(),
        })
    };
    sysctls.flatten().map(step).collect()
}

fn seccomp_profile(bundle: &Bundle) -> Option<&LinuxSeccomp> {
    bundle.spec().linux().as_ref()?.seccomp().as_ref()
}

fn seccomp_step(profile: &LinuxSeccomp) -> Result<Step, PlanError> {
    Ok(Step::Seccomp(seccomp::compile(profile)?))
}

/// Only where an agent is to be notified. `create` does not stay until the start, so
/// it is loaded before; what it notifies of among the steps after it, the agent sees.
fn notifier_step(bundle: &Bundle) -> Result<Option<Step>, PlanError> {
    let notifier = seccomp_profile(bundle).map(seccomp::compile_notifier);
    Ok(notifier.transpose()?.flatten().map(Step::Notifier))
}

fn program(process: &Process) -> Result<Program, PlanError> {
    let args = process.args().as_deref().unwrap_or_default();
    Program::search(args, process.env().as_deref().unwrap_or_default())
}

/// P5: our own program, from the read-only copy of its mount that we run from ourselves.
fn own_init(process: &Process, speaker: &Speaker) -> Result<Program, PlanError> {
    let file = own_file::current().map_err(|source| PlanError::Prepare {
        what: "open",
        subject: "our own program".to_owned(),
        source,
    })?;
    let command = process.args().as_deref().unwrap_or_default();
    let arguments = init::arguments(speaker, command);
    Program::open(
        file,
        &arguments,
        process.env().as_deref().unwrap_or_default(),
    )
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

/// The folder for the root. Links on the way to it are the host's own; none is
/// followed later.
pub(super) fn root_folder(bundle: &Bundle) -> Result<PathBuf, PlanError> {
    let folder = bundle.rootfs();
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL);
    folder.canonicalize().map_err(|error| PlanError::Prepare {
        what: "find the root's folder",
        subject: folder.display().to_string(),
        source: errno(error),
    })
}

fn c_path(path: &Path) -> Result<CString, PlanError> {
    CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_nul| PlanError::Nul("a path"))
}

fn c_text(what: &'static str, text: &str) -> Result<CString, PlanError> {
    CString::new(text).map_err(|_nul| PlanError::Nul(what))
}
