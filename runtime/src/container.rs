//! A container: from its bundle to its first process, and further processes in it.
//!
//! ```text
//!  Container::new      reads the bundle, makes the cgroup
//!     │  create        clones init into its namespaces; it sets itself up and stops before execve
//!     ▼
//!  Created ──start──▶ Process          (again and again: the monitor's restarts)
//!  Container::exec ─▶ Process          joins the namespaces of a running init
//! ```

pub mod hooks;
mod limits;
mod namespaces;
mod process;
mod relimit;
mod user_namespace;

pub(crate) use namespaces::User;
pub(crate) use process::{Join, Spawn};
pub(crate) use user_namespace::mapped;

pub use crate::plan::Switches;
pub use process::{Created, Exit, Process, StartError};
pub use relimit::RelimitError;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use oci_spec::runtime::{self as oci, Hook, Hooks, LinuxIntelRdt, LinuxNamespaceType as Kind};
use rustix::fs::Mode;
use rustix::process::Pid;

use crate::cgroup::{self, Cgroup, Layout, Place};
use crate::device_filter::Policy;
use crate::host_mounts;
use crate::init;
use crate::intel_rdt::{self, Resctrl};
use crate::net_devices::NetDeviceError;
use crate::plan::{self, ExecParts, InitParts, PlanError};
use crate::seccomp::{Agent, AgentError};
use crate::spec::{Bundle, SpecError, check_process};
use namespaces::Namespaces;

/// How long an init may take to set itself up, its many mounts on a slow machine.
const INIT_PATIENCE: Duration = Duration::from_secs(60);

/// How long a further process may take. It walks among those of the container,
/// who can stop it; its parent has others to look after.
const EXEC_PATIENCE: Duration = Duration::from_secs(10);

