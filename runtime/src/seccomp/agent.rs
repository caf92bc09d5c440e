//! The agent that decides on calls for a container: `linux.seccomp.listenerPath`.
//!
//! It listens on a Unix socket, and gets over one connection for each process the
//! listener of that process' filter and the container process state (OCI
//! config-linux.md, "The Container Process State").

use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use oci_spec::runtime::{ContainerProcessState, ContainerState, SECCOMP_FD_NAME, State};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, sendmsg, socket_with,
};
use rustix::process::Pid;

use super::notifies;
use crate::spec::Bundle;

/// How long an agent may leave us waiting (P15).
const PATIENCE: Duration = Duration::from_secs(10);

/// The listener could not be given to the agent.
#[derive(Debug, thiserror::Error)]
#[error("linux.seccomp.listenerPath: could not send the listener to {path}")]
pub struct AgentError {
    /// The agent's socket.
    path: PathBuf,
    /// What the kernel said.
    source: io::Error,
}

/// An agent, and what it is told about a process.
#[derive(Debug)]
pub(crate) struct Agent {
    path: PathBuf,
    state: ContainerProcessState,
}

impl Agent {
    /// The agent for the processes of a container, where its profile notifies one.
    /// `init` is the first process, if there is one already.
    pub(crate) fn of(bundle: &Bundle, id: &str, init: Option<Pid>) -> Option<Self> {
        let spec = bundle.spec();
        let profile = spec.linux().as_ref()?.seccomp().as_ref()?;
        let path = profile.listener_path().clone()?;
        if !notifies(profile) {
            return None;
        }
        let mut container = State::default();
        container
            .set_version(spec.version().clone())
            .set_id(id.to_owned())
            .set_status(match init {
                Some(_) => ContainerState::Running,
                None => ContainerState::Creating,
            })
            .set_pid(init.map(number))
            .set_bundle(bundle.dir().to_owned())
            .set_annotations(spec.annotations().clone());
        let mut state = ContainerProcessState::default();
        state
            .set_version(spec.version().clone())
            .set_fds(vec![SECCOMP_FD_NAME.to_owned()])
            .set_metadata(profile.listener_metadata().clone())
            .set_state(container);
        Some(Self { path, state })
    }

    /// Gives it the listener of a process.
    ///
    /// # Errors
    /// [`AgentError`], also when it does not take it in time.
    pub(crate) fn send(&self, process: Pid, listener: BorrowedFd<'_>) -> Result<(), AgentError> {
        self.try_send(process, listener)
            .map_err(|source| AgentError {
                path: self.path.clone(),
                source,
            })
    }

    fn try_send(&self, process: Pid, listener: BorrowedFd<'_>) -> io::Result<()> {
        let mut state = self.state.clone();
        state.set_pid(number(process));
        if state.state().pid().is_none() {
            state.state_mut().set_pid(Some(number(process)));
        }
        let text = serde_json::to_vec(&state)?;
        let socket = self.connect()?;
        let fds = [listener];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        let sent = sendmsg(
            &socket,
            &[IoSlice::new(&text)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?;
        // The descriptor goes with the first part only.
        UnixStream::from(socket).write_all(text.get(sent..).unwrap_or_default())
    }

    fn connect(&self) -> io::Result<OwnedFd> {
        let address = SocketAddrUnix::new(&self.path)?;
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        // It bounds connect(2), too.
        set_socket_timeout(socket.as_fd(), Timeout::Send, Some(PATIENCE))?;
        connect(&socket, &address)?;
        Ok(socket)
    }
}

fn number(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}
