//! `start`, `state`, `kill`, `delete`, `pause`, `resume`: each a process of its
//! own that knows only what is on disk.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxNamespaceType;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{Failure, GONE, warn, words};
use crate::cgroup::{self, Cgroup, Place};
use crate::container::{Container, hooks};
use crate::rootless;
use crate::signal;
use crate::spec::Bundle;
use crate::state::{Record, StateDir, StateError, StateRoot, Status};

/// How long a container may take to be held still.
const FREEZE: Duration = Duration::from_secs(10);

/// How often a group is looked at that somebody is leaving.
const LOOK: Duration = Duration::from_millis(2);

/// Writes the byte that a created container waits for.
pub(super) fn start(states: &StateRoot, id: &str) -> Result<(), Failure> {
    let state = states.open(id)?;
    let record = state.read()?;
    match record.status(&state)? {
        Status::Created => {}
        Status::Running => {
            return Err(format!("container {id:?} has been started already").into());
        }
        Status::Paused => return Err(format!("container {id:?} is paused").into()),
        Status::Stopped => return Err(format!("container {id:?} has stopped").into()),
    }
    let bundle = bundle(&state, &record)?;
    if bundle.has_start_hooks() {
        let init = Pid::from_raw(record.pid).ok_or("it has no first process")?;
        let container = Container::adopt(bundle, record.cgroup.clone(), record.intel_rdt.clone())?;
        let hooked = run_start_hooks(&container, &record, init);
        if let Err(error) = hooked {
            kill_all(container.cgroup(), &record)?;
            return Err(error);
        }
        send_start(&state)?;
        run_poststart(container.bundle(), &record);
        return Ok(());
    }
    send_start(&state)?;
    run_poststart(&bundle, &record);
    Ok(())
}

/// The bundle as it was when the container was created.
pub(super) fn bundle(state: &StateDir, record: &Record) -> Result<Bundle, Failure> {
    Ok(Bundle::load_from(&state.config(), &record.bundle)?)
}

fn send_start(state: &StateDir) -> Result<(), Failure> {
    let fifo = state.start_fifo();
    // Non-blocking: with no reader left this fails instead of waiting for one.
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&fifo)
        .and_then(|mut fifo| fifo.write_all(&[1]))
        .and_then(|()| std::fs::remove_file(&fifo))
        .map_err(|source| StateError::Io {
            what: "write",
            path: fifo,
            source,
        })?;
    Ok(())
}

/// The hooks between a created container and its program.
pub(super) fn run_start_hooks(
    container: &Container,
    record: &Record,
    init: Pid,
) -> Result<(), Failure> {
    let state = record.oci_state("created", record.pid).to_string();
    Ok(container.run_start_hooks(init, state.as_bytes())?)
}

/// The hooks after the program was executed. One that fails changes nothing
/// (OCI runtime.md, "Lifecycle", step 10), and is told about.
pub(super) fn run_poststart(bundle: &Bundle, record: &Record) {
    let list = bundle.hooks(|hooks| hooks.poststart());
    if list.is_empty() {
        return;
    }
    let state = record.oci_state("running", record.pid).to_string();
    if let Err(error) = hooks::run("poststart", list, state.as_bytes()) {
        warn(&words(&error));
    }
}

/// The hooks after a container was deleted; as [`run_poststart`].
pub(super) fn run_poststop(bundle: &Bundle, record: &Record) {
    let list = bundle.hooks(|hooks| hooks.poststop());
    if list.is_empty() {
        return;
    }
    let state = record.oci_state("stopped", 0).to_string();
    if let Err(error) = hooks::run("poststop", list, state.as_bytes()) {
        warn(&words(&error));
    }
}

