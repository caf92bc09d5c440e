//! A program that reads a stranger's data, sealed into one folder (P8).
//!
//! It gets namespaces of its own with an empty network, sees nothing but the
//! folder, has the few capabilities that unpacking needs, over ids that are
//! mapped away from the host's, and may make only the system calls of
//! [`crate::seccomp::jail_profile`]. Through an idmapped mount, what inner uid
//! *u* writes belongs to uid *u* on disk.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::{
    LinuxIdMapping, LinuxIdMappingBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
    Process, ProcessBuilder,
};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::thread::CapabilitySet;

use crate::container::{Error, Exit, Spawn, StartError, User, confine_caller, leave_mounts};
use crate::plan::{self, Capabilities, JailPlan, Mapped, PlanError, Program};
use crate::spec::SpecError;

/// How many ids are mapped.
const ID_RANGE: u32 = 1 << 16;

/// Address space of the program, in bytes.
const ADDRESS_SPACE_MAX: u64 = 2 << 30;

/// How long the jail may take to be built.
const PATIENCE: Duration = Duration::from_secs(60);

/// Files that the program may have open.
const OPEN_FILES_MAX: u64 = 1024;

/// What may run in a jail, and where.
#[derive(Debug)]
pub struct Jail {
    /// The only folder that it sees, as its root.
    pub root: PathBuf,
    /// Host id that uid 0 and gid 0 inside are mapped to; 65536 ids follow.
    pub id_base: u32,
    /// A static program of the host.
    pub program: PathBuf,
    /// Its arguments, its own name not among them.
    pub args: Vec<String>,
}

impl Jail {
    /// Runs the program to its end. It inherits 0, 1 and 2, and is killed when
    /// this process dies.
    ///
    /// # Errors
    /// [`StartError`] when the jail cannot be built or the program not executed.
    pub fn run(&self) -> Result<Exit, StartError> {
        confine_caller()?;
        leave_mounts()?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let program = openat(CWD, &self.program, flags, Mode::empty())
            .map_err(|source| prepare("open", &self.program, source))?;
        let root = self.root.canonicalize().map_err(|source| Error::System {
            what: "find the jail's folder",
            source,
        })?;
        let mapping = self.mapping()?;
        let mappings = std::slice::from_ref(&mapping);
        let plan = self.plan(&root, program)?;
        let process = limits()?;
        let spawn = Spawn {
            joins: Vec::new(),
            clone_flags: (libc::CLONE_NEWUSER
                | libc::CLONE_NEWNET
                | libc::CLONE_NEWNS
                | libc::CLONE_NEWPID
                | libc::CLONE_NEWIPC
                | libc::CLONE_NEWUTS) as u64,
            class: None,
            cgroup: None,
            start: None,
            process: Some(&process),
            user: User::New {
                uids: mappings,
                gids: mappings,
            },
            meanwhile: None,
            hooks: None,
            agent: None,
            patience: PATIENCE,
        };
        let process = spawn.run(plan)?.start()?;
        let exit = process.wait();
        Ok(exit.map_err(|source| Error::System {
            what: "wait for the program",
            source,
        })?)
    }

    fn plan(&self, root: &Path, program: OwnedFd) -> Result<plan::Plan, Error> {
        let tree = plan::detached_tree(root, false)?;
        let mapped = Mapped {
            mount: rustix::io::fcntl_dupfd_cloexec(&tree, 3)
                .map_err(|source| prepare("keep", root, source))?,
            recursive: false,
            source: root.display().to_string(),
        };
        let name = self.program.display().to_string();
        let args: Vec<String> = std::iter::once(name)
            .chain(self.args.iter().cloned())
            .collect();
        let filter = crate::seccomp::compile(&crate::seccomp::jail_profile());
        Ok(plan::jail_plan(JailPlan {
            root: tree,
            mapped,
            at: CString::new(root.as_os_str().as_encoded_bytes())
                .map_err(|_nul| PlanError::Nul("the jail's folder"))?,
            capabilities: capabilities(),
            filter: filter.map_err(PlanError::from)?,
            program: Program::open(program, &args, &[])?,
        }))
    }

    fn mapping(&self) -> Result<LinuxIdMapping, Error> {
        let mapping = LinuxIdMappingBuilder::default()
            .container_id(0_u32)
            .host_id(self.id_base)
            .size(ID_RANGE)
            .build();
        mapping.map_err(|_incomplete| SpecError::Missing("the jail's id mapping").into())
    }
}

fn capabilities() -> Capabilities {
    let all = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::SETFCAP
        | CapabilitySet::MKNOD;
    Capabilities {
        bounding: all,
        effective: all,
        permitted: all,
        ..Capabilities::NONE
    }
}

/// A process that carries nothing but resource limits (P15).
fn limits() -> Result<Process, Error> {
    let limits = vec![
        limit(PosixRlimitType::RlimitAs, ADDRESS_SPACE_MAX)?,
        limit(PosixRlimitType::RlimitNofile, OPEN_FILES_MAX)?,
        limit(PosixRlimitType::RlimitCore, 0)?,
        limit(PosixRlimitType::RlimitMemlock, 0)?,
    ];
    let process = ProcessBuilder::default().rlimits(limits).build();
    process.map_err(|_incomplete| SpecError::Missing("the jail's limits").into())
}

/// A resource limit, soft and hard the same.
pub(crate) fn limit(kind: PosixRlimitType, value: u64) -> Result<PosixRlimit, Error> {
    let limit = PosixRlimitBuilder::default()
        .typ(kind)
        .soft(value)
        .hard(value)
        .build();
    limit.map_err(|_incomplete| SpecError::Missing("a program's limits").into())
}

fn prepare(what: &'static str, subject: &Path, source: rustix::io::Errno) -> Error {
    PlanError::Prepare {
        what,
        subject: subject.display().to_string(),
        source,
    }
    .into()
}
