//! P12: the filter that a container gets unless its config brings another.
//!
//! A list of what may be called, for what purpose, as the field's default profiles
//! have it, but narrower in sockets. What is not here fails with EPERM:
//! above all new namespaces, mounts, modules, kexec, keys, BPF, performance events,
//! io_uring and userfaultfd. Capabilities, which count in the container's own user
//! namespace only, open what they are for.
//!
//! The rules of one call exclude each other, so that they mean the same to every
//! runtime.

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};

/// What every program may call.
const ALWAYS: [&str; 13] = [
    FILES, METADATA, NETWORK, EVENTS, MEMORY, PROCESSES, SIGNALS, IDENTITY, TIME, SCHEDULING, IPC,
    SANDBOXING, SYSTEM,
];

/// Opening, reading, writing, copying.
const FILES: &str = "
    open openat openat2 creat close close_range read write readv writev pread64
    pwrite64 preadv pwritev preadv2 pwritev2 lseek dup dup2 dup3 fcntl flock ioctl
    truncate ftruncate fallocate fadvise64 readahead fsync fdatasync sync syncfs
    sync_file_range sendfile splice tee vmsplice copy_file_range pipe pipe2 io_setup
    io_submit io_cancel io_destroy io_getevents io_pgetevents
";

/// Names, folders, attributes.
const METADATA: &str = "
    stat fstat lstat newfstatat statx statfs fstatfs access faccessat
    faccessat2 chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime
    utimes futimesat utimensat umask link linkat symlink symlinkat readlink
    readlinkat unlink unlinkat rename renameat renameat2 mkdir mkdirat rmdir mknod
    mknodat getcwd chdir fchdir getdents getdents64 getxattr lgetxattr fgetxattr
    getxattrat setxattr lsetxattr fsetxattr setxattrat listxattr llistxattr
    flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat
    file_getattr file_setattr name_to_handle_at statmount listmount inotify_init
    inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark
";

/// Sockets; which families, `socket` itself decides below.
const NETWORK: &str = "
    bind connect listen accept accept4 shutdown getsockname getpeername getsockopt
    setsockopt sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg
";

/// Waiting for descriptors.
const EVENTS: &str = "
    select pselect6 poll ppoll epoll_create epoll_create1 epoll_ctl epoll_wait
    epoll_pwait epoll_pwait2 epoll_ctl_old epoll_wait_old eventfd eventfd2 signalfd
    signalfd4
";

/// The address space.
const MEMORY: &str = "
    brk mmap munmap mremap mprotect pkey_alloc pkey_free pkey_mprotect madvise
    mincore msync mlock mlock2 mlockall munlock munlockall remap_file_pages
    memfd_create memfd_secret mseal cachestat map_shadow_stack membarrier
    process_mrelease
";

/// Threads and processes; `clone` decides below which. Tracing stays within the
/// container and cannot get around this filter since Linux 4.8.
const PROCESSES: &str = "
    fork vfork execve execveat exit exit_group wait4 waitid getpid getppid gettid
    getpgid getpgrp setpgid getsid setsid set_tid_address set_robust_list
    get_robust_list futex futex_waitv futex_wake futex_wait futex_requeue rseq
    arch_prctl modify_ldt set_thread_area get_thread_area prctl pidfd_open
    pidfd_send_signal ptrace process_vm_readv process_vm_writev
    uretprobe
";

/// Signals.
const SIGNALS: &str = "
    kill tkill tgkill pause restart_syscall rt_sigaction rt_sigpending
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_tgsigqueueinfo sigaltstack
";

/// Users, groups, capabilities: the kernel checks each change.
const IDENTITY: &str = "
    getuid geteuid getgid getegid getgroups getresuid getresgid setuid setgid
    setgroups setreuid setregid setresuid setresgid setfsuid setfsgid capget capset
";

