//! `create`: from a bundle to a process that waits to be started.

use std::fs::File;
use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::{Failure, GONE, words};
use crate::cgroup::{self, Cgroup};
use crate::container::{Container, Parent, Stdio};
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
    if wants_terminal(&bundle) && args.console_socket.is_none() {
        return Err("process.terminal is true: give --console-socket".into());
    }
    let state = states.create(&args.id)?;
    match make(&state, bundle, args) {
        Ok(()) => Ok(()),
        Err(error) => Err(after(error, state.remove().map_err(Failure::from))),
    }
}

fn make(state: &StateDir, bundle: Bundle, args: &Args) -> Result<(), Failure> {
    let start = fifo(&state.start_fifo())?;
    let layout = cgroup::detect()?;
    // Each thing is on record before it is made, or before there can be a
    // process in it: so `delete` finds it even if we are killed on the way.
    let record = Record::new(&args.id, &bundle);
    state.write(&record)?;
    let mut container = Container::new(bundle, &layout)?;
    let record = record.with_cgroup(container.cgroup().record().clone());
    match make_init(state, record, &mut container, start, args) {
        Ok(()) => Ok(()),
        Err(error) => Err(after(error, clear(container.cgroup()))),
    }
}

fn make_init(
    state: &StateDir,
    record: Record,
    container: &mut Container,
    start: OwnedFd,
    args: &Args,
) -> Result<(), Failure> {
    // P18: nobody stays here to watch.
    if container.cgroup().monitor_kills_on_oom() {
        return Err(
            "linux.resources asks for the whole group to be killed when it runs out of \
                    memory, which this host's cgroup v1 cannot do and `create` does not stay to do"
                .into(),
        );
    }
    state.write(&record)?;
    let stdio = if wants_terminal(container.bundle()) {
        Stdio::Terminal
    } else {
        inherited()?
    };
    let created = container.create(stdio, Parent::Detached { start })?;
    if let (Some(socket), Some(master)) = (&args.console_socket, &created.terminal) {
        send_terminal(socket, master.as_fd())?;
    }
    state.write(&record.with_init(created.pid)?)?;
    if let Some(path) = &args.pid_file {
        write!(File::create(path)?, "{}", created.pid.as_raw_nonzero())?;
    }
    drop(created.detach());
    Ok(())
}

fn clear(cgroup: &Cgroup) -> Result<(), Failure> {
    cgroup.kill()?;
    Ok(cgroup.remove(GONE)?)
}

/// The failure that counts, with the one to clean up where there is one, too.
fn after(error: Failure, cleaned: Result<(), Failure>) -> Failure {
    match cleaned {
        Ok(()) => error,
        Err(cleaning) => {
            let (error, cleaning) = (words(error.as_ref()), words(cleaning.as_ref()));
            format!("{error}; cleaning up after that failed, too: {cleaning}").into()
        }
    }
}

fn wants_terminal(bundle: &Bundle) -> bool {
    let process = bundle.spec().process().as_ref();
    process.and_then(|process| process.terminal()) == Some(true)
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
