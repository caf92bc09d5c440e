//! What the C library calls when it has begun.

use std::ffi::{c_char, c_int};
use std::io::{self, Write};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, fcntl_getfd};

/// The `main` of `dyno-runtime`, under the name that `build.rs` gives it.
///
/// Rust's own does more: it asks for the bounds of the stack, by reading
/// `/proc/self/maps`, to have a signal handler tell when it overflows. That is a
/// fiftieth of a start, and 35 kB of the C library's scanning in memory. An overflow
/// of ours ends in the guard page all the same, by SIGSEGV and without words.
///
/// # Safety
/// The symbol is defined nowhere else.
#[unsafe(no_mangle)]
extern "C" fn dyno_runtime_main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    if begin().is_err() {
        return 1;
    }
    let code = crate::command::main();
    // The last line may have no end.
    match io::stdout().flush() {
        Ok(()) => code.into(),
        Err(_) => 1,
    }
}

/// What Rust's programs rely on: the first three descriptors are open, lest a file
/// of ours takes the place of one, and a broken pipe is an error like others.
fn begin() -> io::Result<()> {
    let streams = [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ];
    for stream in streams {
        if fcntl_getfd(stream) == Err(Errno::BADF) {
            // It gets the lowest number that is free, and keeps it.
            let null = openat(CWD, c"/dev/null", OFlags::RDWR, Mode::empty())?;
            std::mem::forget(null);
        }
    }
    // SAFETY: no handler is installed.
    match unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
