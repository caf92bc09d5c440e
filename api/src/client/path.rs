//! Paths and queries of calls, percent-encoded (RFC 3986 section 2).

use std::fmt::Write as _;

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
    // A segment of dots is a step in the tree, even when encoded.
    if matches!(encoded.as_str(), "." | "..") { encoded.replace('.', "%2E%00") } else { encoded }
}

/// A query that grows by what is given.
#[derive(Default)]
pub(super) struct Query(String);

impl Query {
    /// Adds `name=value` where there is a value.
    pub(super) fn with(mut self, name: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.0.push(if self.0.is_empty() { '?' } else { '&' });
            self.0.push_str(name);
            self.0.push('=');
            self.0.push_str(&encode(&value.to_string()));
        }
        self
    }

    /// The query with its question mark; empty where nothing was given.
    pub(super) fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_stays_one_segment(text in ".*") {
            let encoded = encode(&text);
            prop_assert!(!encoded.contains(['/', '?', '#', '&', '=', ' ']));
            prop_assert!(encoded.is_ascii());
            prop_assert!(encoded != "." && encoded != "..");
        }
    }

    #[test]
    fn references_and_times_survive() {
        assert_eq!(encode("docker.io/library/debian:12"), "docker.io%2Flibrary%2Fdebian%3A12");
        assert_eq!(encode("2026-11-22T15:00:00+01:00"), "2026-11-22T15%3A00%3A00%2B01%3A00");
    }

    #[test]
    fn a_query_has_only_what_was_given() {
        let query = Query::default().with("follow", None::<bool>).with("tail", Some(3));
        assert_eq!(query.with("since", Some("a b")).into_string(), "?tail=3&since=a%20b");
        assert_eq!(Query::default().into_string(), "");
    }
}
