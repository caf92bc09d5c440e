//! Processes of a container: cloned, started, waited for.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use oci_spec::runtime as oci;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, pidfd_open,
    pidfd_send_signal, waitid, waitpid,
};
use rustix::thread::{
    CpuSet, ThreadNameSpaceType, UnshareFlags, move_into_link_name_space,
    move_into_thread_name_spaces, sched_setaffinity,
};

use super::namespaces::{User, move_devices};
use super::{Error, limits};
use crate::cgroup::Cgroup;
use crate::child::{self, Receiver, Report, Reporter};
use crate::init::{self, Listener, Word};
use crate::intel_rdt;
use crate::plan::Plan;
use crate::seccomp::Agent;
use crate::spec::process::affinity;
use crate::sys;

/// Why a created process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no such program in the container.
    #[error("{program:?}: executable file not found in the container")]
    NotFound {
        /// The program as it was asked for.
        program: String,
    },
    /// The program is there but cannot be executed.
    #[error("{program:?} cannot be executed")]
    NotExecutable {
        /// The program as it was asked for.
        program: String,
        /// The kernel's answer to `execve(2)`.
        source: Errno,
    },
    /// Something else failed before.
    #[error(transparent)]
    Container(#[from] Error),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(u8),
    /// This signal killed it.
    Signal(u8),
}

/// A process that is set up and stops before its `execve(2)`.
#[derive(Debug)]
pub struct Created {
    /// Its process id on the host.
    pub pid: Pid,
    /// A descriptor of it, `pidfd_open(2)`.
    pub pidfd: OwnedFd,
    /// The master of its terminal, where it has one.
    pub terminal: Option<OwnedFd>,
    receiver: Receiver,
    plan: Plan,
    patience: Duration,
    /// What an init of ours says.
    listener: Option<Listener>,
}

/// A process that runs.
#[derive(Debug)]
pub struct Process {
    /// Its process id on the host.
    pub pid: Pid,
    /// A descriptor of it: readable once it has ended.
    pub pidfd: OwnedFd,
    /// The master of its terminal, where it has one.
    pub terminal: Option<OwnedFd>,
    /// What an init of ours says.
    pub(crate) listener: Option<Listener>,
}

impl Created {
    /// Hears what the init of ours says that it becomes.
    pub(crate) fn listen(&mut self, listener: Option<Listener>) {
        self.listener = listener;
    }

    /// Lets it execute its program.
    ///
    /// # Errors
    /// [`StartError`]; the process is gone and reaped then.
    pub fn start(self) -> Result<Process, StartError> {
        let started = match self.receiver.go(None) {
            Ok(()) => self.receiver.report(self.patience),
            Err(errno) => Err(errno),
        };
        let process = Process {
            pid: self.pid,
            pidfd: self.pidfd,
            terminal: self.terminal,
            listener: self.listener,
        };
        let error = match started {
            Ok(Report::Closed) => match process.begun(&self.plan, self.patience) {
                Ok(()) => return Ok(process),
                Err(error) => error,
            },
            Ok(Report::Failed { step, errno }) => failure(&self.plan, step, errno),
            Ok(_) => Error::Died.into(),
            Err(errno) => Error::system("start the container")(errno).into(),
        };
        process.end();
        Err(error)
    }

    /// Leaves it to be started through the FIFO that it was created with.
    pub fn detach(self) -> Process {
        Process {
            pid: self.pid,
            pidfd: self.pidfd,
            terminal: self.terminal,
            listener: self.listener,
        }
    }
}