/// Prints the state as runc does: OCI runtime.md, "State", and then some.
pub(super) fn state(states: &StateRoot, id: &str) -> Result<(), Failure> {
    let dir = states.open(id)?;
    let state = super::list::described(&dir)?;
    let text = serde_json::to_string_pretty(&state)?;
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

/// Sends a signal to the first process, or to all.
pub(super) fn kill(states: &StateRoot, id: &str, signal: &str, all: bool) -> Result<(), Failure> {
    let signal = signal::parse(signal)?;
    let (dir, record) = opened(states, id)?;
    if all {
        if record.cgroup.absent {
            return kill_members(&dir, &record, signal);
        }
        let cgroup = Cgroup::open(record.cgroup)?;
        return match signal {
            Signal::KILL => Ok(cgroup.kill()?),
            _ => Ok(cgroup.signal(signal)?),
        };
    }
    if let Some(init) = record.init()?
        && sent(&init, signal)?
    {
        return Ok(());
    }
    // The words that callers of runc look for.
    Err(format!("container not running: {id:?} has stopped").into())
}

/// Whether there was a process to signal: it may end at any moment.
fn sent(process: &OwnedFd, signal: Signal) -> Result<bool, Failure> {
    match pidfd_send_signal(process, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Holds every process of a running container still.
pub(super) fn pause(states: &StateRoot, id: &str) -> Result<(), Failure> {
    let (state, record) = opened(states, id)?;
    match record.status(&state)? {
        Status::Running | Status::Created => {
            let cgroup = Cgroup::open(record.cgroup)?;
            if let Err(error) = cgroup.freeze(FREEZE) {
                if !cgroup.is_absent() {
                    cgroup.thaw()?;
                }
                return Err(error.into());
            }
            Ok(())
        }
        status => Err(format!("container {id:?} is {}, not running", status.as_str()).into()),
    }
}

/// Lets a paused container run on.
pub(super) fn resume(states: &StateRoot, id: &str) -> Result<(), Failure> {
    let (state, record) = opened(states, id)?;
    match record.status(&state)? {
        Status::Paused => Ok(Cgroup::open(record.cgroup)?.thaw()?),
        status => Err(format!("container {id:?} is {}, not paused", status.as_str()).into()),
    }
}

/// A container that exists, with its record.
pub(super) fn opened(states: &StateRoot, id: &str) -> Result<(StateDir, Record), Failure> {
    let state = states.open(id)?;
    let record = state.read()?;
    Ok((state, record))
}

/// Removes a stopped container, or with `force` any.
pub(super) fn delete(states: &StateRoot, id: &str, force: bool) -> Result<(), Failure> {
    let state = match states.open(id) {
        Err(StateError::NotFound(_)) if force => return Ok(()),
        opened => opened?,
    };
    let record = match state.read() {
        // Of a `create` that was killed before it had made anything else.
        Err(StateError::Io { .. } | StateError::Parse { .. }) if force => {
            return Ok(state.remove()?);
        }
        read => read?,
    };
    if let Some(init) = record.init()? {
        let status = record.status(&state)?;
        // As runc: what was never started may go without being killed first.
        if !force && status != Status::Created {
            let status = status.as_str();
            return Err(format!(
                "cannot delete container {id:?} that is not stopped: {status}; \
                 kill it, or delete --force"
            )
            .into());
        }
        sent(&init, Signal::KILL)?;
    }
    // A configuration that is damaged keeps nobody from deleting.
    let bundle = bundle(&state, &record).ok();
    remove(state, &record, bundle.as_ref())
}

/// Removes all there is of a container whose first process is dead or dying.
pub(super) fn remove(
    state: StateDir,
    record: &Record,
    bundle: Option<&Bundle>,
) -> Result<(), Failure> {
    let cgroup = Cgroup::open(record.cgroup.clone())?;
    if record.cgroup == cgroup::Record::default() {
        // A `create` was killed while it made the group, or while a first process in
        // it waited to go on, which ends with its maker.
        clear(&record.place()?, GONE)?;
    } else if cgroup.remove_empty()? {
        remove_class(record)?;
    } else {
        kill_all(&cgroup, record)?;
        if cgroup.is_absent() && record.pid == 0 {
            kill_unrecorded(&state)?;
        }
        if !cgroup.is_absent() {
            cgroup.wait_empty(GONE)?;
        }
        end(&cgroup, record, GONE)?;
    }
    state.remove()?;
    if let Some(bundle) = bundle {
        run_poststop(bundle, record);
    }
    Ok(())
}

/// Removes a group in which at most somebody is on his way out.
fn clear(place: &Place, timeout: Duration) -> cgroup::Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        match place.clear() {
            Err(cgroup::Error::File { source, .. })
                if source.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                std::thread::sleep(LOOK);
            }
            cleared => return cleared,
        }
    }
}

/// Kills all of a container's processes and removes its cgroup and its class.
pub(super) fn end(cgroup: &Cgroup, record: &Record, timeout: Duration) -> Result<(), Failure> {
    end_processes(cgroup, record, timeout)?;
    remove_class(record)
}

fn remove_class(record: &Record) -> Result<(), Failure> {
    match &record.intel_rdt {
        Some(class) => Ok(class.remove()?),
        None => Ok(()),
    }
}

/// Where there is no cgroup the first process takes those of its pid namespace with it.
fn end_processes(cgroup: &Cgroup, record: &Record, timeout: Duration) -> Result<(), Failure> {
    kill_all(cgroup, record)?;
    if !cgroup.is_absent() {
        return Ok(cgroup.remove(timeout)?);
    }
    let Some(init) = record.init()? else {
        return Ok(());
    };
    match ends_within(&init, timeout)? {
        true => Ok(()),
        false => Err(format!(
            "container {:?} does not end, though it was killed",
            record.id
        )
        .into()),
    }
}

