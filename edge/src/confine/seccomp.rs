//! The system calls that a name server needs; everything else fails with EPERM (P12).

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::ConfineError;

/// Calls that are allowed whatever their arguments.
const ALLOWED: &[libc::c_long] = &[
    // Datagrams, streams, and descriptors that arrive with them.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_close,
    // bind: the wildcard address, for an upstream socket of a random port.
    libc::SYS_bind,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_fcntl,
    // The event loop.
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    // Reading tables.json; Landlock and the file modes say which files.
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    // The allocator; no page is ever executable, see `conditions`.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Query ids, hash seeds.
    libc::SYS_getrandom,
    // Signals, a panic's abort, the end.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Installs the filter for the calling thread and all that it will be.
pub(super) fn install() -> Result<(), ConfineError> {
    seccompiler::apply_filter(&program()?)?;
    Ok(())
}

fn program() -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    rules.extend(conditions()?);
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, denied, SeccompAction::Allow, arch)?.try_into()
}

/// Calls that are allowed with some arguments only.
fn conditions() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let equal = |argument, value: libc::c_int| {
        let value = u64::from(value.unsigned_abs());
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
            .and_then(|condition| SeccompRule::new(vec![condition]))
    };
    let without = |argument, flag: libc::c_int| {
        let mask = SeccompCmpOp::MaskedEq(u64::from(flag.unsigned_abs()));
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, mask, 0)
            .and_then(|condition| SeccompRule::new(vec![condition]))
    };
    Ok(BTreeMap::from([
        // Upstream sockets: IPv4 and IPv6 only.
        (
            libc::SYS_socket,
            vec![equal(0, libc::AF_INET)?, equal(0, libc::AF_INET6)?],
        ),
        // The standard library's way to a non-blocking socket.
        (libc::SYS_ioctl, vec![ioctl_is(libc::FIONBIO)?]),
        // abort(3) of a panic: the signal, not the target, is what can be checked.
        (libc::SYS_tgkill, vec![equal(2, libc::SIGABRT)?]),
        (libc::SYS_mmap, vec![without(2, libc::PROT_EXEC)?]),
        (libc::SYS_mprotect, vec![without(2, libc::PROT_EXEC)?]),
    ]))
}

fn ioctl_is(request: libc::Ioctl) -> Result<SeccompRule, BackendError> {
    let condition = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request)?;
    SeccompRule::new(vec![condition])
}
