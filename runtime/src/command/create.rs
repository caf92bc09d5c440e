//! `create`: from a bundle to a process that waits to be started.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Pid;

use super::{Failure, GONE, lifecycle, warn, words};
use crate::cgroup;
use crate::container::{Container, Created, Creator, Parent, Stdio, Switches};
use crate::rootless;
use crate::spec::Bundle;
use crate::state::{Driver, Record, StateDir, StateRoot};

// What `create` and `run` have in common.
#[derive(Debug, clap::Args)]
pub(super) struct Creation {
    /// Folder with config.json
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub(super) bundle: PathBuf,
    #[command(flatten)]
    pub(super) outlets: Outlets,
    /// Change the root without pivot_root(2), where the host's own is in a ramdisk
    #[arg(long)]
    no_pivot: bool,
    /// Let its processes keep the session keyring of the caller
    #[arg(long)]
    no_new_keyring: bool,
    /// Name of the new container
    pub(super) id: String,
}

// Where a caller wants to have things, and what it hands over.
#[derive(Debug, clap::Args)]
pub(super) struct Outlets {
    /// Where the first process' id is written
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// Unix socket that the master of the terminal is sent to
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// Unix socket that a pidfd of the process is sent to
    #[arg(long, value_name = "SOCKET")]
    pub(super) pidfd_socket: Option<PathBuf>,
    /// Pass so many descriptors on, from 3 on (those of LISTEN_FDS come before)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) preserve_fds: u32,
}

impl Creation {
    /// Makes an ordinary user root of a namespace that holds the container's ids.
    pub(super) fn become_root(&self) -> Result<rootless::Ids, Failure> {
        Ok(rootless::enter_new(&Bundle::load(&self.bundle)?)?)
    }
}

/// Creates a container; whatever fails, nothing of it is left.
pub(super) fn create(states: &StateRoot, args: &Creation, driver: Driver) -> Result<(), Failure> {
    let new = New::begin(states, args, driver)?;
    if new.wants_terminal() && args.outlets.console_socket.is_none() {
        return Err(new.after("process.terminal is true: give --console-socket".into()));
    }
    let start = match fifo(&new.state.start_fifo()) {
        Ok(start) => start,
        Err(error) => return Err(new.after(error)),
    };
    let (made, created) = new.make(Parent::Detached { start }, &args.outlets)?;
    drop((made, created.detach()));
    Ok(())
}

/// A container of which there is nothing yet but its name.
pub(super) struct New {
    state: StateDir,
    record: Record,
    bundle: Bundle,
    preserved: u32,
}

/// A container that was made.
pub(super) struct Made {
    /// Its folder.
    pub(super) state: StateDir,
    /// What is recorded of it.
    pub(super) record: Record,
    /// The container itself.
    pub(super) container: Container,
}

impl New {
    /// Reads the bundle and takes the name.
    pub(super) fn begin(
        states: &StateRoot,
        args: &Creation,
        driver: Driver,
    ) -> Result<Self, Failure> {
        let preserved = args.outlets.preserved()?;
        let bundle = rootless::as_counted_here(Bundle::load(&args.bundle)?);
        let switches = Switches {
            no_pivot: args.no_pivot,
            no_new_keyring: args.no_new_keyring,
        };
        let record = Record::new(&args.id, &bundle).made_by(driver, switches);
        Ok(Self {
            state: states.create(&args.id)?,
            record,
            bundle,
            preserved,
        })
    }

    /// Whether its process has a terminal.
    pub(super) fn wants_terminal(&self) -> bool {
        let process = self.bundle.spec().process().as_ref();
        process.and_then(|process| process.terminal()) == Some(true)
    }

    /// Gives the name back after this failure.
    pub(super) fn after(self, error: Failure) -> Failure {
        after(error, self.state.remove().map_err(Failure::from))
    }

    /// Makes the container with an init that waits; whatever fails, nothing is left.
    pub(super) fn make(
        self,
        parent: Parent,
        outlets: &Outlets,
    ) -> Result<(Made, Created), Failure> {
        let Self {
            state,
            record,
            bundle,
            preserved,
        } = self;
        let container = match container(&state, &record, bundle) {
            Ok(container) => container,
            Err(error) => {
                // Where descriptors have run out, removing needs this one.
                drop(parent);
                return Err(after(error, state.remove().map_err(Failure::from)));
            }
        };
        let mut made = Made {
            record: record.with_cgroup(container.cgroup().record().clone()),
            state,
            container,
        };
        made.container.preserve(preserved);
        match made.init(parent, outlets) {
            Ok(created) => Ok((made, created)),
            Err(error) => Err(after(error, made.clear())),
        }
    }
}

fn container(state: &StateDir, record: &Record, bundle: Bundle) -> Result<Container, Failure> {
    File::create(state.config())?.write_all(bundle.text())?;
    // Each thing is on record before it is made, or before a process in it goes on:
    // so `delete` finds it even if we are killed on the way.
    state.write(record)?;
    let resources = bundle.spec().linux().as_ref();
    let resources = resources.and_then(|linux| linux.resources().as_ref());
    for warning in resources.map(cgroup::ignored).unwrap_or_default() {
        warn(&warning);
    }
    let mut container = Container::new_in(bundle, &record.place()?)?.named(&record.id);
    container.switch(record.switches);
    Ok(container)
}

