//! Decimal numbers with at most three places, exact: `0.5`, `2`, `1.25`.

/// The number in thousandths; `None` where the text is no such number.
pub(crate) fn parse_millis(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 3 {
        return None;
    }
    let thousandths: u64 = format!("{fraction:0<3}").parse().ok()?;
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1000)?
        .checked_add(thousandths)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_thousandth_parses_exactly(millis in 0_u64..10_000_000) {
            let text = format!("{}.{:03}", millis / 1000, millis % 1000);
            prop_assert_eq!(parse_millis(&text), Some(millis));
        }

        #[test]
        fn any_text_parses_or_is_refused(text in ".{0,24}") {
            parse_millis(&text);
        }
    }

    #[test]
    fn what_is_no_decimal_is_refused() {
        for bad in [
            "", ".", "1.", ".5", "-1", "+1", "1e3", "1.2345", "0x1", " 1", "1,5",
        ] {
            assert_eq!(parse_millis(bad), None, "{bad:?}");
        }
        assert_eq!(parse_millis(&u64::MAX.to_string()), None);
    }
}
