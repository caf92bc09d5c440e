//! `clone3(2)`, `execveat(2)`, `close_range(2)`, signals and keyrings.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use rustix::process::Pid;

use super::{checked, done};

/// `CLONE_INTO_CGROUP` of `<linux/sched.h>`; libc's constant overflows to 0.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Leaves the process without running a destructor or an exit handler.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any value and does not return.
    unsafe { libc::_exit(code) }
}

/// Ends the child even if `body` unwinds: two processes must never go on in
/// the parent's frames.
struct NeverReturn;

impl Drop for NeverReturn {
    fn drop(&mut self) {
        exit_now(255);
    }
}

/// Clones this process with `flags` (`CLONE_NEW*`, `CLONE_PARENT`), places the
/// child in `cgroup` where one is given, and runs `body` in it.
///
/// The child gets a copy of the memory: `body` must not allocate, lock, log or
/// panic, and ends by executing another program or exiting.
///
/// # Errors
/// `EDEADLK` when this process has more than one thread: a copied lock could
/// then never be released. Otherwise those of `clone3(2)`.
pub(crate) fn clone3(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    body: impl FnOnce() -> Infallible,
) -> io::Result<Pid> {
    // A folder has two links and one more for each folder in it. A child that
    // clones on behalf of its parent was counted when it was cloned itself.
    let on_behalf = flags & (libc::CLONE_PARENT as u64) != 0;
    if !on_behalf && std::fs::metadata("/proc/self/task")?.nlink() != 3 {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    let into_cgroup = if cgroup.is_some() {
        CLONE_INTO_CGROUP
    } else {
        0
    };
    let args = libc::clone_args {
        flags: flags | into_cgroup,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        // With CLONE_PARENT the child inherits the signal and must not name one.
        exit_signal: if on_behalf { 0 } else { libc::SIGCHLD as u64 },
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs())),
    };
    // SAFETY: no CLONE_VM and no new stack, so this behaves as fork(2); the
    // process has one thread (checked above), so no lock is held elsewhere.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const args,
            size_of::<libc::clone_args>(),
        )
    };
    let pid = checked(result)?;
    if pid == 0 {
        super::alloc::forbid();
        let _guard = NeverReturn;
        #[expect(unreachable_code, reason = "it is: an `Infallible` cannot be made")]
        match body() {}
    }
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::from_raw_os_error(libc::ECHILD))
}

/// As fork(2), and returns once the child, which runs `body`, has executed another program
/// or ended. By clone(2), which a filter permits that cannot look into what clone3(2) is
/// given.
///
/// The child gets a copy of the memory: `body` must not allocate, lock, log or panic, and
/// ends by executing another program or exiting. This process must have one thread.
///
/// # Errors
/// Those of `clone(2)`.
pub(crate) fn fork_until_exec(body: impl FnOnce() -> Infallible) -> io::Result<Pid> {
    let flags = libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: no CLONE_VM and no new stack, so this behaves as fork(2), of a process with
    // one thread; the order of the arguments differs between architectures where they
    // are zero.
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    let pid = checked(result)?;
    if pid == 0 {
        super::alloc::forbid();
        let _guard = NeverReturn;
        #[expect(unreachable_code, reason = "it is: an `Infallible` cannot be made")]
        match body() {}
    }
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::from_raw_os_error(libc::ECHILD))
}

/// The descriptor of this number, if it is open and none of the first three: one that
/// whoever has executed us has left for us. To be called once for each.
pub(crate) fn inherited(number: i32) -> Option<OwnedFd> {
    if number < 3 {
        return None;
    }
    // SAFETY: it is looked at only; if it is not open, the kernel says so.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_getfd(borrowed).ok()?;
    // SAFETY: it is open, was so before this program began, and nobody else in it knows.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Gives up the controlling terminal that standard input is, ioctl_tty(2). The kernel
/// sends SIGHUP and SIGCONT to whoever leads its session, and does so.
pub(crate) fn leave_terminal() -> rustix::io::Result<()> {
    // SAFETY: the request takes no argument.
    done(unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCNOTTY) }.into())
}

/// NULL-terminated strings as `execve(2)` takes them, made beforehand.
#[derive(Debug)]
pub(crate) struct CStringArray {
    pointers: Box<[*const c_char]>,
    strings: Box<[CString]>,
}

impl CStringArray {
    /// Takes the strings and lays out the pointers to them.
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let strings = strings.into_boxed_slice();
        let ends = std::iter::once(std::ptr::null());
        let pointers = strings
            .iter()
            .map(|string| string.as_ptr())
            .chain(ends)
            .collect();
        Self { pointers, strings }
    }

    /// The strings themselves.
    pub(crate) fn strings(&self) -> &[CString] {
        &self.strings
    }
}

