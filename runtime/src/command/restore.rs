//! `restore`: a container whose processes come from CRIU's images. Its cgroup is made
//! first, as `create` makes it; CRIU runs in it, so that what it restores is born there.
//!
//! ```text
//!  restore ──▶ cgroup, a mount of the root (in a mount namespace of ours)
//!     └─exec─▶ restore-inside: enters the cgroup and a cgroup namespace
//!                 └─execve─▶ criu restore ──▶ the container
//! ```
//! Whatever fails, neither process nor cgroup nor state is left; the mount went with us.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use oci_spec::runtime::LinuxNamespaceType as Kind;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, FdFlags};
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};
use rustix::thread::{UnshareFlags, set_no_new_privs};

use super::checkpoint::{Common, fits};
use super::create::{Outlets, after};
use super::foreground::{Signals, attend};
use super::{Failure, GONE, lifecycle};
use crate::cgroup::{self, Cgroup};
use crate::container::{Container, Process};
use crate::criu::{self, Criu, Image, NETWORK, Restoration, Streams, lock};
use crate::intel_rdt;
use crate::spec::Bundle;
use crate::state::{Driver, Record, StateDir, StateError, StateRoot};
use crate::sys;

// Arguments of `restore`: runc's.
#[derive(Debug, clap::Args)]
pub(super) struct Restore {
    #[command(flatten)]
    common: Common,
    /// Folder with config.json
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    #[command(flatten)]
    outlets: Outlets,
    /// Return once the container runs
    #[arg(long, short)]
    detach: bool,
    /// Leave orphans to whoever else takes them, as is always done
    #[arg(long)]
    no_subreaper: bool,
    /// Refused
    #[arg(long, hide = true)]
    no_pivot: bool,
    /// Another profile of AppArmor or SELinux than it had: type:name
    #[arg(long, value_name = "PROFILE")]
    lsm_profile: Option<String>,
    /// Another SELinux label of its mounts than they had
    #[arg(long, value_name = "LABEL")]
    lsm_mount_context: Option<String>,
    /// Name of the container
    id: String,
}

// Arguments of the process between us and CRIU.
#[derive(Debug, clap::Args)]
pub(super) struct Inside {
    /// Record of the cgroup to enter
    #[arg(long)]
    cgroup: String,
    /// Whether to make a cgroup namespace there
    #[arg(long)]
    namespace: bool,
    /// Whether its processes gain no privileges any more
    #[arg(long)]
    no_new_privileges: bool,
    /// Record of its class of cache and memory bandwidth
    #[arg(long)]
    class: Option<String>,
    /// Network namespace that CRIU is handed
    #[arg(long)]
    network: Option<PathBuf>,
    /// A standard stream that is the container's alone: number:name
    #[arg(long, value_name = "STREAM")]
    apart: Vec<String>,
    /// CRIU and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<std::ffi::OsString>,
}

impl Restore {
    /// CRIU's words for the labels of security modules.
    fn labels(&self) -> Vec<&str> {
        let labels = [
            ("--lsm-profile", &self.lsm_profile),
            ("--lsm-mount-context", &self.lsm_mount_context),
        ];
        let given = labels
            .into_iter()
            .filter_map(|(word, label)| Some([word, label.as_deref()?]));
        given.flatten().collect()
    }
}

/// Brings a container back; the exit code of its program, unless it is left alone.
pub(super) fn restore(states: &StateRoot, args: &Restore, driver: Driver) -> Result<u8, Failure> {
    restored(states, args, driver).map_err(|error| {
        let error = super::words(error.as_ref());
        format!("cannot restore: {error}").into()
    })
}

