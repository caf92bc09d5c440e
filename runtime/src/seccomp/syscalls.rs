//! The system calls of x86_64 by name, up to Linux 6.18.
//!
//! Long because it is a table: the kernel's `arch/x86/entry/syscalls/syscall_64.tbl`
//! without the x32 numbers from 512 on. A test compares it with the libc crate.

/// Name and number, sorted by name.
pub(super) const SYSCALLS: &[(&str, u32)] = &[
    ("_sysctl", 156),
    ("accept", 43),
    ("accept4", 288),
    ("access", 21),
    ("acct", 163),
    ("add_key", 248),
    ("adjtimex", 159),
    ("afs_syscall", 183),
    ("alarm", 37),
    ("arch_prctl", 158),
    ("bind", 49),
    ("bpf", 321),
    ("brk", 12),
    ("cachestat", 451),
    ("capget", 125),
    ("capset", 126),
    ("chdir", 80),
    ("chmod", 90),
    ("chown", 92),
    ("chroot", 161),
    ("clock_adjtime", 305),
    ("clock_getres", 229),
    ("clock_gettime", 228),
    ("clock_nanosleep", 230),
    ("clock_settime", 227),
    ("clone", 56),
    ("clone3", 435),
    ("close", 3),
    ("close_range", 436),
    ("connect", 42),
    ("copy_file_range", 326),
    ("creat", 85),
    ("create_module", 174),
    ("delete_module", 176),
    ("dup", 32),
    ("dup2", 33),
    ("dup3", 292),
    ("epoll_create", 213),
    ("epoll_create1", 291),
    ("epoll_ctl", 233),
    ("epoll_ctl_old", 214),
    ("epoll_pwait", 281),
    ("epoll_pwait2", 441),
    ("epoll_wait", 232),
    ("epoll_wait_old", 215),
    ("eventfd", 284),
    ("eventfd2", 290),
    ("execve", 59),
    ("execveat", 322),
    ("exit", 60),
    ("exit_group", 231),
    ("faccessat", 269),
    ("faccessat2", 439),
    ("fadvise64", 221),
    ("fallocate", 285),
    ("fanotify_init", 300),
    ("fanotify_mark", 301),
    ("fchdir", 81),
    ("fchmod", 91),
    ("fchmodat", 268),
    ("fchmodat2", 452),
    ("fchown", 93),
    ("fchownat", 260),
    ("fcntl", 72),
    ("fdatasync", 75),
    ("fgetxattr", 193),
    ("file_getattr", 468),
    ("file_setattr", 469),
    ("finit_module", 313),
    ("flistxattr", 196),
    ("flock", 73),
    ("fork", 57),
    ("fremovexattr", 199),
    ("fsconfig", 431),
    ("fsetxattr", 190),
    ("fsmount", 432),
    ("fsopen", 430),
    ("fspick", 433),
    ("fstat", 5),
    ("fstatfs", 138),
    ("fsync", 74),
    ("ftruncate", 77),
    ("futex", 202),
    ("futex_requeue", 456),
    ("futex_wait", 455),
    ("futex_waitv", 449),
    ("futex_wake", 454),
    ("futimesat", 261),
    ("get_kernel_syms", 177),
    ("get_mempolicy", 239),
    ("get_robust_list", 274),
    ("get_thread_area", 211),
    ("getcpu", 309),
    ("getcwd", 79),
    ("getdents", 78),
    ("getdents64", 217),
    ("getegid", 108),
    ("geteuid", 107),
    ("getgid", 104),
    ("getgroups", 115),
    ("getitimer", 36),
    ("getpeername", 52),
    ("getpgid", 121),
    ("getpgrp", 111),
    ("getpid", 39),
    ("getpmsg", 181),
    ("getppid", 110),
    ("getpriority", 140),
    ("getrandom", 318),
    ("getresgid", 120),
    ("getresuid", 118),
    ("getrlimit", 97),
    ("getrusage", 98),
    ("getsid", 124),
    ("getsockname", 51),
    ("getsockopt", 55),
    ("gettid", 186),
    ("gettimeofday", 96),
    ("getuid", 102),
    ("getxattr", 191),
    ("getxattrat", 464),
    ("init_module", 175),
    ("inotify_add_watch", 254),
    ("inotify_init", 253),
    ("inotify_init1", 294),
    ("inotify_rm_watch", 255),
    ("io_cancel", 210),
    ("io_destroy", 207),
    ("io_getevents", 208),
    ("io_pgetevents", 333),
    ("io_setup", 206),
    ("io_submit", 209),
    ("io_uring_enter", 426),
    ("io_uring_register", 427),
    ("io_uring_setup", 425),
    ("ioctl", 16),
    ("ioperm", 173),
    ("iopl", 172),
    ("ioprio_get", 252),
    ("ioprio_set", 251),
    ("kcmp", 312),
    ("kexec_file_load", 320),
    ("kexec_load", 246),
    ("keyctl", 250),
    ("kill", 62),
    ("landlock_add_rule", 445),
    ("landlock_create_ruleset", 444),
    ("landlock_restrict_self", 446),
    ("lchown", 94),
    ("lgetxattr", 192),
    ("link", 86),
    ("linkat", 265),
    ("listen", 50),
    ("listmount", 458),
    ("listxattr", 194),
    ("listxattrat", 465),
    ("llistxattr", 195),
    ("lookup_dcookie", 212),
    ("lremovexattr", 198),
    ("lseek", 8),
    ("lsetxattr", 189),
    ("lsm_get_self_attr", 459),
    ("lsm_list_modules", 461),
    ("lsm_set_self_attr", 460),
    ("lstat", 6),
    ("madvise", 28),
    ("map_shadow_stack", 453),
    ("mbind", 237),
    ("membarrier", 324),
    ("memfd_create", 319),
    ("memfd_secret", 447),
    ("migrate_pages", 256),
    ("mincore", 27),
    ("mkdir", 83),
    ("mkdirat", 258),
    ("mknod", 133),
    ("mknodat", 259),
    ("mlock", 149),
    ("mlock2", 325),
    ("mlockall", 151),
    ("mmap", 9),
    ("modify_ldt", 154),
    ("mount", 165),
    ("mount_setattr", 442),
    ("move_mount", 429),
    ("move_pages", 279),
    ("mprotect", 10),
    ("mq_getsetattr", 245),
    ("mq_notify", 244),
    ("mq_open", 240),
    ("mq_timedreceive", 243),
    ("mq_timedsend", 242),
    ("mq_unlink", 241),
    ("mremap", 25),
    ("mseal", 462),
    ("msgctl", 71),
    ("msgget", 68),
    ("msgrcv", 70),
    ("msgsnd", 69),
    ("msync", 26),
    ("munlock", 150),
    ("munlockall", 152),
    ("munmap", 11),
    ("name_to_handle_at", 303),
    ("nanosleep", 35),
    ("newfstatat", 262),
    ("nfsservctl", 180),
    ("open", 2),
    ("open_by_handle_at", 304),
    ("open_tree", 428),
    ("open_tree_attr", 467),
    ("openat", 257),
    ("openat2", 437),
    ("pause", 34),
    ("perf_event_open", 298),
    ("personality", 135),
    ("pidfd_getfd", 438),
    ("pidfd_open", 434),
    ("pidfd_send_signal", 424),
    ("pipe", 22),
    ("pipe2", 293),
    ("pivot_root", 155),
    ("pkey_alloc", 330),
    ("pkey_free", 331),
    ("pkey_mprotect", 329),
    ("poll", 7),
    ("ppoll", 271),
    ("prctl", 157),
    ("pread64", 17),
    ("preadv", 295),
    ("preadv2", 327),
    ("prlimit64", 302),
    ("process_madvise", 440),
    ("process_mrelease", 448),
    ("process_vm_readv", 310),
    ("process_vm_writev", 311),
    ("pselect6", 270),
    ("ptrace", 101),
    ("putpmsg", 182),
    ("pwrite64", 18),
    ("pwritev", 296),
    ("pwritev2", 328),
    ("query_module", 178),
    ("quotactl", 179),
    ("quotactl_fd", 443),
    ("read", 0),
    ("readahead", 187),
    ("readlink", 89),
    ("readlinkat", 267),
    ("readv", 19),
    ("reboot", 169),
    ("recvfrom", 45),
    ("recvmmsg", 299),
    ("recvmsg", 47),
    ("remap_file_pages", 216),
    ("removexattr", 197),
    ("removexattrat", 466),
    ("rename", 82),
    ("renameat", 264),
    ("renameat2", 316),
    ("request_key", 249),
    ("restart_syscall", 219),
    ("rmdir", 84),
    ("rseq", 334),
    ("rt_sigaction", 13),
    ("rt_sigpending", 127),
    ("rt_sigprocmask", 14),
    ("rt_sigqueueinfo", 129),
    ("rt_sigreturn", 15),
    ("rt_sigsuspend", 130),
    ("rt_sigtimedwait", 128),
    ("rt_tgsigqueueinfo", 297),
    ("sched_get_priority_max", 146),
    ("sched_get_priority_min", 147),
    ("sched_getaffinity", 204),
    ("sched_getattr", 315),
    ("sched_getparam", 143),
    ("sched_getscheduler", 145),
    ("sched_rr_get_interval", 148),
    ("sched_setaffinity", 203),
    ("sched_setattr", 314),
    ("sched_setparam", 142),
    ("sched_setscheduler", 144),
    ("sched_yield", 24),
    ("seccomp", 317),
    ("security", 185),
    ("select", 23),
    ("semctl", 66),
    ("semget", 64),
    ("semop", 65),
    ("semtimedop", 220),
    ("sendfile", 40),
    ("sendmmsg", 307),
    ("sendmsg", 46),
    ("sendto", 44),
    ("set_mempolicy", 238),
    ("set_mempolicy_home_node", 450),
    ("set_robust_list", 273),
    ("set_thread_area", 205),
    ("set_tid_address", 218),
    ("setdomainname", 171),
    ("setfsgid", 123),
    ("setfsuid", 122),
    ("setgid", 106),
    ("setgroups", 116),
    ("sethostname", 170),
    ("setitimer", 38),
    ("setns", 308),
    ("setpgid", 109),
    ("setpriority", 141),
    ("setregid", 114),
    ("setresgid", 119),
    ("setresuid", 117),
    ("setreuid", 113),
    ("setrlimit", 160),
    ("setsid", 112),
    ("setsockopt", 54),
    ("settimeofday", 164),
    ("setuid", 105),
    ("setxattr", 188),
    ("setxattrat", 463),
    ("shmat", 30),
    ("shmctl", 31),
    ("shmdt", 67),
    ("shmget", 29),
    ("shutdown", 48),
    ("sigaltstack", 131),
    ("signalfd", 282),
    ("signalfd4", 289),
    ("socket", 41),
    ("socketpair", 53),
    ("splice", 275),
    ("stat", 4),
    ("statfs", 137),
    ("statmount", 457),
    ("statx", 332),
    ("swapoff", 168),
    ("swapon", 167),
    ("symlink", 88),
    ("symlinkat", 266),
    ("sync", 162),
    ("sync_file_range", 277),
    ("syncfs", 306),
    ("sysfs", 139),
    ("sysinfo", 99),
    ("syslog", 103),
    ("tee", 276),
    ("tgkill", 234),
    ("time", 201),
    ("timer_create", 222),
    ("timer_delete", 226),
    ("timer_getoverrun", 225),
    ("timer_gettime", 224),
    ("timer_settime", 223),
    ("timerfd_create", 283),
    ("timerfd_gettime", 287),
    ("timerfd_settime", 286),
    ("times", 100),
    ("tkill", 200),
    ("truncate", 76),
    ("tuxcall", 184),
    ("umask", 95),
    ("umount2", 166),
    ("uname", 63),
    ("unlink", 87),
    ("unlinkat", 263),
    ("unshare", 272),
    ("uprobe", 336),
    ("uretprobe", 335),
    ("uselib", 134),
    ("userfaultfd", 323),
    ("ustat", 136),
    ("utime", 132),
    ("utimensat", 280),
    ("utimes", 235),
    ("vfork", 58),
    ("vhangup", 153),
    ("vmsplice", 278),
    ("vserver", 236),
    ("wait4", 61),
    ("waitid", 247),
    ("write", 1),
    ("writev", 20),
];