impl Process {
    /// Reaps it; blocks until it has ended. Only for the process that created it.
    ///
    /// # Errors
    /// What `waitid(2)` answers.
    pub fn wait(&self) -> io::Result<Exit> {
        let status = rustix::io::retry_on_intr(|| {
            waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED)
        })?;
        let status = status.ok_or(Errno::CHILD)?;
        let byte = |number: i32| u8::try_from(number & 0xff).unwrap_or(u8::MAX);
        Ok(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => self.end_of_command().unwrap_or(Exit::Code(byte(code))),
            (None, Some(signal)) => Exit::Signal(byte(signal)),
            (None, None) => return Err(Errno::CHILD.into()),
        })
    }

    /// How the command of an init of ours ended, where a signal did that: it could not end
    /// itself by one.
    fn end_of_command(&self) -> Option<Exit> {
        match self.listener.as_ref()?.next(Duration::ZERO)? {
            Word::Killed(signal) => Some(Exit::Signal(signal)),
            Word::Executed | Word::NotExecuted(_) | Word::NotCloned(_) => None,
        }
    }

    /// Whether the command is executed, where an init of ours does that.
    fn begun(&self, plan: &Plan, patience: Duration) -> Result<(), StartError> {
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        match listener.next(patience) {
            Some(Word::Executed) => Ok(()),
            Some(Word::NotExecuted(errno)) => Err(not_executed(init::command(plan), errno)),
            Some(Word::NotCloned(errno)) => Err(step_error(COMMAND, errno).into()),
            Some(Word::Killed(_)) | None => Err(Error::Died.into()),
        }
    }

    /// Kills and reaps it; there is nobody to tell what fails, as it is our child.
    pub(crate) fn end(&self) {
        self.signal(Signal::KILL).ok();
        self.wait().ok();
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// `ESRCH` when it has ended, else what `pidfd_send_signal(2)` answers.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.pidfd, signal)?)
    }
}

fn failure(plan: &Plan, step: usize, errno: Errno) -> StartError {
    match plan.steps.get(step) {
        Some(step) => Error::Step {
            step: step.to_string(),
            source: errno,
        }
        .into(),
        None if step == JOINING => step_error("join its namespaces", errno).into(),
        None if step == PLACING => {
            step_error("take the CPUs of process.execCPUAffinity.initial", errno).into()
        }
        None if step == TIMING => step_error("set the clocks of linux.timeOffsets", errno).into(),
        None if step == CLONING => step_error(CLONE, errno).into(),
        None => not_executed(plan.program.name(), errno),
    }
}

fn not_executed(program: String, errno: Errno) -> StartError {
    match errno {
        Errno::NOENT => StartError::NotFound { program },
        source => StartError::NotExecutable { program, source },
    }
}

/// Of a step before the process was ready.
fn early_failure(plan: &Plan, step: usize, errno: Errno) -> Error {
    match failure(plan, step, errno) {
        StartError::Container(error) => error,
        StartError::NotFound { .. } | StartError::NotExecutable { .. } => Error::Died,
    }
}

fn step_error(step: &str, source: Errno) -> Error {
    Error::Step {
        step: step.to_owned(),
        source,
    }
}

/// Stand for steps that come before those of the plan.
const JOINING: usize = u32::MAX as usize;
const CLONING: usize = JOINING - 1;
const TIMING: usize = JOINING - 2;
const PLACING: usize = JOINING - 3;

const COMMAND: &str = "make a process for the command of its init";
const CLONE: &str = "clone a process into its cgroup and namespaces";