/// Clocks and timers. Setting the clock needs a capability that no container has.
const TIME: &str = "
    time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep alarm
    getitimer setitimer timer_create timer_delete timer_getoverrun timer_gettime
    timer_settime timerfd_create timerfd_gettime timerfd_settime times adjtimex
    clock_adjtime
";

/// Priorities and limits.
const SCHEDULING: &str = "
    sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam
    sched_getscheduler sched_setscheduler sched_getattr sched_setattr
    sched_get_priority_max sched_get_priority_min sched_rr_get_interval getpriority
    setpriority ioprio_get ioprio_set getrlimit setrlimit prlimit64 getrusage getcpu
";

/// System V and POSIX queues, semaphores, shared memory, within the ipc namespace.
const IPC: &str = "
    shmget shmat shmdt shmctl semget semop semtimedop semctl msgget msgsnd msgrcv
    msgctl mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
";

/// What a program restricts itself with.
const SANDBOXING: &str = "
    seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
";

/// Facts about the machine.
const SYSTEM: &str = "
    uname sysinfo getrandom
";

/// What a capability opens.
const BY_CAPABILITY: [(Capability, &str); 16] = [
    (Capability::SysAdmin, NAMESPACES),
    (Capability::SysAdmin, MOUNTS),
    (Capability::SysAdmin, WATCHING),
    (Capability::DacReadSearch, "open_by_handle_at"),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (
        Capability::SysModule,
        "init_module finit_module delete_module",
    ),
    (Capability::SysPacct, "acct"),
    (Capability::SysPtrace, "kcmp pidfd_getfd process_madvise"),
    (Capability::SysRawio, "iopl ioperm"),
    (Capability::SysTime, "settimeofday clock_settime"),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::SysNice, NUMA),
    (Capability::Syslog, "syslog"),
    (Capability::Bpf, "bpf"),
    (Capability::Perfmon, "perf_event_open"),
];

/// Joining and leaving namespaces, and names in them.
const NAMESPACES: &str = "unshare setns clone clone3 sethostname setdomainname";

/// The mount API, old and new.
const MOUNTS: &str = "
    mount umount2 mount_setattr move_mount open_tree open_tree_attr fsopen fsconfig fsmount
    fspick pivot_root quotactl quotactl_fd
";

/// Watching a whole system.
const WATCHING: &str = "
    bpf perf_event_open fanotify_init lookup_dcookie syslog lsm_get_self_attr
    lsm_set_self_attr lsm_list_modules
";

/// Where memory lives.
const NUMA: &str = "
    get_mempolicy mbind set_mempolicy set_mempolicy_home_node migrate_pages move_pages
";

/// Every `CLONE_NEW*` that clone(2) can carry: mount, cgroup, uts, ipc, user, pid, net.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// The personalities that programs really ask for: Linux and 32-bit Linux, each with
/// and without `UNAME26`, and the question which one is set.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

const AF_UNIX: u64 = 1;
const AF_NETLINK: u64 = 16;
/// `AF_UNIX`, `AF_INET`, `AF_INET6`.
const FAMILIES: [u64; 3] = [AF_UNIX, 2, 10];
/// `NETLINK_ROUTE`.
const ROUTE: u64 = 0;

/// The default profile for a container whose bounding set is `capabilities`.
#[must_use]
pub fn default_profile(capabilities: &[Capability]) -> LinuxSeccomp {
    let mut names: Vec<&str> = ALWAYS.into_iter().flat_map(str::split_whitespace).collect();
    for (capability, calls) in BY_CAPABILITY {
        if capabilities.contains(&capability) {
            names.extend(calls.split_whitespace());
        }
    }
    names.sort_unstable();
    names.dedup();
    let mut rules = vec![allow(&names, Vec::new())];
    if !names.contains(&"clone") {
        rules.push(allow(&["clone"], vec![masked(0, NEW_NAMESPACES, 0)]));
        // Its flags are behind a pointer, where no filter can look: as if it did not
        // exist, so that the C library falls back to clone.
        rules.push(deny("clone3", libc::ENOSYS, Vec::new()));
    }
    for personality in PERSONALITIES {
        let equal = argument(0, LinuxSeccompOperator::ScmpCmpEq, personality);
        rules.push(allow(&["personality"], vec![equal]));
    }
    rules.extend(sockets());
    with_rules(rules)
}