fn restored(states: &StateRoot, args: &Restore, driver: Driver) -> Result<u8, Failure> {
    args.common.check()?;
    if args.no_pivot {
        return Err("not supported: --no-pivot: CRIU changes the root in its own way".into());
    }
    if args.outlets.preserve_fds != 0 || args.outlets.console_socket.is_some() {
        return Err("not supported: --preserve-fds and --console-socket".into());
    }
    let bundle = Bundle::load(&args.bundle)?;
    fits(&bundle)?;
    if args.common.auto_dedup && bundle.namespace(Kind::User).is_some() {
        let refused = "--auto-dedup with a user namespace: its root would write to the images";
        return Err(format!("not supported: {refused}").into());
    }
    let criu = Criu::ready()?;
    let image = Image::read(&args.common.image_path)?;
    let signals = match args.detach {
        true => None,
        false => Some(Signals::listen()?),
    };
    let state = states.create(&args.id)?;
    let record = Record::new(&args.id, &bundle).made_by(driver, Default::default());
    let (container, record) = match begin(&state, record, bundle) {
        Ok(begun) => begun,
        Err(error) => return Err(after(error, state.remove().map_err(Failure::from))),
    };
    let made = bring_back(&criu, &image, &container, args, &state)
        .and_then(|pid| settle(&state, record.clone(), pid, args));
    let (record, process) = match made {
        Ok(made) => made,
        Err(error) => {
            let cleared = lifecycle::end(container.cgroup(), &record, GONE);
            let removed = state.remove().map_err(Failure::from);
            return Err(after(error, cleared.and(removed)));
        }
    };
    let Some(signals) = signals else {
        return Ok(0);
    };
    // A lock covers an operation, not a container's life.
    drop(state);
    let code = attend(&process, None, &signals);
    match states.open(&record.id) {
        Ok(state) => lifecycle::remove(state, &record, Some(container.bundle()))?,
        // Somebody else has deleted it.
        Err(StateError::NotFound(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(code?)
}

/// Makes the cgroup, each thing on record before there can be a process in it.
fn begin(state: &StateDir, record: Record, bundle: Bundle) -> Result<(Container, Record), Failure> {
    File::create(state.config())?.write_all(bundle.text())?;
    state.write(&record)?;
    let mut container = Container::new_restricted_in(bundle, &record.place()?)?.named(&record.id);
    let record = record.with_cgroup(container.cgroup().record().clone());
    match classed(state, record, &mut container) {
        Ok(record) => Ok((container, record)),
        Err(error) => {
            let removed = container.cgroup().remove(GONE).map_err(Failure::from);
            Err(after(error, removed))
        }
    }
}

fn classed(state: &StateDir, record: Record, container: &mut Container) -> Result<Record, Failure> {
    let record = record.with_intel_rdt(container.plan_class()?);
    state.write(&record)?;
    container.make_class(record.intel_rdt.as_ref())?;
    Ok(record)
}

/// Has CRIU restore the processes; the first one's id.
fn bring_back(
    criu: &Criu,
    image: &Image,
    container: &Container,
    args: &Restore,
    state: &StateDir,
) -> Result<Pid, Failure> {
    let bundle = container.bundle();
    // P18: nobody stays here to watch.
    if container.cgroup().monitor_kills_on_oom() {
        return Err(
            "linux.resources asks for the whole group to be killed when it runs out \
                    of memory, which this host's cgroup v1 cannot do"
                .into(),
        );
    }
    let images = args.common.image_path.canonicalize()?;
    let pid_file = state.config().with_file_name("restored.pid");
    let mut restoration =
        Restoration::new(criu, image, container, &images, &pid_file, Streams::Shared)?;
    let log = args.common.say(&mut restoration.command, "restore.log")?;
    restoration.command.args(args.labels());
    Criu::run("restore", &mut restoration.command, log)?;
    if let (Some(table), Some(path)) = (&image.lock, bundle.namespace(Kind::Network).flatten()) {
        let network = File::open(path)?;
        lock::release(network.as_fd(), table)
            .map_err(|errno| format!("unlock the network, table inet {table}: {errno}"))?;
    }
    Ok(criu::written(&pid_file)?)
}

/// Puts the process on record and gives the caller what it wants of it.
fn settle(
    state: &StateDir,
    record: Record,
    pid: Pid,
    args: &Restore,
) -> Result<(Record, Process), Failure> {
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let record = record.with_init(pid)?;
    state.write(&record)?;
    args.outlets.serve(pid, pidfd.as_fd(), &mut None)?;
    let process = Process {
        pid,
        pidfd,
        terminal: None,
        listener: None,
    };
    Ok((record, process))
}

/// Enters the cgroup, and becomes CRIU. Returns only if that fails.
pub(super) fn inside(args: &Inside) -> Result<(), Failure> {
    let record: cgroup::Record = serde_json::from_str(&args.cgroup)?;
    let cgroup = Cgroup::open(record)?;
    if !cgroup.is_absent() {
        cgroup.add(getpid())?;
    }
    if let Some(class) = &args.class {
        let class: intel_rdt::Record = serde_json::from_str(class)?;
        class.admit(getpid())?;
    }
    if args.namespace {
        sys::process::unshare(UnshareFlags::NEWCGROUP)?;
    }
    // What CRIU does not save its processes inherit from it: they hold no keys of ours,
    // and gain no privileges.
    match sys::process::join_new_session_keyring() {
        Err(Errno::NOSYS) | Ok(()) => {}
        Err(errno) => return Err(errno.into()),
    }
    if args.no_new_privileges {
        set_no_new_privs(true)?;
    }
    let (program, words) = args.program.split_first().ok_or("no program")?;
    let mut command = Command::new(program);
    command.args(words);
    if !args.apart.is_empty() {
        command.args(criu::set_apart(&args.apart)?);
    }
    let network = args
        .network
        .as_ref()
        .map(|path| openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()))
        .transpose()?;
    if let Some(network) = &network {
        rustix::io::fcntl_setfd(network, FdFlags::empty())?;
        let number = network.as_raw_fd();
        command.args(["--inherit-fd", &format!("fd[{number}]:{NETWORK}")]);
    }
    Err(format!("execute criu: {}", command.exec()).into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        restore: Restore,
    }

    #[test]
    fn labels_are_given_to_criu_as_they_are() {
        let labels = |line: &str| {
            let words = ["restore"].into_iter().chain(line.split(' '));
            let line = Line::try_parse_from(words).unwrap();
            line.restore.labels().join(" ")
        };
        let both = "--lsm-profile selinux:a_u:b_r:c_t:s0 --lsm-mount-context d_u:e_r:f_t:s0";
        assert_eq!(labels(&format!("{both} x")), both);
        let one = "--lsm-profile apparmor:/usr/bin/x//y";
        assert_eq!(labels(&format!("{one} x")), one);
        assert_eq!(labels("x"), "");
    }
}
