//! Signals by name or number, as signal(7) has them on Linux.

use dyno_api::error::{ApiError, ErrorKind};

const NAMES: [(&str, u8); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// The highest real-time signal.
const MAX: u8 = 64;

/// SIGKILL.
pub const KILL: u8 = 9;

/// SIGTERM.
pub const TERM: u8 = 15;

/// `KILL` for 9; the number where there is no name.
pub fn name(number: u8) -> String {
    let named = NAMES.iter().find(|(_, known)| *known == number);
    named.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// The number of `TERM`, `SIGTERM`, `15`, `RTMIN+3`.
///
/// # Errors
/// Invalid, for anything else.
pub fn parse(text: &str) -> Result<u8, ApiError> {
    let refused = || {
        ApiError::new(ErrorKind::Invalid, format!("{text:?} is not a signal"))
            .hint("use a name such as TERM or SIGTERM, or a number from 1 to 64")
    };
    if let Ok(number) = text.parse::<u8>() {
        return if (1..=MAX).contains(&number) {
            Ok(number)
        } else {
            Err(refused())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset: u8 = match offset {
            "" => 0,
            offset => offset
                .strip_prefix('+')
                .and_then(|o| o.parse().ok())
                .ok_or_else(refused)?,
        };
        return 34_u8
            .checked_add(offset)
            .filter(|number| *number <= MAX)
            .ok_or_else(refused);
    }
    NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
        .ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_a_name_or_a_number() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigint", 2),
            ("9", 9),
            ("RTMIN+3", 37),
            ("SIGRTMIN", 34),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in [
            "",
            "0",
            "65",
            "SIG",
            "TERMINATE",
            "RTMIN+31",
            "RTMIN-1",
            "-9",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
