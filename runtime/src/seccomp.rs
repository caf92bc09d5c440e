//! System call filters: the `linux.seccomp` of a config as a BPF program.
//!
//! ```text
//!  policy    LinuxSeccomp → a verdict for each system call (pure)
//!  program   verdicts → instructions: a search tree over call numbers
//!  syscalls  names and numbers        profile, jail  the filters that we make
//! ```
//!
//! What the spec leaves open is decided like this:
//!
//! - Of several rules for one call, the first that matches decides. Several
//!   conditions on the *same* argument of one rule are alternatives, on different
//!   arguments they must all hold, as runc and crun have it.
//! - Only the native ABI works: a call of another machine (`int 0x80`) kills the
//!   process, x32 calls do not exist (ENOSYS). Listing those architectures in a
//!   profile does not open them, since its rules are not translated for them.
//! - Where the default is an errno, calls that did not exist when the table was made
//!   fail with ENOSYS, so that programs fall back to older ones.
//! - A rule that allows an unknown call is ignored; one that denies it is an error
//!   where the call would otherwise pass (P18).

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the table of system calls is for x86_64 only");

mod jail;
mod policy;
mod profile;
mod program;
mod syscalls;

use std::io;

use libc::sock_filter;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag};

pub use jail::jail_profile;
pub use profile::default_profile;

/// A profile that cannot be applied as it stands.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It asks for a supervisor of system calls.
    #[error("seccomp: {0} is not supported: a notification listener is needed for it")]
    Notify(&'static str),
    /// A rule denies a call that this table does not know, and the default allows it.
    #[error("seccomp: the rule against {name:?} cannot be applied: unknown system call")]
    UnknownCall {
        /// As the profile spells it.
        name: String,
    },
    /// A condition is about an argument that system calls do not have.
    #[error("seccomp: {name}: argument {index} does not exist, the last is 5")]
    Argument {
        /// The call.
        name: String,
        /// The argument's index.
        index: usize,
    },
    /// A masked comparison with bits outside its mask.
    #[error("seccomp: {name}: argument {index} & {mask:#x} can never be {value:#x}")]
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
    #[error("seccomp: {action} cannot return {value}")]
    ReturnValue {
        /// The action.
        action: oci_spec::runtime::LinuxSeccompAction,
        /// `errnoRet`.
        value: u32,
    },
    /// The program would be longer than the kernel takes.
    #[error("seccomp: the filter has {instructions} instructions, the kernel takes 4096")]
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

/// Compiles a profile.
///
/// # Errors
/// Whatever the kernel could not enforce as the profile says it.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, Error> {
    if profile.listener_path().is_some() {
        return Err(Error::Notify("listenerPath"));
    }
    let mut flags = 0;
    for flag in profile.flags().iter().flatten() {
        flags |= match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => {
                libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW
            }
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                return Err(Error::Notify("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"));
            }
        };
    }
    let policy = policy::Policy::new(profile)?;
    let program = program::assemble(&policy)?;
    // All flags are below 2^32.
    let flags = u32::try_from(flags).unwrap_or(u32::MAX);
    Ok(Filter { program, flags })
}

#[cfg(test)]
mod tests;