/// What a process joins before it is cloned.
#[derive(Debug)]
pub(crate) enum Join<'a> {
    /// One namespace.
    Namespace(BorrowedFd<'a>),
    /// A cgroup namespace. Whoever is in it can't be placed in a cgroup outside:
    /// the process that joins it is in the container's before.
    Cgroup(BorrowedFd<'a>),
    /// A new time namespace, for its children, with these offsets.
    NewTime {
        /// A procfs.
        proc: BorrowedFd<'a>,
        /// Lines of `timens_offsets`.
        offsets: &'a [u8],
    },
    /// These kinds of the process that the pidfd names, at once.
    AllOf(BorrowedFd<'a>, ThreadNameSpaceType),
}

/// Everything that a new process needs besides its plan.
pub(crate) struct Spawn<'a> {
    pub(crate) joins: Vec<Join<'a>>,
    pub(crate) clone_flags: u64,
    pub(crate) cgroup: Option<&'a Cgroup>,
    /// Its class of cache and memory bandwidth.
    pub(crate) class: Option<&'a intel_rdt::Record>,
    pub(crate) start: Option<OwnedFd>,
    /// Its rlimits and OOM score, which the parent sets.
    pub(crate) process: Option<&'a oci::Process>,
    /// Its user namespace.
    pub(crate) user: User<'a>,
    /// What is done while it sets itself up, and before anything of the container
    /// runs: neither hooks nor its program. Until then it ends with its parent.
    pub(crate) meanwhile: Option<&'a dyn Fn(Pid) -> Result<(), Error>>,
    /// What is done when it reports that its hooks are due.
    pub(crate) hooks: Option<&'a dyn Fn(Pid) -> Result<(), Error>>,
    /// Who is notified of its system calls.
    pub(crate) agent: Option<Agent>,
    /// How long it may take before it is ready, and from the start to its
    /// program. Others in its container could hold it up for ever, and its
    /// parent with it (P15).
    pub(crate) patience: Duration,
}

impl Spawn<'_> {
    /// Clones the process and lets it walk its plan until it is ready.
    pub(crate) fn run(&self, mut plan: Plan) -> Result<Created, Error> {
        let (receiver, reporter) = child::pair().map_err(Error::system("make a socket pair"))?;
        let pid = self.clone_child(&plan, &receiver, reporter)?;
        // The init has its own; where it is gone, its listener shall hear that.
        plan.speaker = None;
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(errno) => {
                // It cannot have been reaped, so this is no other process.
                kill_process(pid, Signal::KILL).ok();
                rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty())).ok();
                return Err(Error::system("open the container's first process")(errno));
            }
        };
        let mut created = Created {
            pid,
            pidfd,
            terminal: None,
            receiver,
            plan,
            patience: self.patience,
            listener: None,
        };
        match self.prepare(&mut created) {
            Ok(()) => Ok(created),
            Err(error) => {
                created.detach().end();
                Err(error)
            }
        }
    }

    fn prepare(&self, created: &mut Created) -> Result<(), Error> {
        let moved = move_devices(created.pid, &created.plan.late.devices)?;
        let done = self.set_up(created);
        if let (Err(_), Some(moved)) = (&done, moved) {
            // Else the kernel would destroy them with the namespace.
            moved.give_back();
        }
        done
    }

    fn set_up(&self, created: &mut Created) -> Result<(), Error> {
        if let Some(cgroup) = self.cgroup {
            cgroup.admit(created.pid)?;
        }
        if let Some(class) = self.class {
            class.admit(created.pid)?;
        }
        let root = self.user.complete(created.pid, &created.plan.late)?;
        created
            .receiver
            .go(root.as_ref().map(AsFd::as_fd))
            .map_err(Error::system("let the container go on"))?;
        if let Some(meanwhile) = self.meanwhile {
            meanwhile(created.pid).map_err(|error| Self::own_failure(created).unwrap_or(error))?;
        }
        loop {
            let report = created.receiver.report(self.patience);
            match report.map_err(Error::system("hear from the container"))? {
                Report::Terminal(master) => {
                    if let Some(process) = self.process {
                        limits::size_terminal(&master, process)?;
                    }
                    created.terminal = Some(master);
                }
                Report::Hooks => {
                    if let Some(run) = self.hooks {
                        run(created.pid)?;
                    }
                    let go = created.receiver.go(None);
                    go.map_err(Error::system("let the container go on"))?;
                }
                Report::Listener(listener) => match &self.agent {
                    Some(agent) => agent.send(created.pid, listener.as_fd())?,
                    None => return Err(Error::Died),
                },
                Report::Ready => return self.be_ready(created),
                Report::Failed { step, errno } => {
                    return Err(early_failure(&created.plan, step, errno));
                }
                Report::Closed | Report::Cloned(_) => return Err(Error::Died),
            }
        }
    }

    /// What the process has said of a step that failed, if it has.
    fn own_failure(created: &Created) -> Option<Error> {
        while let Ok(report) = created.receiver.report(Duration::ZERO) {
            match report {
                Report::Failed { step, errno } => {
                    return Some(early_failure(&created.plan, step, errno));
                }
                Report::Closed => break,
                _ => {}
            }
        }
        None
    }

    fn be_ready(&self, created: &Created) -> Result<(), Error> {
        if let Some(process) = self.process {
            limits::set(created.pid, process, self.is_further())?;
        }
        if self.start.is_some() {
            let go = created.receiver.go(None);
            go.map_err(Error::system("let the container wait for its start"))?;
        }
        Ok(())
    }

    /// Clones the child, directly or from a process that joins namespaces first.
    fn clone_child(
        &self,
        plan: &Plan,
        receiver: &Receiver,
        reporter: Reporter,
    ) -> Result<Pid, Error> {
        let start = self.start.as_ref().map_or(reporter.as_start(), AsFd::as_fd);
        let cgroup = self.cgroup.and_then(Cgroup::v2_dir_fd);
        let walk = || child::run(plan, &reporter, start);
        let tasks = self.cgroup.map_or(Ok(Vec::new()), Cgroup::v1_tasks)?;
        if self.joins.is_empty() {
            let child = sys::process::clone3(self.clone_flags, cgroup, || {
                receiver.close_copy();
                Self::enter_v1(&tasks, &reporter);
                walk()
            });
            return child.map_err(|error| step_error(CLONE, errno_of(&error)));
        }
        let flags = self.clone_flags | libc::CLONE_PARENT as u64;
        let cpus = self.initial_cpus()?;
        let early = self
            .joins
            .iter()
            .any(|join| matches!(join, Join::Cgroup(_)));
        let (outer, cgroup) = if early {
            (cgroup, None)
        } else {
            (None, cgroup)
        };
        let between = sys::process::clone3(0, outer, || {
            receiver.close_copy();
            if let Some(cpus) = &cpus
                && let Err(errno) = sched_setaffinity(None, cpus)
            {
                reporter.fail(PLACING, errno);
                sys::process::exit_now(1);
            }
            Self::enter_v1(&tasks, &reporter);
            self.join_and(|| sys::process::clone3(flags, cgroup, walk), &reporter)
        });
        let between = between.map_err(Error::system("clone a process"))?;
        let report = receiver.report(self.patience);
        rustix::io::retry_on_intr(|| waitpid(Some(between), WaitOptions::empty()))
            .map_err(Error::system("wait for a process"))?;
        match report.map_err(Error::system("hear from a process"))? {
            Report::Cloned(pid) => Pid::from_raw(pid).ok_or(Error::Died),
            Report::Failed { step, errno } => Err(early_failure(plan, step, errno)),
            _ => Err(Error::Died),
        }
    }

    /// Whether it is a further process of a container, and not its first.
    fn is_further(&self) -> bool {
        let all = |join: &Join<'_>| matches!(join, Join::AllOf(..));
        self.joins.iter().any(all)
    }

    /// CPUs that it runs on before it is in its cgroup.
    fn initial_cpus(&self) -> Result<Option<CpuSet>, Error> {
        let process = self.process.filter(|_| self.is_further());
        let affinity = process.map(affinity).transpose()?;
        Ok(affinity.and_then(|affinity| affinity.initial))
    }

    /// Runs in a child with one thread: moves itself into the v1 hierarchies.
    fn enter_v1(tasks: &[File], reporter: &Reporter) {
        for tasks in tasks {
            if let Err(errno) = rustix::io::write(tasks, b"0") {
                reporter.fail(CLONING, errno);
                sys::process::exit_now(1);
            }
        }
    }

    /// Runs between parent and child: a process can't leave the pid namespace
    /// that it is in, only its children can be born into another.
    fn join_and(&self, clone: impl FnOnce() -> io::Result<Pid>, reporter: &Reporter) -> Infallible {
        for join in &self.joins {
            let (joined, step) = match join {
                Join::Namespace(namespace) | Join::Cgroup(namespace) => {
                    (move_into_link_name_space(*namespace, None), JOINING)
                }
                Join::AllOf(process, kinds) => {
                    (move_into_thread_name_spaces(*process, *kinds), JOINING)
                }
                Join::NewTime { proc, offsets } => (new_time_namespace(*proc, offsets), TIMING),
            };
            if let Err(errno) = joined {
                reporter.fail(step, errno);
                sys::process::exit_now(1);
            }
        }
        match clone() {
            Ok(pid) => drop(reporter.cloned(pid.as_raw_nonzero().get()).ok()),
            Err(error) => {
                reporter.fail(CLONING, errno_of(&error));
            }
        }
        sys::process::exit_now(0)
    }
}

/// Runs in a child. The offsets are of the namespace that its children are born
/// in, and can be set while it has none.
fn new_time_namespace(proc: BorrowedFd<'_>, offsets: &[u8]) -> rustix::io::Result<()> {
    sys::process::unshare(UnshareFlags::NEWTIME)?;
    let rules = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat2(proc, c"self/timens_offsets", flags, Mode::empty(), rules)?;
    rustix::io::write(&file, offsets).map(drop)
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::INVAL)
}
