//! Entries in the receiver's words: RFC 5424 messages, or JSON lines. Pure.

use std::fmt::Write;
use std::sync::Arc;

use dyno_api::dyno::{LogLine, Stream};
use dyno_api::name::{DynoId, DynoName};
use jiff::tz::TimeZone;
use serde::Serialize;

use super::target::Protocol;

/// Facility daemon, RFC 5424 section 6.2.1, severities info and error.
const STDOUT: u8 = 3 * 8 + 6;
const STDERR: u8 = 3 * 8 + 3;

/// Private enterprise number of examples (RFC 5612): this project has none of its own.
const SD_ID: &str = "dyno@32473";

/// Whose entry it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) id: DynoId,
    pub(super) name: DynoName,
}

/// One entry of a log.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) who: Arc<Who>,
    pub(super) line: LogLine,
}

#[derive(Serialize)]
struct JsonEntry<'a> {
    host: &'a str,
    dyno: &'a str,
    id: &'a str,
    #[serde(flatten)]
    line: &'a LogLine,
}

/// Entries as the bytes that are sent.
pub(super) fn write(protocol: Protocol, host: &str, entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        match protocol {
            Protocol::Syslog => {
                let message = message(host, entry);
                // RFC 5425, section 4.3: octets, a space, the message.
                bytes.extend_from_slice(format!("{} ", message.len()).as_bytes());
                bytes.extend_from_slice(message.as_bytes());
            }
            Protocol::Http => {
                let value = JsonEntry {
                    host,
                    dyno: entry.who.name.as_str(),
                    id: entry.who.id.as_str(),
                    line: &entry.line,
                };
                match serde_json::to_writer(&mut bytes, &value) {
                    Ok(()) => bytes.push(b'\n'),
                    Err(error) => tracing::error!(%error, "an entry cannot be written as JSON"),
                }
            }
        }
    }
    bytes
}

/// RFC 5424, section 6. Without the byte order mark of MSG-UTF8, which many receivers take
/// for text: what is sent is UTF-8 all the same.
fn message(host: &str, entry: &Entry) -> String {
    let Entry { who, line } = entry;
    let (priority, stream) = match line.stream {
        Stream::Stdout => (STDOUT, "stdout"),
        Stream::Stderr => (STDERR, "stderr"),
    };
    // At most six digits of a second, section 6.2.3.
    let time = line.time.to_zoned(TimeZone::UTC);
    let time = time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ");
    let mut text = format!(
        "<{priority}>1 {time} {} {} {} {stream} [{SD_ID}",
        field(host, 255),
        field(who.name.as_str(), 48),
        field(who.id.as_str(), 128),
    );
    let more = line.partial.then_some(("partial", "true"));
    let names = [("name", who.name.as_str()), ("id", who.id.as_str())];
    for (name, value) in names.into_iter().chain(more) {
        if write!(text, " {name}=\"{}\"", escaped(value)).is_err() {
            tracing::trace!("a String takes everything");
        }
    }
    text.push_str("] ");
    text.push_str(&line.line);
    text
}

/// A header field: printable ASCII without spaces, or `-` (NILVALUE).
fn field(text: &str, most: usize) -> String {
    let printable = text.chars().filter(char::is_ascii_graphic);
    let field: String = printable.take(most).collect();
    match field.is_empty() {
        true => "-".to_owned(),
        false => field,
    }
}

/// A PARAM-VALUE, section 6.3.3.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '"' | '\\' | ']') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn entry(text: &str, partial: bool) -> Entry {
        Entry {
            who: Arc::new(Who {
                id: DynoId::from_bytes([0xab; 6]),
                name: "web".parse().unwrap(),
            }),
            line: LogLine {
                time: "2026-11-22T15:00:00.123456789Z".parse().unwrap(),
                stream: Stream::Stderr,
                line: text.to_owned(),
                partial,
            },
        }
    }

    #[test]
    fn a_message_is_what_the_rfc_says() {
        let text = message("box.example", &entry("it \"works\"]", true));
        assert_eq!(
            text,
            "<27>1 2026-11-22T15:00:00.123456Z box.example web abababababab stderr \
             [dyno@32473 name=\"web\" id=\"abababababab\" partial=\"true\"] it \"works\"]"
        );
        assert!(
            message("", &entry("", false)).starts_with("<27>1 2026-11-22T15:00:00.123456Z - web ")
        );
        assert_eq!(escaped("a\"b\\c]d\u{e9}"), "a\\\"b\\\\c\\]d\u{e9}");
        assert_eq!(field("a b\u{e9}\n", 255), "ab");
        assert_eq!(field(&"x".repeat(99), 48).len(), 48);
    }

    #[test]
    fn json_is_one_line_each() {
        let bytes = write(
            Protocol::Http,
            "box",
            &[entry("a\u{1}b", false), entry("c", true)],
        );
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["line"], "a\u{1}b");
        assert_eq!(lines[0]["dyno"], "web");
        assert_eq!(lines[0]["stream"], "stderr");
        assert_eq!(lines[1]["partial"], true);
    }

    proptest! {
        /// Whatever a dyno writes, frames can be told apart, and no text is a header.
        #[test]
        fn frames_come_back(texts in prop::collection::vec("[^\n]{0,80}", 0..5)) {
            let entries: Vec<Entry> = texts.iter().map(|text| entry(text, false)).collect();
            let bytes = write(Protocol::Syslog, "box", &entries);
            let mut rest = std::str::from_utf8(&bytes).unwrap();
            for text in &texts {
                let (length, after) = rest.split_once(' ').unwrap();
                let (message, after) = after.split_at(length.parse().unwrap());
                prop_assert!(message.starts_with("<27>1 "));
                let (_, said) = message.split_once("\"] ").unwrap();
                prop_assert_eq!(said, text);
                rest = after;
            }
            prop_assert_eq!(rest, "");
        }
    }
}
