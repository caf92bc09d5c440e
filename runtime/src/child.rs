//! The child: walks a plan between `clone3(2)` and `execve(2)`.
//!
//! Nothing here allocates, locks, logs or formats. A step that fails sends one
//! fixed record and ends the process; the parent turns it into words.

pub(crate) mod channel;
mod copy_up;
mod device;
mod identity;
mod mount;
mod terminal;

pub(crate) use channel::{Receiver, Report, Reporter, pair};

use std::convert::Infallible;
use std::ffi::CStr;
use std::fmt::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, FdFlags, Result};

use crate::plan::{Plan, Program, ProgramFile, Step};
use crate::sys;

/// What the steps hand to one another.
struct Walk<'a> {
    reporter: &'a Reporter,
    /// Where the word to start comes from.
    start: BorrowedFd<'a>,
    program: &'a Program,
    /// What an init of ours speaks by.
    speaker: Option<BorrowedFd<'a>>,
    /// The root, where the parent could make it only after the user namespace.
    handed: Option<OwnedFd>,
    /// Descriptors below are the program's.
    first_of_ours: u32,
    /// The root of the container, once it is attached.
    root: Option<OwnedFd>,
}

/// Walks the plan and becomes its program. `start` is read for the one byte
/// that means "start"; everything else goes over `reporter`.
pub(crate) fn run(plan: &Plan, reporter: &Reporter, start: BorrowedFd<'_>) -> Infallible {
    let mut walk = Walk {
        reporter,
        start,
        program: &plan.program,
        speaker: plan.speaker.as_ref().map(AsFd::as_fd),
        handed: None,
        first_of_ours: 3 + plan.preserved,
        root: None,
    };
    for (index, step) in plan.steps.iter().enumerate() {
        if let Err(errno) = walk.take(step) {
            if !reporter.fail(index, errno) {
                LastWords::say(format_args!("could not {step}"), errno);
            }
            sys::process::exit_now(FAILED);
        }
    }
    let errno = plan.program.execute();
    if !reporter.fail(plan.steps.len(), errno) {
        let program = plan.program.argv.strings().first();
        let program = program.map_or(c"", |program| program.as_c_str());
        LastWords::say(format_args!("cannot execute {program:?}"), errno);
    }
    sys::process::exit_now(FAILED)
}

/// What is written on standard error, the container's own, where nobody else can
/// be told: `create` is long gone, and `start` only gives the word.
struct LastWords {
    text: [u8; 512],
    length: usize,
}

impl LastWords {
    fn say(what: fmt::Arguments<'_>, errno: Errno) {
        let mut words = Self {
            text: [0; 512],
            length: 0,
        };
        let why = nix::errno::Errno::from_raw(errno.raw_os_error()).desc();
        // What does not fit is left out; and there is nobody to tell if it fails.
        words
            .write_fmt(format_args!("dyno-runtime: {what}: {why}\n"))
            .ok();
        let text = words.text.get(..words.length).unwrap_or_default();
        rustix::io::write(rustix::stdio::stderr(), text).ok();
    }
}

impl fmt::Write for LastWords {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let rest = self.text.get_mut(self.length..).unwrap_or_default();
        let fitting = text.len().min(rest.len());
        rest[..fitting].copy_from_slice(&text.as_bytes()[..fitting]);
        self.length += fitting;
        Ok(())
    }
}

/// Exit code of a child that could not become its program.
const FAILED: i32 = 255;

