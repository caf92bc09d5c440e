//! System call filters: the `linux.seccomp` of a config as a BPF program.
//!
//! ```text
//!  policy    LinuxSeccomp → a verdict for each system call of each ABI (pure)
//!  program   verdicts → instructions: a search tree over call numbers
//!  syscalls  names and numbers        abi  x86_64, i386, x32
//!  agent     who is given a listener  profile, jail  the filters that we make
//!  support   what of all this there is
//! ```
//!
//! What the spec leaves open is decided like this:
//!
//! - Several conditions on the *same* argument of one rule are alternatives, on
//!   different arguments they must all hold. Of several rules for one call, one
//!   without conditions decides over those with; of the latter, the first that holds
//!   does. A rule without conditions that repeats the default is none. runc and crun
//!   have it so, but for the order of rules that overlap, which they leave open.
//! - The native ABI is always open, i386 and x32 where `architectures` names them. A
//!   call of a closed one kills the process (`int 0x80`) or does not exist (x32).
//!   Other machines may be named: none of their calls can be made here.
//! - Arguments are compared in 64 bits, those of i386 in 32: a negative value there
//!   means the same number of 32 bits.
//! - Of i386, what the arguments are cannot always be seen: `socketcall` and `mmap`
//!   have them behind a pointer, others in two halves. Where conditions on such
//!   arguments would decide, the strictest of the possible answers is given. A rule
//!   about `connect` holds for `socketcall` with the number of connect, too, unless
//!   there is one that names `socketcall` itself; the same goes for `ipc`.
//! - Where the default is an errno, calls that did not exist when the table was made
//!   fail with ENOSYS, so that programs fall back to older ones.
//! - A rule that allows an unknown call is ignored; one that denies it is an error
//!   where the call would otherwise pass (P18).
//! - `SCMP_ACT_NOTIFY` is a filter of its own, see [`Notifier`].

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the table of system calls is for x86_64 only");

mod abi;
mod agent;
mod jail;
mod policy;
mod profile;
mod program;
mod support;
mod syscalls;

use std::io;
use std::os::fd::OwnedFd;

use libc::sock_filter;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSyscall};

pub(crate) use agent::Agent;
pub use agent::AgentError;
pub use jail::jail_profile;
use policy::Policy;
pub use profile::default_profile;
pub use support::support;

/// A profile that cannot be applied as it stands.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody is there to be notified.
    #[error("linux.seccomp: SCMP_ACT_NOTIFY needs a listenerPath")]
    NoListener,
    /// There is something to tell an agent, but none.
    #[error("linux.seccomp.listenerMetadata needs a listenerPath")]
    MetadataAlone,
    /// The agent would have to answer before it is there.
    #[error(
        "linux.seccomp: {what} cannot be SCMP_ACT_NOTIFY: the listener itself is handed over by sendmsg"
    )]
    Undeliverable {
        /// The property or call.
        what: &'static str,
    },
    /// A rule denies a call that this table does not know, and the default allows it.
    #[error(
        "linux.seccomp.syscalls: the rule against {name:?} cannot be applied: unknown system call"
    )]
    UnknownCall {
        /// As the profile spells it.
        name: String,
    },
    /// A condition is about an argument that system calls do not have.
    #[error("linux.seccomp.syscalls: {name}: argument {index} does not exist, the last is 5")]
    Argument {
        /// The call.
        name: String,
        /// The argument's index.
        index: usize,
    },
    /// A masked comparison with bits outside its mask.
    #[error("linux.seccomp.syscalls: {name}: argument {index} & {mask:#x} can never be {value:#x}")]
    NeverMatches {
        /// The call.
        name: String,
        /// The argument's index.
        index: usize,
        /// The condition's `value`.
        mask: u64,
        /// The condition's `valueTwo`.
        value: u64,
    },
    /// `errnoRet` is out of range, or given to an action that returns none.
    #[error("linux.seccomp: errnoRet: {action} cannot return {value}")]
    ReturnValue {
        /// The action.
        action: LinuxSeccompAction,
        /// `errnoRet`.
        value: u32,
    },
    /// The program would be longer than the kernel takes.
    #[error("linux.seccomp: the filter has {instructions} instructions, the kernel takes 4096")]
    TooLong {
        /// How long it is.
        instructions: usize,
    },
}

/// A compiled filter.
#[derive(Clone, Debug)]
pub struct Filter {
    program: Vec<sock_filter>,
    flags: u32,
}