/// Families other than those of everyday fail with EAFNOSUPPORT, as where the kernel
/// lacks them: EPERM for the audit netlink makes useradd fail, and so apt.
fn sockets() -> Vec<LinuxSyscall> {
    use LinuxSeccompOperator::{ScmpCmpEq, ScmpCmpGt, ScmpCmpNe};
    let refuse = |arguments| deny("socket", libc::EAFNOSUPPORT, arguments);
    let route = |operator| {
        vec![
            argument(0, ScmpCmpEq, AF_NETLINK),
            argument(2, operator, ROUTE),
        ]
    };
    let mut rules: Vec<LinuxSyscall> = FAMILIES
        .iter()
        .map(|family| allow(&["socket"], vec![argument(0, ScmpCmpEq, *family)]))
        .collect();
    rules.push(allow(&["socket"], route(ScmpCmpEq)));
    rules.push(refuse(route(ScmpCmpNe)));
    rules.push(refuse(vec![argument(0, ScmpCmpGt, AF_NETLINK)]));
    for family in (0..AF_NETLINK).filter(|family| !FAMILIES.contains(family)) {
        rules.push(refuse(vec![argument(0, ScmpCmpEq, family)]));
    }
    let unix = |operator| vec![argument(0, operator, AF_UNIX)];
    rules.push(allow(&["socketpair"], unix(ScmpCmpEq)));
    rules.push(deny("socketpair", libc::EAFNOSUPPORT, unix(ScmpCmpNe)));
    rules
}

/// A profile for the native ABI that refuses with EPERM what no rule speaks of.
pub(super) fn with_rules(rules: Vec<LinuxSyscall>) -> LinuxSeccomp {
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(LinuxSeccompAction::ScmpActErrno);
    profile.set_default_errno_ret(Some(libc::EPERM.cast_unsigned()));
    profile.set_architectures(Some(vec![Arch::ScmpArchX86_64]));
    profile.set_syscalls(Some(rules));
    profile
}

pub(super) fn allow(names: &[&str], arguments: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    rule(names, LinuxSeccompAction::ScmpActAllow, arguments)
}

pub(super) fn deny(name: &str, errno: i32, arguments: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let mut rule = rule(&[name], LinuxSeccompAction::ScmpActErrno, arguments);
    rule.set_errno_ret(Some(errno.cast_unsigned()));
    rule
}

fn rule(
    names: &[&str],
    action: LinuxSeccompAction,
    arguments: Vec<LinuxSeccompArg>,
) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.iter().map(|name| (*name).to_owned()).collect());
    rule.set_action(action);
    rule.set_args(Some(arguments).filter(|arguments| !arguments.is_empty()));
    rule
}

/// A comparison of an argument with a value.
pub(super) fn argument(
    index: usize,
    operator: LinuxSeccompOperator,
    value: u64,
) -> LinuxSeccompArg {
    compared(index, operator, value, 0)
}

/// `argument & mask == value`.
pub(super) fn masked(index: usize, mask: u64, value: u64) -> LinuxSeccompArg {
    compared(index, LinuxSeccompOperator::ScmpCmpMaskedEq, mask, value)
}

fn compared(
    index: usize,
    operator: LinuxSeccompOperator,
    value: u64,
    value_two: u64,
) -> LinuxSeccompArg {
    let builder = LinuxSeccompArgBuilder::default()
        .index(index)
        .op(operator)
        .value(value);
    builder
        .value_two(value_two)
        .build()
        .expect("every field has a default")
}
