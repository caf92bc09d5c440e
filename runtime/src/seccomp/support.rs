//! What of seccomp there is, for the OCI `features` command (features-linux.md).

use libc::c_ulong;
use oci_spec::runtime::{
    Arch, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator, Seccomp,
};

use crate::sys::seccomp::knows_flags;

pub(super) const ACTIONS: [LinuxSeccompAction; 9] = [
    LinuxSeccompAction::ScmpActAllow,
    LinuxSeccompAction::ScmpActErrno,
    LinuxSeccompAction::ScmpActKill,
    LinuxSeccompAction::ScmpActKillProcess,
    LinuxSeccompAction::ScmpActKillThread,
    LinuxSeccompAction::ScmpActLog,
    LinuxSeccompAction::ScmpActNotify,
    LinuxSeccompAction::ScmpActTrace,
    LinuxSeccompAction::ScmpActTrap,
];

pub(super) const OPERATORS: [LinuxSeccompOperator; 7] = [
    LinuxSeccompOperator::ScmpCmpEq,
    LinuxSeccompOperator::ScmpCmpGe,
    LinuxSeccompOperator::ScmpCmpGt,
    LinuxSeccompOperator::ScmpCmpLe,
    LinuxSeccompOperator::ScmpCmpLt,
    LinuxSeccompOperator::ScmpCmpMaskedEq,
    LinuxSeccompOperator::ScmpCmpNe,
];

/// Those that rules are translated for; others are accepted and mean nothing here.
pub(super) const ARCHS: [Arch; 3] = [Arch::ScmpArchX32, Arch::ScmpArchX86, Arch::ScmpArchX86_64];

pub(super) const FLAGS: [LinuxSeccompFilterFlag; 4] = [
    LinuxSeccompFilterFlag::SeccompFilterFlagLog,
    LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow,
    LinuxSeccompFilterFlag::SeccompFilterFlagTsync,
    LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv,
];

/// The actions, operators, architectures and flags that a profile may name, and the
/// flags among them that this kernel knows.
#[must_use]
pub fn support() -> Seccomp {
    let mut support = Seccomp::default();
    let supported = FLAGS.iter().filter(|flag| is_supported(**flag));
    support
        .set_enabled(Some(true))
        .set_actions(Some(ACTIONS.to_vec()))
        .set_operators(Some(OPERATORS.iter().map(ToString::to_string).collect()))
        .set_archs(Some(ARCHS.to_vec()))
        .set_known_flags(Some(FLAGS.iter().map(ToString::to_string).collect()))
        .set_supported_flags(Some(supported.map(ToString::to_string).collect()));
    support
}

fn is_supported(wanted: LinuxSeccompFilterFlag) -> bool {
    let with = match wanted {
        // It is about listeners, and refused without one.
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER
        }
        _ => 0,
    };
    knows_flags(flag(wanted) | with)
}

/// `SECCOMP_FILTER_FLAG_*`.
pub(super) fn flag(flag: LinuxSeccompFilterFlag) -> c_ulong {
    match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
            libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
        }
    }
}
