//! Makes the system calls that it is told, from inside a container: one
//! `name=call;call…` per word, a call being `number,argument…`. An argument is a
//! number, `@` and a string, `#` and bytes in hexadecimal, or `%N`: what the Nth
//! call of the word has answered. Prints `name errno` for each word: 0 where all
//! its calls were answered, else the error of the first that was not.
#![expect(unsafe_code, reason = "a probe calls what no safe function would")]
#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a test program says what it saw, and fails loudly"
)]

use nix::libc::{c_long, syscall};

fn main() {
    for word in std::env::args().skip(1) {
        let (name, calls) = word.split_once('=').expect("name=call");
        println!("{name} {}", chain(calls));
    }
}

/// Makes the calls in turn, until one fails; its error number, or 0.
fn chain(calls: &str) -> i32 {
    let mut answers: Vec<c_long> = Vec::new();
    for call in calls.split(';') {
        let mut bytes = Vec::new();
        let mut numbers = [0; 7];
        for (slot, argument) in numbers.iter_mut().zip(call.split(',')) {
            *slot = match argument.split_at_checked(1) {
                Some(("@", text)) => keep(&mut bytes, [text.as_bytes(), b"\0"].concat()),
                Some(("#", digits)) => keep(&mut bytes, decoded(digits)),
                Some(("%", nth)) => answers[nth.parse::<usize>().expect("a number") - 1],
                _ => argument.parse().expect("a number"),
            };
        }
        let [call, a, b, c, d, e, f] = numbers;
        // SAFETY: pointers among the arguments are of bytes that live on and
        // that no call of the tables writes to; all else is the kernel's to refuse.
        let answer = unsafe { syscall(call, a, b, c, d, e, f) };
        if answer == -1 {
            let error = std::io::Error::last_os_error();
            return error.raw_os_error().unwrap_or(-1);
        }
        answers.push(answer);
    }
    0
}

/// Where the bytes lie from now on.
fn keep(all: &mut Vec<Vec<u8>>, bytes: Vec<u8>) -> c_long {
    all.push(bytes);
    all.last().expect("just pushed").as_ptr() as c_long
}

fn decoded(digits: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    (0..digits.len()).step_by(2).map(digit).collect()
}