impl Walk<'_> {
    #[expect(clippy::too_many_lines, reason = "a list, with an arm for each step")]
    fn take(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::AwaitParent => {
                self.handed = self.reporter.await_parent()?;
                Ok(())
            }
            Step::ResetSignals => sys::process::reset_signals(),
            Step::NewSession => rustix::process::setsid().map(drop),
            // A kernel without keyrings has none to keep apart.
            Step::NewKeyring => match sys::process::join_new_session_keyring() {
                Err(Errno::NOSYS) => Ok(()),
                joined => joined,
            },
            Step::Stdio([stdin, stdout, stderr]) => {
                rustix::stdio::dup2_stdin(stdin)?;
                rustix::stdio::dup2_stdout(stdout)?;
                rustix::stdio::dup2_stderr(stderr)
            }
            Step::Propagation(propagation) => mount::propagation(*propagation),
            Step::AttachRoot { mount, at } => {
                let mount = mount.as_ref().or(self.handed.as_ref()).ok_or(Errno::BADF)?;
                self.root = Some(mount::attach_root(mount.as_fd(), at)?);
                Ok(())
            }
            Step::BecomeRoot { keep_groups } => identity::become_root(*keep_groups),
            Step::JoinCgroupNamespace(namespace) => {
                let kind = rustix::thread::LinkNameSpaceType::ControlGroup;
                rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind))
            }
            Step::NewCgroupNamespace => {
                sys::process::unshare(rustix::thread::UnshareFlags::NEWCGROUP)
            }
            Step::LoopbackUp => sys::network::loopback_up(),
            Step::HostName(name) => rustix::system::sethostname(name.to_bytes()),
            Step::DomainName(name) => rustix::system::setdomainname(name.to_bytes()),
            Step::Mount(step) => mount::mount(self.root()?, step),
            Step::Remount(remount) => mount::remount(self.root()?, remount),
            Step::Device(device) => device::make(self.root()?, device),
            Step::Link { target, to } => device::link(self.root()?, target, to),
            Step::Sysctl { path, value } => mount::sysctl(path, value),
            Step::Label(label) => {
                let root = self.open_root()?;
                mount::label(root.as_fd(), label)
            }
            Step::MemoryPolicy(policy) => {
                sys::schedule::set_memory_policy(policy.mode, policy.nodes.as_deref())
            }
            Step::Personality(persona) => sys::schedule::set_personality(*persona),
            Step::Terminal { owner, console } => {
                let root = self.open_root()?;
                terminal::allocate(root.as_fd(), *owner, console, self.reporter)
            }
            Step::MakeFolder(target) => mount::resolve(self.root()?, target).map(drop),
            Step::Mask(target) => mount::mask(self.root()?, target),
            Step::ReadOnly(target) => mount::read_only(self.root()?, target),
            Step::AwaitHooks => self.reporter.await_hooks(),
            Step::PivotRoot => mount::pivot_root(self.root()?),
            Step::MoveRoot { hide } => mount::move_root(self.root()?, hide),
            Step::RootAttributes(attributes) => {
                sys::mount::mount_setattr(CWD, c"/", false, *attributes)
            }
            Step::FindProgram { .. } => self.find_program(),
            Step::AwaitStart => {
                self.close_others()?;
                self.reporter.await_start(self.start)
            }
            Step::Umask(mask) => {
                rustix::process::umask(Mode::from_raw_mode(*mask));
                Ok(())
            }
            Step::WorkingDirectory(path) => working_directory(path),
            // P4: whatever was inherited or forgotten ends with execve.
            Step::CloseOnExec => {
                sys::process::close_range_cloexec(self.first_of_ours)?;
                self.leave_speaker()
            }
            Step::Identity {
                uid,
                gid,
                groups,
                capabilities,
            } => identity::assume(*uid, *gid, groups.as_deref(), capabilities),
            Step::DieWithParent => {
                let kill = rustix::process::Signal::KILL;
                rustix::process::set_parent_process_death_signal(Some(kill))?;
                self.reporter.parent_lives()
            }
            Step::Notifier(notifier) => {
                let listener = notifier.load().map_err(errno_of)?;
                self.reporter.listener(listener.as_fd())?;
                // It is closed with all others before the start; now, that would be
                // a call that the agent may be asked about.
                std::mem::forget(listener);
                Ok(())
            }
            Step::NoNewPrivileges => rustix::thread::set_no_new_privs(true),
            Step::Seccomp(filter) => filter.load().map_err(errno_of),
        }
    }

    /// A created container may wait for days: it keeps nothing of its parent's
    /// open but what the last steps need.
    fn close_others(&mut self) -> Result<()> {
        self.root = None;
        let program = match &self.program.file {
            ProgramFile::Open(file) => file.as_fd(),
            ProgramFile::Candidates(_) => self.start,
        };
        let speaker = self.speaker.unwrap_or(self.start);
        let keep = [self.reporter.as_start(), self.start, program, speaker];
        sys::process::close_all_but(self.first_of_ours, keep)
    }

    fn root(&self) -> Result<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd).ok_or(Errno::BADF)
    }

    /// A descriptor of the root, also where this child did not attach it.
    fn open_root(&self) -> Result<OwnedFd> {
        match &self.root {
            Some(root) => rustix::io::fcntl_dupfd_cloexec(root, 3),
            None => rustix::fs::openat(CWD, c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()),
        }
    }

    /// Whether one of the candidates is there. A relative one depends on the
    /// working folder, and only `execve(2)` knows all about permissions.
    fn find_program(&self) -> Result<()> {
        let ProgramFile::Candidates(candidates) = &self.program.file else {
            return Ok(());
        };
        let follow = rustix::fs::AtFlags::empty();
        for candidate in candidates {
            let there = candidate.to_bytes().first() != Some(&b'/')
                || rustix::fs::statat(CWD, candidate, follow).is_ok();
            if there {
                return Ok(());
            }
        }
        Err(Errno::NOENT)
    }

    /// An init of ours is left what it speaks by.
    fn leave_speaker(&self) -> Result<()> {
        match self.speaker {
            Some(speaker) => rustix::io::fcntl_setfd(speaker, FdFlags::empty()),
            None => Ok(()),
        }
    }
}

fn errno_of(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::INVAL)
}

/// P4: a working folder reached through a leaked descriptor would lie outside
/// the root; the kernel then says "(unreachable)".
fn working_directory(path: &CStr) -> Result<()> {
    rustix::process::chdir(path)?;
    if sys::process::working_directory_is_reachable()? {
        Ok(())
    } else {
        Err(Errno::XDEV)
    }
}
