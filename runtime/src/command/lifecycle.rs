//! `start`, `state`, `kill`, `delete`: each a process of its own that knows
//! only what is on disk.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use rustix::process::{Signal, pidfd_send_signal};
use serde_json::json;

use super::{Failure, GONE};
use crate::cgroup::{self, Cgroup};
use crate::signal;
use crate::state::{StateError, StateRoot, Status};

/// Writes the byte that a created container waits for.
pub(super) fn start(states: &StateRoot, id: &str) -> Result<(), Failure> {
    let state = states.open(id)?;
    match state.read()?.status(&state)? {
        Status::Created => {}
        Status::Running => return Err(format!("container {id:?} has been started already").into()),
        Status::Stopped => return Err(format!("container {id:?} has stopped").into()),
    }
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

/// Prints the state as OCI runtime.md, "State", has it.
pub(super) fn state(states: &StateRoot, id: &str) -> Result<(), Failure> {
    let dir = states.open(id)?;
    let record = dir.read()?;
    let status = record.status(&dir)?;
    let state = json!({
        "ociVersion": "1.2.0",
        "id": record.id,
        "status": status,
        "pid": if status == Status::Stopped { 0 } else { record.pid },
        "bundle": record.bundle,
        "annotations": record.annotations,
    });
    let text = serde_json::to_string_pretty(&state)?;
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

/// Sends a signal to the first process.
pub(super) fn kill(states: &StateRoot, id: &str, signal: &str) -> Result<(), Failure> {
    let signal = signal::parse(signal)?;
    let state = states.open(id)?;
    match state.read()?.init()? {
        Some(init) => Ok(pidfd_send_signal(init, signal)?),
        None => Err(format!("container {id:?} has stopped").into()),
    }
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
        if !force {
            return Err(
                format!("container {id:?} has not stopped: kill it, or delete --force").into(),
            );
        }
        pidfd_send_signal(init, Signal::KILL)?;
    }
    if record.cgroup == cgroup::Record::default() {
        // A `create` was killed while it made the folders, all of them empty.
        let path = record.cgroups_path.to_string_lossy();
        cgroup::prune(&cgroup::detect()?, &path)?;
    } else {
        let cgroup = Cgroup::open(record.cgroup)?;
        cgroup.kill()?;
        cgroup.wait_empty(GONE)?;
        cgroup.remove(GONE)?;
    }
    Ok(state.remove()?)
}
