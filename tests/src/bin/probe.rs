//! Makes the system calls that it is told, from inside a container: one
//! `name=number,argument…` per word, an argument beginning with `@` being a
//! string. Prints `name errno` for each, 0 where the call was answered.
#![expect(unsafe_code, reason = "a probe calls what no safe function would")]
#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a test program says what it saw, and fails loudly"
)]

use std::ffi::CString;

use nix::libc::{c_long, syscall};

fn main() {
    for word in std::env::args().skip(1) {
        let (name, call) = word.split_once('=').expect("name=call");
        let mut strings = Vec::new();
        let mut numbers = [0; 7];
        for (slot, argument) in numbers.iter_mut().zip(call.split(',')) {
            *slot = match argument.strip_prefix('@') {
                Some(text) => {
                    strings.push(CString::new(text).expect("no NUL"));
                    let last = strings.last().expect("just pushed");
                    last.as_ptr() as c_long
                }
                None => argument.parse::<c_long>().expect("a number"),
            };
        }
        let [call, a, b, c, d, e, f] = numbers;
        // SAFETY: pointers among the arguments are of strings that live on and
        // that no call of the tables writes to; all else is the kernel's to refuse.
        let answer = unsafe { syscall(call, a, b, c, d, e, f) };
        let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        println!("{name} {}", if answer == -1 { error } else { 0 });
    }
}
