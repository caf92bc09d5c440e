//! The promise that a child does not allocate, kept or it dies.
//!
//! In builds with debug assertions, those that are tested, every program that
//! links this crate gets this allocator. It is the system's, but ends a process
//! that uses it between `clone3(2)` and `execve(2)`: in another build such a
//! process could wait for a lock for ever.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(debug_assertions)]
#[global_allocator]
static ALLOCATOR: Watchful = Watchful;

/// Each process has its own copy; `true` in children only.
static IN_CHILD: AtomicBool = AtomicBool::new(false);

/// From now on this process, a child, must not allocate.
pub(super) fn forbid() {
    IN_CHILD.store(true, Ordering::Relaxed);
}

/// Gives the kernel back what was freed: who has begun and will now wait needs
/// little of what beginning took.
pub(crate) fn give_back() {
    // SAFETY: no pointers are involved; the allocator locks itself.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Ends a child that allocates; its parent hears that it died.
#[cfg_attr(not(debug_assertions), expect(dead_code, reason = "for tests"))]
fn check() {
    if IN_CHILD.load(Ordering::Relaxed) {
        // A message would allocate; a core dump has the backtrace.
        std::process::abort();
    }
}

#[cfg_attr(not(debug_assertions), expect(dead_code, reason = "for tests"))]
struct Watchful;

// SAFETY: every call is the system allocator's with the same arguments, or does
// not return.
unsafe impl GlobalAlloc for Watchful {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check();
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        check();
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check();
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check();
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    /// Set for the process that shall die.
    const VICTIM: &str = "DYNO_TEST_ALLOCATES";

    #[test]
    fn who_allocates_where_it_is_forbidden_is_ended() {
        if std::env::var_os(VICTIM).is_some() {
            forbid();
            std::hint::black_box(vec![1_u8]);
            return;
        }
        let test = "sys::alloc::tests::who_allocates_where_it_is_forbidden_is_ended";
        let mut victim = Command::new(std::env::current_exe().unwrap());
        let output = victim.args(["--exact", test]).env(VICTIM, "1").output();
        let status = output.unwrap().status;
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{status}");
    }
}