impl Filter {
    /// The instructions, for seccomp(2).
    #[must_use]
    pub fn program(&self) -> &[sock_filter] {
        &self.program
    }

    /// `SECCOMP_FILTER_FLAG_*`.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// Puts the filter over the calling thread and its future children, for good.
    /// Callable between clone3(2) and execve(2).
    ///
    /// # Errors
    /// The kernel's, such as EACCES without `no_new_privs` and `CAP_SYS_ADMIN`.
    pub fn load(&self) -> io::Result<()> {
        crate::sys::seccomp::set_mode_filter(&self.program, self.flags)
    }
}

/// The part of a profile that an agent decides on.
///
/// It is loaded while whoever creates the container is still there to give the
/// listener to the agent, and allows everything that it does not notify of. All else
/// comes with the [`Filter`], as the last thing before `execve(2)`: of several filters
/// the strictest answer counts, and there "allow" stands for what is notified.
#[derive(Clone, Debug)]
pub struct Notifier(Filter);

impl Notifier {
    /// The filter itself.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.0
    }

    /// Puts it over the calling thread and its future children, for good, and returns
    /// the descriptor by which notifications are received. From now on a call that is
    /// notified of waits for an answer by it, or fails with ENOSYS once it is closed.
    /// Callable between clone3(2) and execve(2).
    ///
    /// # Errors
    /// The kernel's, such as EBUSY where there is a listener already.
    pub fn load(&self) -> io::Result<OwnedFd> {
        crate::sys::seccomp::set_mode_filter_and_listen(&self.0.program, self.0.flags)
    }
}

/// Compiles a profile, but for what is notified of.
///
/// # Errors
/// Whatever the kernel could not enforce as the profile says it.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, Error> {
    let policy = checked_policy(profile)?;
    let policy = if notifies(profile) {
        policy.map(|action| if action == NOTIFY { ALLOW } else { action })
    } else {
        policy
    };
    Ok(Filter {
        program: program::assemble(&policy)?,
        flags: flags(profile, false),
    })
}

/// Compiles what a profile notifies of, if there is anything.
///
/// # Errors
/// As [`compile`].
pub fn compile_notifier(profile: &LinuxSeccomp) -> Result<Option<Notifier>, Error> {
    if !notifies(profile) {
        return Ok(None);
    }
    let policy = checked_policy(profile)?;
    let policy = policy.map(|action| if action == NOTIFY { NOTIFY } else { ALLOW });
    Ok(Some(Notifier(Filter {
        program: program::assemble(&policy)?,
        flags: flags(profile, true),
    })))
}

const NOTIFY: u32 = libc::SECCOMP_RET_USER_NOTIF;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

fn is_notify(rule: &LinuxSyscall) -> bool {
    rule.action() == LinuxSeccompAction::ScmpActNotify
}

/// Whether there is something for an agent to decide on.
fn notifies(profile: &LinuxSeccomp) -> bool {
    profile.syscalls().iter().flatten().any(is_notify)
}

fn checked_policy(profile: &LinuxSeccomp) -> Result<Policy, Error> {
    if profile.default_action() == LinuxSeccompAction::ScmpActNotify {
        return Err(Error::Undeliverable {
            what: "defaultAction",
        });
    }
    let mut notified = profile.syscalls().iter().flatten().filter(|r| is_notify(r));
    if notified.any(|rule| rule.names().iter().any(|name| name == "sendmsg")) {
        return Err(Error::Undeliverable { what: "sendmsg" });
    }
    if profile.listener_path().is_none() {
        if notifies(profile) {
            return Err(Error::NoListener);
        }
        if profile.listener_metadata().is_some() {
            return Err(Error::MetadataAlone);
        }
    }
    Policy::new(profile)
}

/// The flags that the profile asks for, and those that a listener needs.
fn flags(profile: &LinuxSeccomp, listen: bool) -> u32 {
    let listening = if listen {
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER
    } else {
        0
    };
    let all = profile.flags().iter().flatten().map(|flag| match flag {
        // Both return something; with this it is the listener, and the number of a
        // thread that could not be brought along becomes ESRCH.
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync if listen => {
            libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH
        }
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if !listen => 0,
        flag => support::flag(*flag),
    });
    // All flags are below 2^32.
    u32::try_from(all.fold(listening, |all, flag| all | flag)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