/// The highest number in the table.
pub(super) const LAST: u32 = 469;

/// Names that profiles use for calls of other machines (32-bit x86, Arm, s390, …).
/// Nobody can make them here, so a rule about one has nothing to do. Sorted.
pub(super) const FOREIGN: &[&str] = &[
    "_llseek",
    "_newselect",
    "arm_fadvise64_64",
    "arm_sync_file_range",
    "bdflush",
    "break",
    "breakpoint",
    "cacheflush",
    "chown32",
    "clock_adjtime64",
    "clock_getres_time64",
    "clock_gettime64",
    "clock_nanosleep_time64",
    "clock_settime64",
    "fadvise64_64",
    "fchown32",
    "fcntl64",
    "fstat64",
    "fstatat64",
    "fstatfs64",
    "ftime",
    "ftruncate64",
    "futex_time64",
    "getegid32",
    "geteuid32",
    "getgid32",
    "getgroups32",
    "getresgid32",
    "getresuid32",
    "getuid32",
    "gtty",
    "idle",
    "io_pgetevents_time64",
    "ipc",
    "lchown32",
    "lock",
    "lstat64",
    "mmap2",
    "mpx",
    "mq_timedreceive_time64",
    "mq_timedsend_time64",
    "multiplexer",
    "nice",
    "oldfstat",
    "oldlstat",
    "oldolduname",
    "oldstat",
    "olduname",
    "pciconfig_iobase",
    "pciconfig_read",
    "pciconfig_write",
    "ppoll_time64",
    "prof",
    "profil",
    "pselect6_time64",
    "readdir",
    "recv",
    "recvmmsg_time64",
    "riscv_flush_icache",
    "riscv_hwprobe",
    "rt_sigtimedwait_time64",
    "rtas",
    "s390_guarded_storage",
    "s390_pci_mmio_read",
    "s390_pci_mmio_write",
    "s390_runtime_instr",
    "s390_sthyi",
    "sched_rr_get_interval_time64",
    "semtimedop_time64",
    "send",
    "sendfile64",
    "set_tls",
    "setfsgid32",
    "setfsuid32",
    "setgid32",
    "setgroups32",
    "setregid32",
    "setresgid32",
    "setresuid32",
    "setreuid32",
    "setuid32",
    "sgetmask",
    "sigaction",
    "signal",
    "sigpending",
    "sigprocmask",
    "sigreturn",
    "sigsuspend",
    "socketcall",
    "spu_create",
    "spu_run",
    "ssetmask",
    "stat64",
    "statfs64",
    "stime",
    "stty",
    "subpage_prot",
    "swapcontext",
    "switch_endian",
    "sync_file_range2",
    "sys_debug_setcontext",
    "syscall",
    "timer_gettime64",
    "timer_settime64",
    "timerfd",
    "timerfd_gettime64",
    "timerfd_settime64",
    "truncate64",
    "ugetrlimit",
    "ulimit",
    "umount",
    "utimensat_time64",
    "vm86",
    "vm86old",
    "waitpid",
];