/// Shows these as the arguments of this process, proc_pid_cmdline(5); what they
/// were is overwritten and must have been as long.
///
/// # Errors
/// ENAMETOOLONG where there is no room, or what reading proc_pid_stat(5) answers.
pub(crate) fn show_arguments(arguments: &[&OsStr]) -> io::Result<()> {
    const ARG_START: usize = 48 - 3; // counted from the state, the third field
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
    let mut bounds = fields.split_whitespace().skip(ARG_START);
    let mut bound = || bounds.next()?.parse::<usize>().ok().filter(|at| *at != 0);
    let (Some(start), Some(end)) = (bound(), bound()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let mut text = arguments.iter().fold(Vec::new(), |text, argument| {
        [&text[..], argument.as_bytes(), b"\0"].concat()
    });
    let room = end.saturating_sub(start);
    if text.len() > room {
        return Err(rustix::io::Errno::NAMETOOLONG.into());
    }
    text.resize(room, 0);
    let place = std::ptr::with_exposed_provenance_mut::<u8>(start);
    // SAFETY: the kernel laid the arguments there, `room` bytes of the writable
    // stack. The standard library reads them when it is asked for arguments and
    // keeps no reference; this process has one thread.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), place, room) };
    Ok(())
}

/// Replaces this process by the program at `path`; returns only on failure.
pub(crate) fn execve(path: &CStr, argv: &CStringArray, envp: &CStringArray) -> rustix::io::Errno {
    // SAFETY: `path` is NUL-terminated; both arrays end with NULL and point
    // to strings that the arrays own.
    let result = unsafe {
        libc::execve(
            path.as_ptr(),
            argv.pointers.as_ptr(),
            envp.pointers.as_ptr(),
        )
    };
    failure(libc::c_long::from(result))
}

/// Replaces this process by the program that `fd` is open on; returns only on failure.
pub(crate) fn fexecve(
    fd: BorrowedFd<'_>,
    argv: &CStringArray,
    envp: &CStringArray,
) -> rustix::io::Errno {
    // SAFETY: as for `execve`; the empty path with AT_EMPTY_PATH names `fd`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            envp.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    failure(result)
}

fn failure(result: libc::c_long) -> rustix::io::Errno {
    done(result).err().unwrap_or(rustix::io::Errno::INVAL)
}

/// Marks every descriptor from `first` on close-on-exec.
pub(crate) fn close_range_cloexec(first: u32) -> rustix::io::Result<()> {
    // SAFETY: takes numbers only; with CLOEXEC nothing is closed yet.
    done(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    })
}

/// Gives every signal its default action and unblocks all of them: both are
/// inherited over `execve(2)` (the Rust start-up code ignores SIGPIPE).
///
/// By the kernel's own calls: libc keeps signals 32 and 33 for itself, and
/// would leave them ignored as they were inherited.
pub(crate) fn reset_signals() -> rustix::io::Result<()> {
    // `struct sigaction` of the kernel: handler SIG_DFL, no flags, nothing
    // masked; on no architecture is it larger.
    let default = [0_u64; 4];
    let empty = 0_u64;
    for signal in (1..=64).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        // SAFETY: `default` is alive during the call and holds no handler that
        // could be called; nothing is written back; a signal set is 8 bytes.
        done(unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &raw const default,
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        })?;
    }
    // SAFETY: a kernel signal set is 8 bytes and `empty` is alive during the call.
    done(unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const empty,
            std::ptr::null_mut::<u64>(),
            size_of::<u64>(),
        )
    })
}

/// Joins a new session keyring, so that the host's is out of reach
/// (`keyctl(2)`, KEYCTL_JOIN_SESSION_KEYRING).
pub(crate) fn join_new_session_keyring() -> rustix::io::Result<()> {
    // SAFETY: a NULL name asks for a fresh anonymous keyring.
    done(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<c_char>(),
        )
    })
}

/// Makes new namespaces for this single-threaded process (`unshare(2)`).
pub(crate) fn unshare(flags: rustix::thread::UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: the crate's processes are single-threaded, so no other thread
    // can hold descriptors of a table that this call would split off.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Whether the working folder lies below the root (`getcwd(2)` otherwise
/// answers with a path that begins with "(unreachable)").
pub(crate) fn working_directory_is_reachable() -> rustix::io::Result<bool> {
    let mut buffer = [0_u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes at most the length given into the buffer.
    done(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    Ok(buffer[0] == b'/')
}

/// Closes the copy that a child got of its parent's descriptor.
pub(crate) fn close_copy(parents: BorrowedFd<'_>) {
    // SAFETY: for children only: the owner of the descriptor lives in the
    // parent's memory, and its copy in ours is never used or dropped, because
    // the child ends by execve or _exit.
    unsafe { libc::close(parents.as_raw_fd()) };
}

/// Closes every descriptor from `first` on but these.
pub(crate) fn close_all_but<const N: usize>(
    mut first: u32,
    keep: [BorrowedFd<'_>; N],
) -> rustix::io::Result<()> {
    let mut keep = keep.map(|fd| fd.as_raw_fd().unsigned_abs());
    keep.sort_unstable();
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> rustix::io::Result<()> {
    // SAFETY: for children only, as `close_copy`: what is closed has its owner
    // in the parent's memory and is never used here again.
    done(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
}
