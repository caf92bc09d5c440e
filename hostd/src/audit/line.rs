//! A line of the log: an [`AuditEntry`] as JSON, and the version of its form.

use std::io;

use dyno_api::audit::AuditEntry;
use serde::{Deserialize, Serialize};

/// The version of lines that this build writes and reads.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Line<T> {
    v: u32,
    #[serde(flatten)]
    entry: T,
}

/// The line of an entry, with its end.
pub(super) fn encode(entry: &AuditEntry) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(&Line { v: VERSION, entry })?;
    text.push(b'\n');
    Ok(text)
}

/// The entry of a line, without its end; `None` for what this build did not write.
pub(super) fn parse(line: &[u8]) -> Option<AuditEntry> {
    let line: Line<AuditEntry> = serde_json::from_slice(line).ok()?;
    (line.v == VERSION).then_some(line.entry)
}

/// The whole lines at the head of what is in a file. Behind them are the zeros that the file
/// is filled with ahead, or, after a power cut, a part of a line.
pub(super) fn whole(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0);
    let text = &bytes[..end.unwrap_or(bytes.len())];
    let lines = text.iter().rposition(|byte| *byte == b'\n');
    &text[..lines.map_or(0, |last| last + 1)]
}

#[cfg(test)]
pub(super) mod tests {
    use dyno_api::audit::{AuditCaller, AuditState};
    use dyno_api::error::ErrorKind;
    use dyno_api::token::TokenId;
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    /// Any entry that can be written.
    pub(in crate::audit) fn entry() -> impl Strategy<Value = AuditEntry> {
        let callers = prop_oneof![
            Just(AuditCaller::Hostd),
            (any::<u32>(), any::<Option<i32>>())
                .prop_map(|(uid, pid)| AuditCaller::User { uid, pid }),
            (
                any::<[u8; 6]>(),
                "[a-z][a-z0-9-]{0,8}[a-z]",
                any::<[u8; 16]>(),
                any::<u16>()
            )
                .prop_map(|(id, name, address, port)| AuditCaller::Token {
                    token: TokenId::from_bytes(id),
                    name: name.parse().unwrap(),
                    address: (address, port).into(),
                }),
        ];
        let states = prop::sample::select(vec![
            AuditState::Running,
            AuditState::Done,
            AuditState::Unknown,
        ]);
        let errors = prop::sample::select(vec![None, Some(ErrorKind::Conflict)]);
        let when = (0_i64..4_000_000_000, 0_i32..1_000_000_000);
        let what = (
            any::<Option<String>>(),
            any::<Option<u16>>(),
            any::<Option<u64>>(),
        );
        (any::<u64>(), when, callers, states, errors, what).prop_map(
            |(id, (second, part), caller, state, error, (target, status, took_us))| AuditEntry {
                id,
                time: Timestamp::new(second, part).unwrap(),
                request: format!("r-{id:x}"),
                caller,
                operation: "dyno.create".to_owned(),
                target,
                dyno: Some("0123456789ab".parse().unwrap()),
                state,
                status,
                error,
                took_us,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(entry in entry()) {
            let line = encode(&entry).unwrap();
            let (end, text) = line.split_last().unwrap();
            prop_assert_eq!(*end, b'\n');
            prop_assert!(!text.contains(&b'\n') && !text.contains(&0));
            prop_assert_eq!(parse(text), Some(entry));
        }

        #[test]
        fn no_bytes_are_taken_for_more_than_they_are(bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(parse(&bytes), None);
            let whole = whole(&bytes);
            prop_assert!(bytes.starts_with(whole) && !whole.contains(&0));
            prop_assert!(whole.is_empty() || whole.ends_with(b"\n"));
        }

        /// A power cut leaves any part of what was not synced; zeros are where nothing was.
        #[test]
        fn of_a_torn_tail_the_whole_lines_are_left(
            entries in prop::collection::vec(entry(), 1..5),
            cut in any::<prop::sample::Index>(),
            zeros in 0_usize..64,
        ) {
            let lines: Vec<Vec<u8>> = entries.iter().map(|entry| encode(entry).unwrap()).collect();
            let mut bytes = lines.concat();
            let cut = cut.index(bytes.len());
            bytes.truncate(cut);
            bytes.resize(cut + zeros, 0);
            let mut ends = 0;
            let kept = lines.iter().take_while(|line| {
                ends += line.len();
                ends <= cut
            });
            let kept: Vec<u8> = kept.flatten().copied().collect();
            prop_assert_eq!(whole(&bytes), &kept);
        }
    }

    #[test]
    fn a_line_of_another_version_is_none() {
        let text = |v: u32| {
            format!(
                r#"{{"v": {v}, "id": 1, "time": "2026-11-28T00:00:00Z", "request": "a",
                "caller": {{"by": "hostd"}}, "operation": "hostd.start", "state": "done",
                "more": [1]}}"#
            )
        };
        assert!(parse(text(VERSION).as_bytes()).is_some());
        assert_eq!(parse(text(VERSION + 1).as_bytes()), None);
    }
}
