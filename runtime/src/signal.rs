//! Signals by name or number, `signal(7)`.

use rustix::process::Signal;

use crate::sys;

/// A string that names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a signal: give a name such as TERM or RTMIN+3, or a number from 1 to 64")]
pub struct UnknownSignal(pub String);

const NAMES: [(&str, i32); 31] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// `SIGRTMIN` as everybody but the C library itself counts: it keeps 32 and 33.
const RTMIN: u8 = 34;
/// `SIGRTMAX`, the last of all.
const RTMAX: u8 = 64;

/// The number of a signal given as `TERM`, `SIGTERM`, `term`, `15` or `RTMIN+3`.
///
/// # Errors
/// [`UnknownSignal`].
pub fn number(text: &str) -> Result<u8, UnknownSignal> {
    let unknown = || UnknownSignal(text.to_owned());
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = text.parse().ok();
        return number
            .filter(|number| (1..=RTMAX).contains(number))
            .ok_or_else(unknown);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let found = NAMES.iter().find(|(known, _)| *known == name);
    found
        .and_then(|(_, number)| u8::try_from(*number).ok())
        .or_else(|| real_time(name))
        .ok_or_else(unknown)
}

/// `RTMIN`, `RTMIN+3`, `RTMAX-1`, `RTMAX`: relative to one end, within both.
fn real_time(name: &str) -> Option<u8> {
    let steps = |rest: &str, sign| match rest {
        "" => Some(0),
        rest => {
            let digits = rest.strip_prefix(sign)?;
            let strict = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<u8>().ok().filter(|_| strict)
        }
    };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => RTMIN.checked_add(steps(rest, '+')?),
        (_, Some(rest)) => RTMAX.checked_sub(steps(rest, '-')?),
        _ => None,
    };
    number.filter(|number| (RTMIN..=RTMAX).contains(number))
}

/// The signal of that name or number.
///
/// # Errors
/// [`UnknownSignal`].
pub fn parse(text: &str) -> Result<Signal, UnknownSignal> {
    sys::signal::signal(number(text)?).ok_or_else(|| UnknownSignal(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_many_spellings() {
        for text in ["TERM", "SIGTERM", "sigterm", "15"] {
            assert_eq!(number(text), Ok(15), "{text}");
        }
    }

    #[test]
    fn real_time_signals_are_counted_from_both_ends() {
        for (text, expected) in [
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmin+30", 64),
            ("RTMAX", 64),
            ("SIGRTMAX-30", 34),
            ("37", 37),
        ] {
            assert_eq!(number(text), Ok(expected), "{text}");
            assert_eq!(parse(text).map(Signal::as_raw), Ok(i32::from(expected)));
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in [
            "", "0", "65", "-1", "+9", "SIGSIG", "TERM ", "RTMIN+31", "RTMIN-1", "RTMIN+",
            "RTMIN++1", "RTMAX+1", "RTMAX-31", "RTMIN3",
        ] {
            assert_eq!(number(text), Err(UnknownSignal(text.to_owned())));
        }
    }
}
