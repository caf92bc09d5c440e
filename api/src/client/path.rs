//! Paths and queries of calls, percent-encoded (RFC 3986 section 2).

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

/// The text as one path segment or query value: everything but unreserved
/// characters is encoded, slashes too, so that no text can name another route.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            _ => write!(encoded, "%{byte:02X}").unwrap_or_default(),
        }
    }
    encoded
}

/// The parameters as a query with its question mark; empty where there are none.
///
/// # Errors
/// What serde says of a parameter that has no JSON form.
pub(super) fn query(parameters: &impl Serialize) -> serde_json::Result<String> {
    let mut query = String::new();
    if let Value::Object(fields) = serde_json::to_value(parameters)? {
        for (name, value) in fields {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text,
                other => other.to_string(),
            };
            query.push(if query.is_empty() { '?' } else { '&' });
            query.push_str(&name);
            query.push('=');
            query.push_str(&encode(&text));
        }
    }
    Ok(query)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::query::{RemoveQuery, StopQuery};

    proptest! {
        #[test]
        fn any_text_stays_one_segment(text in ".*") {
            let encoded = encode(&text);
            prop_assert!(!encoded.contains(['/', '?', '#', '&', '=', ' ']));
            prop_assert!(encoded.is_ascii());
        }
    }

    #[test]
    fn references_and_times_survive() {
        assert_eq!(
            encode("docker.io/library/debian:12"),
            "docker.io%2Flibrary%2Fdebian%3A12"
        );
        assert_eq!(
            encode("2026-11-22T15:00:00+01:00"),
            "2026-11-22T15%3A00%3A00%2B01%3A00"
        );
    }

    #[test]
    fn a_query_has_only_what_was_given() {
        let stop = StopQuery {
            signal: Some("a b".to_owned()),
            grace_ms: None,
        };
        assert_eq!(query(&stop).unwrap(), "?signal=a%20b");
        assert_eq!(query(&StopQuery::default()).unwrap(), "");
        let remove = RemoveQuery { force: true };
        assert_eq!(query(&remove).unwrap(), "?force=true");
    }
}