/// The number of a call of the native ABI.
pub(super) fn number(name: &str) -> Option<u32> {
    let index = SYSCALLS
        .binary_search_by_key(&name, |(name, _)| name)
        .ok()?;
    Some(SYSCALLS[index].1)
}

/// Whether it is a call of another machine.
pub(super) fn is_foreign(name: &str) -> bool {
    FOREIGN.binary_search(&name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables_are_sorted_without_doubles_or_overlap() {
        assert!(SYSCALLS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(FOREIGN.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(FOREIGN.iter().all(|name| number(name).is_none()));
        let mut numbers: Vec<u32> = SYSCALLS.iter().map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), SYSCALLS.len());
        assert_eq!(numbers.last(), Some(&LAST));
    }

    /// A macro, for the crate has constants only.
    macro_rules! table {
        ($($name:ident $constant:ident)*) => { &[$((stringify!($name), libc::$constant)),*] };
    }

    #[test]
    fn numbers_are_those_of_the_libc_crate() {
        for (name, expected) in LIBC {
            assert_eq!(number(name).map(i64::from), Some(*expected), "{name}");
        }
    }

    const LIBC: &[(&str, i64)] = table! {
        _sysctl SYS__sysctl accept SYS_accept accept4 SYS_accept4 access SYS_access
        acct SYS_acct add_key SYS_add_key adjtimex SYS_adjtimex afs_syscall SYS_afs_syscall
        alarm SYS_alarm arch_prctl SYS_arch_prctl bind SYS_bind bpf SYS_bpf brk SYS_brk
        capget SYS_capget capset SYS_capset chdir SYS_chdir chmod SYS_chmod chown SYS_chown
        chroot SYS_chroot clock_adjtime SYS_clock_adjtime clock_getres SYS_clock_getres
        clock_gettime SYS_clock_gettime clock_nanosleep SYS_clock_nanosleep
        clock_settime SYS_clock_settime clone SYS_clone clone3 SYS_clone3 close SYS_close
        close_range SYS_close_range connect SYS_connect copy_file_range SYS_copy_file_range
        creat SYS_creat delete_module SYS_delete_module dup SYS_dup dup2 SYS_dup2
        dup3 SYS_dup3 epoll_create SYS_epoll_create epoll_create1 SYS_epoll_create1
        epoll_ctl SYS_epoll_ctl epoll_ctl_old SYS_epoll_ctl_old epoll_pwait SYS_epoll_pwait
        epoll_pwait2 SYS_epoll_pwait2 epoll_wait SYS_epoll_wait
        epoll_wait_old SYS_epoll_wait_old eventfd SYS_eventfd eventfd2 SYS_eventfd2
        execve SYS_execve execveat SYS_execveat exit SYS_exit exit_group SYS_exit_group
        faccessat SYS_faccessat faccessat2 SYS_faccessat2 fadvise64 SYS_fadvise64
        fallocate SYS_fallocate fanotify_init SYS_fanotify_init
        fanotify_mark SYS_fanotify_mark fchdir SYS_fchdir fchmod SYS_fchmod
        fchmodat SYS_fchmodat fchmodat2 SYS_fchmodat2 fchown SYS_fchown fchownat SYS_fchownat
        fcntl SYS_fcntl fdatasync SYS_fdatasync fgetxattr SYS_fgetxattr
        finit_module SYS_finit_module flistxattr SYS_flistxattr flock SYS_flock fork SYS_fork
        fremovexattr SYS_fremovexattr fsconfig SYS_fsconfig fsetxattr SYS_fsetxattr
        fsmount SYS_fsmount fsopen SYS_fsopen fspick SYS_fspick fstat SYS_fstat
        fstatfs SYS_fstatfs fsync SYS_fsync ftruncate SYS_ftruncate futex SYS_futex
        futex_waitv SYS_futex_waitv futimesat SYS_futimesat get_mempolicy SYS_get_mempolicy
        get_robust_list SYS_get_robust_list get_thread_area SYS_get_thread_area
        getcpu SYS_getcpu getcwd SYS_getcwd getdents SYS_getdents getdents64 SYS_getdents64
        getegid SYS_getegid geteuid SYS_geteuid getgid SYS_getgid getgroups SYS_getgroups
        getitimer SYS_getitimer getpeername SYS_getpeername getpgid SYS_getpgid
        getpgrp SYS_getpgrp getpid SYS_getpid getpmsg SYS_getpmsg getppid SYS_getppid
        getpriority SYS_getpriority getrandom SYS_getrandom getresgid SYS_getresgid
        getresuid SYS_getresuid getrlimit SYS_getrlimit getrusage SYS_getrusage
        getsid SYS_getsid getsockname SYS_getsockname getsockopt SYS_getsockopt
        gettid SYS_gettid gettimeofday SYS_gettimeofday getuid SYS_getuid
        getxattr SYS_getxattr init_module SYS_init_module
        inotify_add_watch SYS_inotify_add_watch inotify_init SYS_inotify_init
        inotify_init1 SYS_inotify_init1 inotify_rm_watch SYS_inotify_rm_watch
        io_cancel SYS_io_cancel io_destroy SYS_io_destroy io_getevents SYS_io_getevents
        io_setup SYS_io_setup io_submit SYS_io_submit io_uring_enter SYS_io_uring_enter
        io_uring_register SYS_io_uring_register io_uring_setup SYS_io_uring_setup
        ioctl SYS_ioctl ioperm SYS_ioperm iopl SYS_iopl ioprio_get SYS_ioprio_get
        ioprio_set SYS_ioprio_set kcmp SYS_kcmp kexec_file_load SYS_kexec_file_load
        kexec_load SYS_kexec_load keyctl SYS_keyctl kill SYS_kill
        landlock_add_rule SYS_landlock_add_rule
        landlock_create_ruleset SYS_landlock_create_ruleset
        landlock_restrict_self SYS_landlock_restrict_self lchown SYS_lchown
        lgetxattr SYS_lgetxattr link SYS_link linkat SYS_linkat listen SYS_listen
        listxattr SYS_listxattr llistxattr SYS_llistxattr lookup_dcookie SYS_lookup_dcookie
        lremovexattr SYS_lremovexattr lseek SYS_lseek lsetxattr SYS_lsetxattr lstat SYS_lstat
        madvise SYS_madvise mbind SYS_mbind membarrier SYS_membarrier
        memfd_create SYS_memfd_create memfd_secret SYS_memfd_secret
        migrate_pages SYS_migrate_pages mincore SYS_mincore mkdir SYS_mkdir
        mkdirat SYS_mkdirat mknod SYS_mknod mknodat SYS_mknodat mlock SYS_mlock
        mlock2 SYS_mlock2 mlockall SYS_mlockall mmap SYS_mmap modify_ldt SYS_modify_ldt
        mount SYS_mount mount_setattr SYS_mount_setattr move_mount SYS_move_mount
        move_pages SYS_move_pages mprotect SYS_mprotect mq_getsetattr SYS_mq_getsetattr
        mq_notify SYS_mq_notify mq_open SYS_mq_open mq_timedreceive SYS_mq_timedreceive
        mq_timedsend SYS_mq_timedsend mq_unlink SYS_mq_unlink mremap SYS_mremap
        mseal SYS_mseal msgctl SYS_msgctl msgget SYS_msgget msgrcv SYS_msgrcv
        msgsnd SYS_msgsnd msync SYS_msync munlock SYS_munlock munlockall SYS_munlockall
        munmap SYS_munmap name_to_handle_at SYS_name_to_handle_at nanosleep SYS_nanosleep
        newfstatat SYS_newfstatat nfsservctl SYS_nfsservctl open SYS_open
        open_by_handle_at SYS_open_by_handle_at open_tree SYS_open_tree openat SYS_openat
        openat2 SYS_openat2 pause SYS_pause perf_event_open SYS_perf_event_open
        personality SYS_personality pidfd_getfd SYS_pidfd_getfd pidfd_open SYS_pidfd_open
        pidfd_send_signal SYS_pidfd_send_signal pipe SYS_pipe pipe2 SYS_pipe2
        pivot_root SYS_pivot_root pkey_alloc SYS_pkey_alloc pkey_free SYS_pkey_free
        pkey_mprotect SYS_pkey_mprotect poll SYS_poll ppoll SYS_ppoll prctl SYS_prctl
        pread64 SYS_pread64 preadv SYS_preadv preadv2 SYS_preadv2 prlimit64 SYS_prlimit64
        process_madvise SYS_process_madvise process_mrelease SYS_process_mrelease
        process_vm_readv SYS_process_vm_readv process_vm_writev SYS_process_vm_writev
        pselect6 SYS_pselect6 ptrace SYS_ptrace putpmsg SYS_putpmsg pwrite64 SYS_pwrite64
        pwritev SYS_pwritev pwritev2 SYS_pwritev2 quotactl SYS_quotactl
        quotactl_fd SYS_quotactl_fd read SYS_read readahead SYS_readahead
        readlink SYS_readlink readlinkat SYS_readlinkat readv SYS_readv reboot SYS_reboot
        recvfrom SYS_recvfrom recvmmsg SYS_recvmmsg recvmsg SYS_recvmsg
        remap_file_pages SYS_remap_file_pages removexattr SYS_removexattr rename SYS_rename
        renameat SYS_renameat renameat2 SYS_renameat2 request_key SYS_request_key
        restart_syscall SYS_restart_syscall rmdir SYS_rmdir rseq SYS_rseq
        rt_sigaction SYS_rt_sigaction rt_sigpending SYS_rt_sigpending
        rt_sigprocmask SYS_rt_sigprocmask rt_sigqueueinfo SYS_rt_sigqueueinfo
        rt_sigreturn SYS_rt_sigreturn rt_sigsuspend SYS_rt_sigsuspend
        rt_sigtimedwait SYS_rt_sigtimedwait rt_tgsigqueueinfo SYS_rt_tgsigqueueinfo
        sched_get_priority_max SYS_sched_get_priority_max
        sched_get_priority_min SYS_sched_get_priority_min
        sched_getaffinity SYS_sched_getaffinity sched_getattr SYS_sched_getattr
        sched_getparam SYS_sched_getparam sched_getscheduler SYS_sched_getscheduler
        sched_rr_get_interval SYS_sched_rr_get_interval
        sched_setaffinity SYS_sched_setaffinity sched_setattr SYS_sched_setattr
        sched_setparam SYS_sched_setparam sched_setscheduler SYS_sched_setscheduler
        sched_yield SYS_sched_yield seccomp SYS_seccomp security SYS_security
        select SYS_select semctl SYS_semctl semget SYS_semget semop SYS_semop
        semtimedop SYS_semtimedop sendfile SYS_sendfile sendmmsg SYS_sendmmsg
        sendmsg SYS_sendmsg sendto SYS_sendto set_mempolicy SYS_set_mempolicy
        set_mempolicy_home_node SYS_set_mempolicy_home_node
        set_robust_list SYS_set_robust_list set_thread_area SYS_set_thread_area
        set_tid_address SYS_set_tid_address setdomainname SYS_setdomainname
        setfsgid SYS_setfsgid setfsuid SYS_setfsuid setgid SYS_setgid setgroups SYS_setgroups
        sethostname SYS_sethostname setitimer SYS_setitimer setns SYS_setns
        setpgid SYS_setpgid setpriority SYS_setpriority setregid SYS_setregid
        setresgid SYS_setresgid setresuid SYS_setresuid setreuid SYS_setreuid
        setrlimit SYS_setrlimit setsid SYS_setsid setsockopt SYS_setsockopt
        settimeofday SYS_settimeofday setuid SYS_setuid setxattr SYS_setxattr shmat SYS_shmat
        shmctl SYS_shmctl shmdt SYS_shmdt shmget SYS_shmget shutdown SYS_shutdown
        sigaltstack SYS_sigaltstack signalfd SYS_signalfd signalfd4 SYS_signalfd4
        socket SYS_socket socketpair SYS_socketpair splice SYS_splice stat SYS_stat
        statfs SYS_statfs statx SYS_statx swapoff SYS_swapoff swapon SYS_swapon
        symlink SYS_symlink symlinkat SYS_symlinkat sync SYS_sync
        sync_file_range SYS_sync_file_range syncfs SYS_syncfs sysfs SYS_sysfs
        sysinfo SYS_sysinfo syslog SYS_syslog tee SYS_tee tgkill SYS_tgkill time SYS_time
        timer_create SYS_timer_create timer_delete SYS_timer_delete
        timer_getoverrun SYS_timer_getoverrun timer_gettime SYS_timer_gettime
        timer_settime SYS_timer_settime timerfd_create SYS_timerfd_create
        timerfd_gettime SYS_timerfd_gettime timerfd_settime SYS_timerfd_settime
        times SYS_times tkill SYS_tkill truncate SYS_truncate tuxcall SYS_tuxcall
        umask SYS_umask umount2 SYS_umount2 uname SYS_uname unlink SYS_unlink
        unlinkat SYS_unlinkat unshare SYS_unshare uselib SYS_uselib
        userfaultfd SYS_userfaultfd ustat SYS_ustat utime SYS_utime utimensat SYS_utimensat
        utimes SYS_utimes vfork SYS_vfork vhangup SYS_vhangup vmsplice SYS_vmsplice
        vserver SYS_vserver wait4 SYS_wait4 waitid SYS_waitid write SYS_write
        writev SYS_writev
    };
}