impl Made {
    fn init(&mut self, parent: Parent, outlets: &Outlets) -> Result<Created, Failure> {
        // P18: nobody stays here to watch.
        if self.container.cgroup().monitor_kills_on_oom() {
            return Err(
                "linux.resources asks for the whole group to be killed when it runs out of \
                 memory, which this host's cgroup v1 cannot do and nobody stays to do"
                    .into(),
            );
        }
        if let Some(class) = self.container.plan_class()? {
            self.record = self.record.clone().with_intel_rdt(Some(class));
            self.state.write(&self.record)?;
            let class = self.record.intel_rdt.as_ref();
            if let Err(error) = self.container.make_class(class) {
                // Nothing of it is there.
                self.record.intel_rdt = None;
                return Err(error.into());
            }
        }
        let process = self.container.bundle().spec().process().as_ref();
        let stdio = match process.and_then(|process| process.terminal()) {
            Some(true) => Stdio::Terminal,
            _ => inherited()?,
        };
        let books = Books {
            state: &self.state,
            record: RefCell::new(self.record.clone()),
        };
        let created = self.container.create_for(&books, stdio, parent);
        self.record = books.record.into_inner();
        let mut created = created?;
        outlets.serve(created.pid, created.pidfd.as_fd(), &mut created.terminal)?;
        Ok(created)
    }

    /// Takes down whatever there is of it.
    pub(super) fn clear(self) -> Result<(), Failure> {
        let cleared = lifecycle::end(self.container.cgroup(), &self.record, GONE);
        let cleared = cleared.and_then(|()| match &self.record.intel_rdt {
            Some(class) => Ok(class.undo()?),
            None => Ok(()),
        });
        let removed = self.state.remove();
        let record = &self.record;
        lifecycle::run_poststop(self.container.bundle(), record);
        cleared.and(removed.map_err(Failure::from))
    }
}

/// What is on record of a container that is created.
struct Books<'a> {
    state: &'a StateDir,
    record: RefCell<Record>,
}

impl Creator for Books<'_> {
    /// Cgroup and first process come on record together: if we are killed earlier,
    /// the process ends with us.
    fn cloned(&self, init: Pid) -> io::Result<()> {
        let record = self.record.borrow().clone().with_init(init)?;
        self.state.write(&record).map_err(io::Error::other)?;
        self.record.replace(record);
        Ok(())
    }

    fn state(&self, init: Pid) -> Vec<u8> {
        let pid = init.as_raw_nonzero().get();
        let state = self.record.borrow().oci_state("creating", pid);
        state.to_string().into_bytes()
    }
}

/// The failure that counts, with the one to clean up where there is one, too.
pub(super) fn after(error: Failure, cleaned: Result<(), Failure>) -> Failure {
    match cleaned {
        Ok(()) => error,
        Err(cleaning) => {
            let (error, cleaning) = (words(error.as_ref()), words(cleaning.as_ref()));
            format!("{error}; cleaning up after that failed, too: {cleaning}").into()
        }
    }
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

/// Our own standard streams, for a container or a process in it.
pub(super) fn inherited() -> Result<Stdio, Failure> {
    let copy = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3);
    Ok(Stdio::Fds {
        stdin: copy(rustix::stdio::stdin())?,
        stdout: copy(rustix::stdio::stdout())?,
        stderr: copy(rustix::stdio::stderr())?,
    })
}

impl Outlets {
    /// How many descriptors from 3 on are passed on.
    ///
    /// They must be open now: a descriptor of ours could take an empty place
    /// among them, and reach the container (P4). So this comes first of all.
    pub(super) fn preserved(&self) -> Result<u32, Failure> {
        let preserved = listening().saturating_add(self.preserve_fds);
        if preserved > MAX_PRESERVED {
            return Err(format!("--preserve-fds {preserved} is more than {MAX_PRESERVED}").into());
        }
        for number in 3..3 + preserved {
            if !std::fs::exists(format!("/proc/self/fd/{number}"))? {
                return Err(format!("descriptor {number} is to be passed on and not open").into());
            }
        }
        Ok(preserved)
    }

    /// Gives the caller what it wants of a process that was made.
    pub(super) fn serve(
        &self,
        pid: Pid,
        pidfd: BorrowedFd<'_>,
        terminal: &mut Option<OwnedFd>,
    ) -> Result<(), Failure> {
        if let Some(socket) = &self.console_socket
            && let Some(master) = terminal.take()
        {
            send(socket, b"/dev/ptmx", master.as_fd())
                .map_err(|error| format!("send the terminal to {}: {error}", socket.display()))?;
        }
        if let Some(socket) = &self.pidfd_socket {
            send(socket, b"pidfd", pidfd)
                .map_err(|error| format!("send the pidfd to {}: {error}", socket.display()))?;
        }
        if let Some(path) = &self.pid_file {
            // Whole for whoever waits for it to appear.
            let mut hidden = path.clone().into_os_string();
            hidden.push(".new");
            write!(File::create(&hidden)?, "{}", pid.as_raw_nonzero())?;
            std::fs::rename(&hidden, path)?;
        }
        Ok(())
    }
}

/// No caller passes more.
const MAX_PRESERVED: u32 = 1024;

/// Descriptors of sd_listen_fds(3), where they are for us.
fn listening() -> u32 {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u32>().ok())
    };
    match number("LISTEN_PID") == Some(std::process::id()) {
        true => number("LISTEN_FDS").unwrap_or(0),
        false => 0,
    }
}

/// Sends a descriptor; the text is what the other side may show.
fn send(socket: &Path, text: &[u8], fd: BorrowedFd<'_>) -> std::io::Result<()> {
    let stream = UnixStream::connect(socket)?;
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    let slices = [IoSlice::new(text)];
    sendmsg(&stream, &slices, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}
