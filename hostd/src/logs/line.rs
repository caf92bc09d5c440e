//! One line of a log file in the format of the Kubernetes CRI:
//! `2026-11-22T15:00:00.123456789Z stdout F text`.

use dyno_api::dyno::{LogLine, Stream};

/// The line that these bytes are, without their newline; `None` when they
/// are not one (the tail of a file that a power cut left).
pub(crate) fn parse(bytes: &[u8]) -> Option<LogLine> {
    let mut fields = bytes.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let stream = match fields.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let partial = match fields.next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    let line = String::from_utf8_lossy(fields.next().unwrap_or_default()).into_owned();
    Some(LogLine {
        time,
        stream,
        line,
        partial,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_time_stream_and_text() {
        let line = parse(b"2026-11-22T15:00:00.123456789Z stderr P a  b ").unwrap();
        assert_eq!(line.time.to_string(), "2026-11-22T15:00:00.123456789Z");
        assert_eq!(
            (line.stream, line.partial, line.line.as_str()),
            (Stream::Stderr, true, "a  b ")
        );
        assert_eq!(parse(b"2026-11-22T15:00:00Z stdout F ").unwrap().line, "");
        assert_eq!(parse(b"2026-11-22T15:00:00Z stdout F").unwrap().line, "");
    }

    #[test]
    fn what_is_no_line_is_none() {
        for bytes in [
            &b""[..],
            b"x",
            b"2026-11-22T15:00:00Z",
            b"2026-11-22T15:00:00Z stdin F a",
            b"2026-11-22T15:00:00Z stdout X a",
        ] {
            assert_eq!(parse(bytes), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_line_or_none(bytes: Vec<u8>) {
            parse(&bytes);
        }

        #[test]
        fn any_text_comes_back(text in "[^\n]{0,200}", partial: bool) {
            let flag = if partial { 'P' } else { 'F' };
            let line = parse(format!("2026-11-22T15:00:00Z stdout {flag} {text}").as_bytes()).unwrap();
            prop_assert_eq!(line.line, text);
            prop_assert_eq!(line.partial, partial);
        }
    }
}
