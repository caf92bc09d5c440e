//! Spans of time and points in the past: `10m`, `1h30m`, `500ms`, RFC 3339.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Why a text is not a duration or a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DurationError {
    #[error("not a duration; accepted are seconds or ms, s, m, h, d, such as 10s or 1h30m")]
    Syntax,
    #[error("not a time; accepted are a duration ago (10m) or RFC 3339 (2026-11-22T15:00:00Z)")]
    Since,
    #[error("longer than 100 years")]
    TooLong,
}

const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A duration: numbers with units, largest first or not; a bare number is seconds.
pub(crate) fn parse(text: &str) -> Result<Duration, DurationError> {
    if let Ok(seconds) = text.parse::<u32>() {
        return within(Duration::from_secs(seconds.into()));
    }
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .ok_or(DurationError::Syntax)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let number: u32 = number
            .parse()
            .map_err(|_not_a_number| DurationError::Syntax)?;
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(24 * 3600),
            _ => return Err(DurationError::Syntax),
        };
        total = total.saturating_add(unit.saturating_mul(number));
        rest = tail;
    }
    if text.is_empty() {
        Err(DurationError::Syntax)
    } else {
        within(total)
    }
}

fn within(duration: Duration) -> Result<Duration, DurationError> {
    if duration > LONGEST {
        Err(DurationError::TooLong)
    } else {
        Ok(duration)
    }
}

/// Whole milliseconds, as the API counts.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A point in the past, before the present is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// So long ago.
    Ago(Duration),
    /// Then.
    At(Timestamp),
}

impl Since {
    /// The point in time, seen from `now`.
    pub(crate) fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(ago) => SignedDuration::try_from(ago)
                .ok()
                .and_then(|ago| now.checked_sub(ago).ok())
                .unwrap_or(Timestamp::MIN),
        }
    }
}

/// A duration ago, or a time.
pub(crate) fn parse_since(text: &str) -> Result<Since, DurationError> {
    match text.parse::<Timestamp>() {
        Ok(time) => Ok(Since::At(time)),
        Err(_) => match parse(text) {
            Ok(ago) => Ok(Since::Ago(ago)),
            Err(DurationError::Syntax) => Err(DurationError::Since),
            Err(other) => Err(other),
        },
    }
}

/// The time between two points as people read it, its largest unit only: `3m`, `2h`, `5d`.
pub(crate) fn human_age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_add_up(hours in 0_u32..900, minutes in 0_u32..900, millis in 0_u32..9000) {
            let text = format!("{hours}h{minutes}m{millis}ms");
            let seconds = u64::from(hours) * 3600 + u64::from(minutes) * 60;
            let expected = Duration::from_secs(seconds) + Duration::from_millis(millis.into());
            prop_assert_eq!(parse(&text), Ok(expected));
        }

        #[test]
        fn any_text_parses_or_is_refused(text in ".{0,24}") {
            parse_since(&text).map(|since| since.at(Timestamp::UNIX_EPOCH)).ok();
        }
    }

    #[test]
    fn a_bare_number_is_seconds() {
        assert_eq!(parse("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for bad in ["", "s", "10x", "-1s", "1.5h", "1h-3m", "h1", "10 m"] {
            assert_eq!(parse(bad), Err(DurationError::Syntax), "{bad:?}");
        }
        assert_eq!(parse("4000000000d"), Err(DurationError::TooLong));
        assert_eq!(parse_since("yesterday"), Err(DurationError::Since));
    }

    #[test]
    fn since_is_a_time_or_a_while_ago() {
        let now: Timestamp = "2026-11-22T15:00:00Z".parse().unwrap();
        let at = |text: &str| parse_since(text).unwrap().at(now).to_string();
        assert_eq!(at("10m"), "2026-11-22T14:50:00Z");
        assert_eq!(at("2026-11-22T15:00:00+01:00"), "2026-11-22T14:00:00Z");
    }

    #[test]
    fn ages_read_well_and_never_go_backwards() {
        let then: Timestamp = "2026-11-22T15:00:00Z".parse().unwrap();
        let after = |seconds| then + SignedDuration::from_secs(seconds);
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (7200, "2h"),
            (259_200, "3d"),
        ] {
            assert_eq!(human_age(then, after(seconds)), text);
        }
        assert_eq!(human_age(after(5), then), "0s");
    }
}
