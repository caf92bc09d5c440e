//! P8: the filter of the jail in which a stranger's archive is unpacked.
//!
//! What a static Rust program needs to turn a stream into a tree of files, and
//! nothing else: no sockets, no processes beside its own threads, no mounts, no
//! signals to others.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompOperator};

use super::profile::{allow, argument, deny, masked, with_rules};

/// The start: the jail itself executes the program by its descriptor.
const START: &str = "
    execve execveat brk arch_prctl set_tid_address set_robust_list rseq prlimit64
    getrandom uname readlink readlinkat
";

/// The allocator, threads of a decompressor, the runtime library.
const RUNTIME: &str = "
    mmap munmap mremap mprotect madvise futex sched_yield sched_getaffinity
    sched_getparam sched_getscheduler getpid gettid getuid geteuid getgid getegid
    clock_gettime clock_getres clock_nanosleep nanosleep sysinfo exit exit_group
    restart_syscall
";

/// A panic or abort is a signal to itself; the default handlers of the library.
const SIGNALS: &str = "
    rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack tgkill
";

/// The stream in, the messages out, the content of files.
const STREAMS: &str = "
    read readv pread64 preadv write writev pwrite64 pwritev lseek close close_range
    dup dup2 dup3 fcntl poll ppoll pipe2 copy_file_range sendfile splice fallocate
    ftruncate fadvise64 fsync fdatasync syncfs flock
";

/// Making and looking at the tree. Nodes are made for whiteouts; what kinds may be
/// made, the user namespace decides.
const TREE: &str = "
    open openat openat2 mkdir mkdirat mknodat symlinkat linkat unlink unlinkat rmdir
    renameat renameat2 stat lstat fstat newfstatat statx statfs fstatfs access
    faccessat faccessat2 fchmod fchmodat fchmodat2 fchown fchownat lchown utimensat
    umask getcwd chdir fchdir getdents64 getxattr lgetxattr fgetxattr setxattr
    lsetxattr fsetxattr listxattr llistxattr flistxattr removexattr lremovexattr
    fremovexattr
";

/// `CLONE_VM | CLONE_THREAD`, which only a thread of this process has together, and
/// every `CLONE_NEW*`, of which it must have none.
const THREAD: u64 = 0x0001_0100;
const THREAD_OR_NAMESPACE: u64 = THREAD | 0x7e02_0000;

/// `PR_SET_NAME`, and `PR_SET_VMA` by which allocators label their memory.
const PRCTL: [u64; 2] = [15, 0x5356_4d41];

/// The profile of `dyno-runtime jail`.
#[must_use]
pub fn jail_profile() -> LinuxSeccomp {
    let groups = [START, RUNTIME, SIGNALS, STREAMS, TREE];
    let names: Vec<&str> = groups.into_iter().flat_map(str::split_whitespace).collect();
    let thread = masked(0, THREAD_OR_NAMESPACE, THREAD);
    let mut rules = vec![allow(&names, Vec::new()), allow(&["clone"], vec![thread])];
    rules.push(deny("clone3", libc::ENOSYS, Vec::new()));
    for option in PRCTL {
        let equal = argument(0, LinuxSeccompOperator::ScmpCmpEq, option);
        rules.push(allow(&["prctl"], vec![equal]));
    }
    with_rules(rules)
}
