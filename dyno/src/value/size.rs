//! Sizes in bytes: `64M`, `1G`, `1.5GiB`, `4096`. Units are powers of 1024, as
//! cgroup files and `docker run` have them.

use super::decimal;

/// Why a text is not a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SizeError {
    #[error("not a size; accepted are bytes or K, M, G, T, such as 64M, 1.5G, 512MiB")]
    Syntax,
    #[error("larger than {} bytes", u64::MAX)]
    TooLarge,
    #[error(
        "a memory limit is at least {}; accepted are sizes such as 64M or 1G",
        human(MEMORY_MIN)
    )]
    Memory,
    #[error("at least 1 byte is needed; accepted are sizes such as 64M or 1G")]
    Zero,
}

/// The least memory that a dyno's first process can start with.
pub(crate) const MEMORY_MIN: u64 = 4 << 20;

/// A size above zero.
pub(crate) fn parse(text: &str) -> Result<u64, SizeError> {
    match bytes(text)? {
        0 => Err(SizeError::Zero),
        bytes => Ok(bytes),
    }
}

/// A size that can be a memory limit.
pub(crate) fn parse_memory(text: &str) -> Result<u64, SizeError> {
    match bytes(text)? {
        bytes if bytes < MEMORY_MIN => Err(SizeError::Memory),
        bytes => Ok(bytes),
    }
}

fn bytes(text: &str) -> Result<u64, SizeError> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(SizeError::Syntax),
    };
    let whole = number.bytes().all(|byte| byte.is_ascii_digit());
    if shift == 0 && whole && !number.is_empty() {
        return number.parse().map_err(|_overflow| SizeError::TooLarge);
    }
    let millis = decimal::parse_millis(number).ok_or(SizeError::Syntax)?;
    let bytes = (u128::from(millis) << shift) / 1000;
    u64::try_from(bytes).map_err(|_overflow| SizeError::TooLarge)
}

/// The size as people read it: `64 MiB`, `1.5 GiB`, `17 B`.
pub(crate) fn human(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let power = (bytes.max(1).ilog2() / 10) as usize;
    let unit = 1_u64 << (10 * power);
    let tenths = (u128::from(bytes) * 10 + u128::from(unit) / 2) / u128::from(unit);
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole} {}", units[power]),
        (whole, _) if whole >= 100 => format!("{whole} {}", units[power]),
        (whole, tenth) => format!("{whole}.{tenth} {}", units[power]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn units_are_powers_of_1024(number in 1_u64..1 << 20, power in 0_u32..5) {
            let unit = ["", "K", "M", "G", "T"][power as usize];
            let expected = number << (10 * power);
            for text in [format!("{number}{unit}"), format!("{number}{}", unit.to_lowercase())] {
                prop_assert_eq!(parse(&text), Ok(expected));
            }
            if power > 0 {
                prop_assert_eq!(parse(&format!("{number}{unit}iB")), Ok(expected));
            }
        }

        #[test]
        fn any_text_parses_or_is_refused(text in ".{0,24}") {
            parse(&text).ok();
        }

        #[test]
        fn what_people_read_is_within_a_twentieth(bytes in 1_u64..1 << 50) {
            let text = human(bytes);
            let read = parse(&text.replace(' ', "")).unwrap();
            prop_assert!(read.abs_diff(bytes) <= bytes / 20, "{text} for {bytes}");
        }
    }

    #[test]
    fn fractions_are_exact() {
        assert_eq!(parse("1.5G"), Ok(3 << 29));
        assert_eq!(parse("0.5k"), Ok(512));
    }

    #[test]
    fn a_memory_limit_too_small_to_run_anything_is_refused() {
        for tiny in ["0", "1KB", "1K", "64", "3.9M"] {
            assert_eq!(parse_memory(tiny), Err(SizeError::Memory), "{tiny}");
        }
        assert_eq!(parse_memory("64M"), Ok(64 << 20));
        assert_eq!(parse_memory("64MiB"), Ok(64 << 20));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for bad in [
            "", "M", "64X", "-1", "1 G", "1..5G", "G1", "1.5.5M", "0x10", "ten",
        ] {
            assert_eq!(parse(bad), Err(SizeError::Syntax), "{bad:?}");
        }
        assert_eq!(parse("0"), Err(SizeError::Zero));
        assert_eq!(parse("99999999999T"), Err(SizeError::TooLarge));
        assert_eq!(parse("99999999999999999999"), Err(SizeError::TooLarge));
    }

    #[test]
    fn sizes_read_well() {
        let read = [
            (0, "0 B"),
            (17, "17 B"),
            (1 << 10, "1 KiB"),
            (64 << 20, "64 MiB"),
        ];
        for (bytes, text) in read
            .into_iter()
            .chain([(3 << 29, "1.5 GiB"), (150_000_000, "143 MiB")])
        {
            assert_eq!(human(bytes), text);
        }
    }
}