/// Why a container could not be made, or a process in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its configuration cannot be turned into a plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Its cgroup cannot be made, or a limit not be enforced.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The kernel refused an operation of the parent.
    #[error("could not {what}")]
    System {
        /// The operation, in words.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a step of the child.
    #[error("the container could not {step}")]
    Step {
        /// The step, in words.
        step: String,
        /// The kernel's answer.
        source: rustix::io::Errno,
    },
    /// It cannot have its class of cache and memory bandwidth.
    #[error(transparent)]
    IntelRdt(#[from] intel_rdt::Error),
    /// A device of the host's could not be moved.
    #[error(transparent)]
    NetDevice(#[from] NetDeviceError),
    /// A hook of the configuration failed.
    #[error(transparent)]
    Hook(#[from] hooks::HookError),
    /// The agent of its seccomp filter does not take the listener.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The child was killed before it could report.
    #[error("the container's first process was killed while it was set up")]
    Died,
}

impl From<SpecError> for Error {
    fn from(error: SpecError) -> Self {
        Self::Plan(error.into())
    }
}

impl Error {
    pub(crate) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            what,
            source: source.into(),
        }
    }
}

/// Standard streams of a process.
#[derive(Debug)]
pub enum Stdio {
    /// These three descriptors, none of them below 3, become 0, 1 and 2.
    Fds {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// A terminal of the container's own devpts; its master end is handed back.
    Terminal,
}

/// Whose life a container's first process is bound to.
#[derive(Debug)]
pub enum Parent {
    /// The calling process, which also starts it: init dies with it.
    Monitor,
    /// The calling process starts it and waits for it; init lives on without it.
    Foreground,
    /// Nobody: init goes on when the caller ends, and is started by the first
    /// byte that somebody writes into this FIFO, open for reading and writing.
    Detached {
        /// The FIFO.
        start: OwnedFd,
    },
}

/// A container that exists: its cgroup is made. The user and network namespaces
/// that its inits live in, one after the other, come with the first.
#[derive(Debug)]
pub struct Container {
    id: String,
    bundle: Bundle,
    cgroup: Cgroup,
    /// Its class of cache and memory bandwidth, once that is made.
    class: Option<intel_rdt::Record>,
    namespaces: Namespaces,
    preserved: u32,
    switches: Switches,
    /// Its first process is one of ours.
    init: bool,
    /// Somebody else's: what is executed in it lives on without us.
    adopted: bool,
    /// The cgroup's device rules, until they are in force.
    devices: Option<Policy>,
}

/// Who is told of a container's first process while it is created.
pub trait Creator {
    /// It is there, and sets itself up. Neither hooks nor its program run before
    /// this returns, and until then it ends with the caller.
    ///
    /// # Errors
    /// Whatever shall keep it from going on.
    fn cloned(&self, init: Pid) -> io::Result<()>;

    /// The state that hooks get, as OCI runtime.md has it.
    fn state(&self, init: Pid) -> Vec<u8>;
}

/// Nobody: for configurations without hooks.
impl Creator for () {
    fn cloned(&self, _init: Pid) -> io::Result<()> {
        Ok(())
    }

    fn state(&self, _init: Pid) -> Vec<u8> {
        Vec::new()
    }
}

impl Container {
    /// Makes the cgroup; its device rules are in force once a process is created.
    ///
    /// The calling process gets the umask 022, becomes non-dumpable, and gets a mount
    /// namespace of its own where something must be attached to make the container. It
    /// must have one thread, and stay so.
    ///
    /// # Errors
    /// [`Error`]; the cgroup is removed again.
    pub fn new(bundle: Bundle, layout: &Layout) -> Result<Self, Error> {
        let place = folder_of(&bundle, layout)?;
        Self::new_in(bundle, &place)
    }

    /// As [`Container::new`], with its device rules in force, as
    /// [`Container::new_restricted_in`] has them.
    ///
    /// # Errors
    /// As [`Container::new`].
    pub fn new_restricted(bundle: Bundle, layout: &Layout) -> Result<Self, Error> {
        let place = folder_of(&bundle, layout)?;
        Self::new_restricted_in(bundle, &place)
    }

    /// As [`Container::new`], with the cgroup where `place` says, a folder or a scope
    /// of systemd, and its device rules in force: for processes that others make. The
    /// caller has mounts of its own then, to hand them what they need.
    ///
    /// # Errors
    /// As [`Container::new`].
    pub fn new_restricted_in(bundle: Bundle, place: &Place) -> Result<Self, Error> {
        if !attaches_mounts(&bundle) {
            leave_mounts()?;
        }
        let mut container = Self::new_in(bundle, place)?;
        if let Err(error) = container.restrict_devices() {
            container.cgroup.remove(Duration::from_secs(1)).ok();
            return Err(error);
        }
        container.devices = None;
        Ok(container)
    }

    fn restrict_devices(&self) -> Result<(), Error> {
        match &self.devices {
            Some(devices) => Ok(self.cgroup.restrict_devices(devices).map(drop)?),
            None => Ok(()),
        }
    }

    /// As [`Container::new`], with the cgroup where `place` says: in a folder, or a
    /// scope of systemd.
    ///
    /// # Errors
    /// As [`Container::new`].
    pub fn new_in(bundle: Bundle, place: &Place) -> Result<Self, Error> {
        confine_caller()?;
        if attaches_mounts(&bundle) {
            leave_mounts()?;
        }
        let bundle = namespaces::with_joined_mappings(bundle)?;
        let linux = bundle.spec().linux().as_ref();
        let resources = linux
            .and_then(|linux| linux.resources().clone())
            .unwrap_or_default();
        let (cgroup, devices) = Cgroup::create_open_in(place, &resources)?;
        let delegated = match cgroup::owner(bundle.spec()) {
            Some(uid) => cgroup.delegate_to(uid).map_err(Error::from),
            None => Ok(()),
        };
        match delegated.and_then(|()| Namespaces::new(&bundle)) {
            Ok(namespaces) => Ok(Self {
                id: String::new(),
                bundle,
                cgroup,
                class: None,
                namespaces,
                preserved: 0,
                switches: Switches::default(),
                init: false,
                adopted: false,
                devices,
            }),
            Err(error) => {
                // The failure to make it counts more than one to clean up.
                cgroup.remove(Duration::from_secs(1)).ok();
                Err(error)
            }
        }
    }

    /// A container that was created by somebody else, to act on while it runs.
    ///
    /// # Errors
    /// [`Error`] when its cgroup cannot be opened.
    pub fn adopt(
        bundle: Bundle,
        cgroup: cgroup::Record,
        class: Option<intel_rdt::Record>,
    ) -> Result<Self, Error> {
        confine_caller()?;
        Ok(Self {
            id: String::new(),
            namespaces: Namespaces::of_running(&bundle),
            cgroup: Cgroup::open(cgroup)?,
            class,
            bundle,
            preserved: 0,
            switches: Switches::default(),
            init: false,
            adopted: true,
            devices: None,
        })
    }

    /// The class of cache and memory bandwidth that it asks for, to be put on record.
    ///
    /// # Errors
    /// [`intel_rdt::Error`] where there can be none.
    pub fn plan_class(&self) -> Result<Option<intel_rdt::Record>, Error> {
        let wanted = self.wanted_class();
        let planned = wanted.map(|wanted| Resctrl::find()?.plan(wanted, &self.id));
        Ok(planned.transpose()?)
    }

    /// Makes the class that was planned: its processes are born in it.
    ///
    /// # Errors
    /// [`intel_rdt::Error`]; what was made of it is removed.
    pub fn make_class(&mut self, planned: Option<&intel_rdt::Record>) -> Result<(), Error> {
        if let (Some(wanted), Some(planned)) = (self.wanted_class(), planned) {
            planned.make(wanted)?;
            self.class = Some(planned.clone());
        }
        Ok(())
    }

    fn wanted_class(&self) -> Option<&LinuxIntelRdt> {
        self.bundle.spec().linux().as_ref()?.intel_rdt().as_ref()
    }

    /// Lets its processes inherit so many descriptors of the caller from 3 on.
    /// They must be open.
    pub fn preserve(&mut self, descriptors: u32) {
        self.preserved = descriptors;
    }

    /// Makes its processes in another way than usual.
    pub fn switch(&mut self, switches: Switches) {
        self.switches = switches;
    }

    /// Gives it an init of ours (`dyno-init`), whose child its command is.
    pub fn give_init(&mut self) {
        self.init = true;
    }

    /// The hooks of the container's namespaces that come before its program.
    ///
    /// # Errors
    /// [`hooks::HookError`] of the first that fails.
    pub fn run_start_hooks(&self, init: Pid, state: &[u8]) -> Result<(), hooks::HookError> {
        let hooks = self.bundle.hooks(|hooks| hooks.start_container());
        hooks::run_inside(self, init, "startContainer", hooks, state)
    }

    fn run_create_hooks(&self, init: Pid, creator: &dyn Creator) -> Result<(), Error> {
        let state = creator.state(init);
        let of = |kind: fn(&Hooks) -> &Option<Vec<Hook>>| self.bundle.hooks(kind);
        let prestart = of(|hooks| hooks.prestart());
        hooks::run("prestart", prestart, &state)?;
        hooks::run("createRuntime", of(|hooks| hooks.create_runtime()), &state)?;
        let inside = of(|hooks| hooks.create_container());
        hooks::run_inside(self, init, "createContainer", inside, &state)?;
        Ok(())
    }

    /// The same with its id, which the agent of its seccomp filter is told.
    #[must_use]
    pub fn named(self, id: &str) -> Self {
        Self {
            id: id.to_owned(),
            ..self
        }
    }

    /// Gives its next init these variables, `NAME=value`, in place of those of the
    /// same names.
    pub fn set_variables(&mut self, variables: Vec<String>) {
        self.bundle.set_variables(variables);
    }

    /// Clones an init that sets itself up and stops before its `execve(2)`.
    /// May be called again once the previous one has ended.
    ///
    /// # Errors
    /// [`Error`], with the step that failed; the init is gone then.
    pub fn create(&mut self, stdio: Stdio, parent: Parent) -> Result<Created, Error> {
        self.create_for(&(), stdio, parent)
    }

    /// As [`Container::create`], for a configuration that may have hooks, and a
    /// creator who keeps a record.
    ///
    /// # Errors
    /// As [`Container::create`], [`Error::Hook`], and what the creator says.
    pub fn create_for(
        &mut self,
        creator: &dyn Creator,
        stdio: Stdio,
        parent: Parent,
    ) -> Result<Created, Error> {
        // P18: a monitor makes none.
        if self.class.is_none() && self.wanted_class().is_some() {
            return Err(SpecError::Unsupported("linux.intelRdt under a monitor").into());
        }
        let (listener, speaker) = match self.init {
            true => {
                let pair = init::pair().map_err(Error::system("make a socket pair"))?;
                (Some(pair.0), Some(pair.1))
            }
            false => (None, None),
        };
        let plan = plan::init_plan(
            InitParts {
                bundle: &self.bundle,
                cgroup: &self.cgroup,
                die_with_parent: matches!(parent, Parent::Monitor),
                started_by_others: matches!(parent, Parent::Detached { .. }),
                preserved: self.preserved,
                switches: self.switches,
                speaker,
            },
            stdio,
        )?;
        let monitored = matches!(parent, Parent::Monitor);
        let start = match parent {
            Parent::Monitor | Parent::Foreground => None,
            Parent::Detached { start } => Some(start),
        };
        let meanwhile = |init: Pid| {
            let kept = creator.cloned(init);
            kept.map_err(Error::system("record the container's first process"))?;
            self.restrict_devices()
        };
        let hooks = |init: Pid| self.run_create_hooks(init, creator);
        let spawn = process::Spawn {
            joins: self.namespaces.joins(),
            clone_flags: self.namespaces.new_for_init(),
            cgroup: Some(&self.cgroup),
            class: self.class.as_ref(),
            start,
            process: self.bundle.spec().process().as_ref(),
            user: self.namespaces.user(&self.bundle),
            meanwhile: Some(&meanwhile),
            hooks: Some(&hooks),
            agent: Agent::of(&self.bundle, &self.id, None),
            patience: INIT_PATIENCE,
        };
        let mut created = spawn.run(plan)?;
        created.listen(listener);
        self.devices = None;
        if monitored && let Err(error) = self.namespaces.keep(created.pid) {
            created.detach().end();
            return Err(error);
        }
        Ok(created)
    }

    /// Takes an init that somebody else has made in new namespaces of the container's,
    /// up to its program: its network is set up as that of one of ours, and the next
    /// one joins its user and network namespaces.
    ///
    /// # Errors
    /// [`Error`] with what was refused.
    pub(crate) fn adopt_init(&mut self, init: Pid) -> Result<(), Error> {
        self.namespaces.keep(init)?;
        self.namespaces.set_up_network(&self.bundle)
    }

    /// Runs a further process beside the running `init`, which must be one that
    /// [`Container::create`] made. `pidfd` is of that one: by its id alone it could
    /// be another by now.
    ///
    /// # Errors
    /// [`StartError`]: among others that there is no such program.
    pub fn exec(
        &self,
        init: Pid,
        pidfd: BorrowedFd<'_>,
        process: &oci::Process,
        stdio: Stdio,
    ) -> Result<Process, StartError> {
        check_process(process).map_err(Error::from)?;
        let cgroup_namespace = self.namespaces.cgroup_of(init, pidfd)?;
        let early = cgroup_namespace.as_ref();
        let early = early.map(|namespace| self.namespaces.cgroup_is_joined_early(namespace));
        let (early, cgroup_namespace) = match early.transpose()? {
            Some(true) => (cgroup_namespace, None),
            Some(false) | None => (None, cgroup_namespace),
        };
        let early = early
            .iter()
            .map(|namespace| process::Join::Cgroup(namespace.as_fd()));
        let parts = ExecParts {
            process,
            bundle: &self.bundle,
            die_with_parent: !self.adopted,
            preserved: self.preserved,
            switches: self.switches,
        };
        let plan = plan::exec_plan(&parts, cgroup_namespace, stdio).map_err(Error::from)?;
        let spawn = process::Spawn {
            joins: early.chain([self.namespaces.join_all_of(pidfd)]).collect(),
            clone_flags: 0,
            cgroup: Some(&self.cgroup),
            class: self.class.as_ref(),
            start: None,
            process: Some(process),
            user: User::Host,
            meanwhile: None,
            hooks: None,
            agent: Agent::of(&self.bundle, &self.id, Some(init)),
            patience: EXEC_PATIENCE,
        };
        spawn.run(plan)?.start()
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Its class of cache and memory bandwidth, once that is made.
    pub fn class(&self) -> Option<&intel_rdt::Record> {
        self.class.as_ref()
    }

    /// What it was made from.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }
}

fn folder_of(bundle: &Bundle, layout: &Layout) -> Result<Place, Error> {
    let linux = bundle.spec().linux().as_ref();
    let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let path = path.map(|path| path.to_string_lossy().into_owned());
    let path = path.ok_or(SpecError::Missing("linux.cgroupsPath"))?;
    let layout = layout.clone();
    Ok(Place::Folder { layout, path })
}

/// What children are to inherit, or must not see. Not being dumpable keeps our
/// `/proc` entry, our executable among it, from processes that share a namespace
/// with a child of ours (P5).
pub(crate) fn confine_caller() -> Result<(), Error> {
    // What is made for containers has the modes that are asked for, whatever
    // the caller's mask; children inherit this one.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let undumpable = rustix::process::DumpableBehavior::NotDumpable;
    rustix::process::set_dumpable_behavior(undumpable).map_err(Error::system("become non-dumpable"))
}

/// Gives this process mounts of its own: what is made here stays here.
pub(crate) fn leave_mounts() -> Result<(), Error> {
    host_mounts::leave().map_err(Error::system("make a mount namespace (are you root?)"))
}

/// Whether something is mounted on a folder, if only for a moment, to make this
/// container: the layers of an overlay, devices for a user namespace. Everything else
/// is made detached, and seen in the container's mount namespace alone. Outside of the
/// host's user namespace even that needs a mount namespace of one's own.
///
/// One that is not made is 0.15 ms of a start: it begins as a copy of all the host's
/// mounts, which are taken down again while the process that had it exits.
fn attaches_mounts(bundle: &Bundle) -> bool {
    let mounts = bundle.spec().mounts().as_deref().unwrap_or_default();
    let overlay = mounts
        .first()
        .is_some_and(|first| first.destination() == Path::new("/"));
    overlay || bundle.namespace(Kind::User).is_some() || !host_mounts::are_of_the_hosts_root()
}
