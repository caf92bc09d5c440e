//! `create`: from a bundle to a process that waits to be started.

use std::fs::File;
use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::{Failure, GONE};
use crate::cgroup;
use crate::container::{Container, Created, Parent, Stdio};
use crate::spec::Bundle;
use crate::state::{Record, StateDir, StateRoot};

/// Arguments of `create`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder with config.json
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// Where the first process' id is written
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Unix socket that the master of the terminal is sent to
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Name of the new container
    id: String,
}

/// Creates a container; whatever fails, nothing of it is left.
pub(super) fn create(states: &StateRoot, args: &Args) -> Result<(), Failure> {
    let bundle = Bundle::load(&args.bundle)?;
    let bundle = bundle.default_cgroups_path(&format!("/dyno-runtime/{}", args.id));
    let terminal = bundle
        .spec()
        .process()
        .as_ref()
        .and_then(|process| process.terminal());
    if terminal == Some(true) && args.console_socket.is_none() {
        return Err("process.terminal is true: give --console-socket".into());
    }
    let state = states.create(&args.id)?;
    match make(&state, bundle, terminal == Some(true), args) {
        Ok(()) => Ok(()),
        Err(error) => {
            state.remove()?;
            Err(error)
        }
    }
}

fn make(state: &StateDir, bundle: Bundle, terminal: bool, args: &Args) -> Result<(), Failure> {
    let start = fifo(&state.start_fifo())?;
    let layout = cgroup::detect()?;
    let container = Container::new(bundle, &layout)?;
    let stdio = if terminal {
        Stdio::Terminal
    } else {
        inherited()?
    };
    let made = container
        .create(stdio, Parent::Detached { start })
        .map_err(Failure::from)
        .and_then(|created| hand_over(state, &container, created, args));
    if made.is_err() {
        container.cgroup().kill()?;
        container.cgroup().remove(GONE)?;
    }
    made
}

fn hand_over(
    state: &StateDir,
    container: &Container,
    created: Created,
    args: &Args,
) -> Result<(), Failure> {
    if let (Some(socket), Some(master)) = (&args.console_socket, &created.terminal) {
        send_terminal(socket, master.as_fd())?;
    }
    let record = container.cgroup().record().clone();
    state.write(&Record::new(
        &args.id,
        container.bundle(),
        created.pid,
        record,
    )?)?;
    if let Some(path) = &args.pid_file {
        write!(File::create(path)?, "{}", created.pid.as_raw_nonzero())?;
    }
    drop(created.detach());
    Ok(())
}

/// Open for reading and writing: without a writer a read would not block.
fn fifo(path: &Path) -> Result<OwnedFd, Failure> {
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, path, rustix::fs::FileType::Fifo, mode, 0)?;
    Ok(openat(
        CWD,
        path,
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

fn inherited() -> Result<Stdio, Failure> {
    let copy = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3);
    Ok(Stdio::Fds {
        stdin: copy(rustix::stdio::stdin())?,
        stdout: copy(rustix::stdio::stdout())?,
        stderr: copy(rustix::stdio::stderr())?,
    })
}

fn send_terminal(socket: &Path, master: BorrowedFd<'_>) -> Result<(), Failure> {
    let stream = UnixStream::connect(socket)?;
    let fds = [master];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    // The name that the OCI console socket protocol asks for is free text.
    sendmsg(
        &stream,
        &[IoSlice::new(b"/dev/ptmx")],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}
