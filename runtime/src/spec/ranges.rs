//! Lists of CPUs and memory nodes, `0-3,7` (cpuset(7), "List format").

/// The numbers of a list; `None` where it is malformed, turned around, or has
/// one from `end` on.
pub(crate) fn parse(list: &str, end: usize) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last >= end {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// Digits only: `parse` would take a sign.
fn number(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_its_numbers() {
        assert_eq!(parse("0-3,7", 8), Some(vec![0, 1, 2, 3, 7]));
        assert_eq!(parse("7", 8), Some(vec![7]));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for list in [
            "", "3-1", "1,", ",1", "-1", "1-", "+1", "a", "1 2", "8", "0-8", "1--2",
        ] {
            assert_eq!(parse(list, 8), None, "{list}");
        }
        assert_eq!(parse("99999999999999999999", 8), None);
    }
}
