//! `start`, `state`, `kill`, `delete`, `pause`, `resume`: each a process of its
//! own that knows only what is on disk.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use rustix::process::{Pid, Signal, pidfd_send_signal};

use super::{Failure, GONE, warn, words};
use crate::cgroup::{self, Cgroup};
use crate::container::{Container, hooks};
use crate::signal;
use crate::spec::Bundle;
use crate::state::{Record, StateDir, StateError, StateRoot, Status};

/// How long a container may take to be held still.
const FREEZE: Duration = Duration::from_secs(10);

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
        let container = Container::adopt(bundle, record.cgroup.clone())?;
        let hooked = run_start_hooks(&container, &record, init);
        if let Err(error) = hooked {
            container.cgroup().kill()?;
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
    let record = states.open(id)?.read()?;
    if all {
        let cgroup = Cgroup::open(record.cgroup)?;
        return match signal {
            Signal::KILL => Ok(cgroup.kill()?),
            _ => Ok(cgroup.signal(signal)?),
        };
    }
    match record.init()? {
        Some(init) => Ok(pidfd_send_signal(init, signal)?),
        // The words that callers of runc look for.
        None => Err(format!("container not running: {id:?} has stopped").into()),
    }
}

/// Holds every process of a running container still.
pub(super) fn pause(states: &StateRoot, id: &str) -> Result<(), Failure> {
    let (state, record) = opened(states, id)?;
    match record.status(&state)? {
        Status::Running | Status::Created => {
            let cgroup = Cgroup::open(record.cgroup)?;
            if let Err(error) = cgroup.freeze(FREEZE) {
                cgroup.thaw()?;
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
        pidfd_send_signal(init, Signal::KILL)?;
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
    if record.cgroup == cgroup::Record::default() {
        // A `create` was killed while it made the group, in which nobody was.
        record.place()?.clear()?;
    } else {
        let cgroup = Cgroup::open(record.cgroup.clone())?;
        cgroup.kill()?;
        cgroup.wait_empty(GONE)?;
        cgroup.remove(GONE)?;
    }
    state.remove()?;
    if let Some(bundle) = bundle {
        run_poststop(bundle, record);
    }
    Ok(())
}