fn kill_all(cgroup: &Cgroup, record: &Record) -> Result<(), Failure> {
    cgroup.kill()?;
    if let Some(init) = record.init()?.filter(|_| cgroup.is_absent()) {
        sent(&init, Signal::KILL)?;
    }
    Ok(())
}

/// Kills a first process that waits to be started and is not on record, as `create`
/// was killed just before. No group names it: it is known by the FIFO that it waits for.
fn kill_unrecorded(state: &StateDir) -> Result<(), Failure> {
    let fifo = state.start_fifo().canonicalize();
    let Ok(fifo) = fifo else {
        return Ok(());
    };
    for (pid, process) in processes()? {
        // Of strangers nothing is shown.
        let open = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()));
        let mut open = open.into_iter().flatten().flatten();
        if open.any(|fd| std::fs::read_link(fd.path()).is_ok_and(|path| path == fifo)) {
            sent(&process, Signal::KILL)?;
            ends_within(&process, GONE)?;
        }
    }
    Ok(())
}

/// All processes, each held by a descriptor that was opened before it is looked at,
/// so that a later one of its number is not taken for it.
fn processes() -> Result<impl Iterator<Item = (Pid, OwnedFd)>, Failure> {
    // Who has ended meanwhile has no number any more.
    Ok(std::fs::read_dir("/proc")?.filter_map(|entry| {
        let pid = Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?)?;
        Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?))
    }))
}

/// A pidfd is readable once all threads have ended; of the first process of a pid
/// namespace, once all others there have.
fn ends_within(process: &OwnedFd, timeout: Duration) -> Result<bool, Failure> {
    let timeout = Timespec::try_from(timeout)?;
    let polled = rustix::io::retry_on_intr(|| {
        poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout))
    });
    Ok(polled? > 0)
}

/// The ids of the processes of a container without a cgroup.
pub(super) fn members(state: &StateDir, record: &Record) -> Result<Vec<Pid>, Failure> {
    let members = members_held(state, record)?;
    Ok(members.into_iter().map(|(pid, _)| pid).collect())
}

/// The processes of a container without a cgroup: those of its pid namespace, where
/// it has one of its own.
fn members_held(state: &StateDir, record: &Record) -> Result<Vec<(Pid, OwnedFd)>, Failure> {
    let own = bundle(state, record)?.namespace(LinuxNamespaceType::Pid) == Some(None);
    if !own {
        return Err(format!(
            "container {:?} has neither a cgroup nor a pid namespace of its own: \
             nobody knows which processes are its",
            record.id
        )
        .into());
    }
    let Some(init) = record.init()? else {
        return Ok(Vec::new());
    };
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let of_init = namespace(record.pid);
    // A number may be another's at once, though a descriptor is held: whose namespace
    // that was is known only while the first process runs.
    if ends_within(&init, Duration::ZERO)? {
        return Ok(Vec::new());
    }
    let of_init = of_init.ok_or("look at the container's pid namespace: it is not yours")?;
    let members = processes()?
        .filter(|(pid, _)| namespace(pid.as_raw_nonzero().get()).as_ref() == Some(&of_init));
    Ok(members.collect())
}

fn kill_members(state: &StateDir, record: &Record, signal: Signal) -> Result<(), Failure> {
    if signal == Signal::KILL {
        // With the first all go, and none is born meanwhile.
        return kill_all(&Cgroup::open(record.cgroup.clone())?, record);
    }
    for (pid, process) in members_held(state, record)? {
        match pidfd_send_signal(process, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => {
                return Err(format!("signal process {}: {errno}", pid.as_raw_nonzero()).into());
            }
        }
    }
    Ok(())
}

/// Whether something of the container is done between its creation and its program.
pub(super) fn has_start_hooks(states: &StateRoot, id: &str) -> Result<bool, Failure> {
    let (state, record) = opened(states, id)?;
    Ok(bundle(&state, &record)?.has_start_hooks())
}

/// Makes an ordinary user root of the namespace that his container was made in; not
/// where that has stopped, as is told later.
pub(super) fn become_root_beside(
    states: &StateRoot,
    id: &str,
) -> Result<Option<rootless::Ids>, Failure> {
    let (_state, record) = opened(states, id)?;
    if record.init()?.is_none() {
        return Ok(None);
    }
    // If the number is another's by now, the kernel still lets us enter what is ours.
    let init = Pid::from_raw(record.pid).ok_or("the container has no first process")?;
    Ok(Some(rootless::enter_parent_of(init)?))
}
