//! Some entries as they are sent: those of one dyno, then those of the next.

use std::collections::BTreeMap;

use bytes::Bytes;
use dyno_api::name::DynoId;

use crate::logs::Position;

/// Entries of some dynos, in the receiver's words.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) payload: Bytes,
    pub(super) parts: Vec<Part>,
}

/// What of it is one dyno's.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) id: DynoId,
    /// Bytes of the payload.
    pub(super) size: usize,
    pub(super) lines: u64,
    /// How far the dyno is once it has arrived.
    pub(super) after: Position,
}

/// A part that is being made.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: u64,
    pub(super) after: Position,
}

impl Batch {
    pub(super) fn of(texts: BTreeMap<DynoId, Text>) -> Self {
        let (mut payload, mut parts) = (Vec::new(), Vec::new());
        for (id, text) in texts {
            payload.extend_from_slice(&text.bytes);
            parts.push(Part {
                id,
                size: text.bytes.len(),
                lines: text.lines,
                after: text.after,
            });
        }
        Self {
            payload: payload.into(),
            parts,
        }
    }

    pub(super) fn lines(&self) -> u64 {
        self.parts.iter().map(|part| part.lines).sum()
    }

    /// Each dyno's part alone.
    pub(super) fn split(self) -> Vec<Self> {
        let mut rest = self.payload;
        let parts = self.parts.into_iter();
        parts
            .map(|part| Self {
                payload: rest.split_to(part.size.min(rest.len())),
                parts: vec![part],
            })
            .collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One entry of each of these dynos.
    pub(crate) fn batch(texts: &[(u8, &str)]) -> Batch {
        let texts = texts.iter().map(|(number, text)| {
            let text = Text {
                bytes: text.as_bytes().to_vec(),
                lines: 1,
                after: Position {
                    file: 1,
                    offset: (*number).into(),
                },
            };
            (DynoId::from_bytes([*number; 6]), text)
        });
        Batch::of(texts.collect())
    }

    #[test]
    fn each_part_is_a_batch_of_its_own() {
        let all = batch(&[(1, "one\n"), (2, ""), (3, "three\n")]);
        assert_eq!(
            (all.payload.as_ref(), all.lines()),
            (&b"one\nthree\n"[..], 3)
        );
        let split = all.split();
        let payloads: Vec<_> = split.iter().map(|batch| batch.payload.clone()).collect();
        assert_eq!(payloads, ["one\n", "", "three\n"]);
        for (batch, number) in split.iter().zip(1..) {
            assert_eq!((batch.lines(), batch.parts.len()), (1, 1));
            assert_eq!(batch.parts[0].after.offset, number);
        }
    }
}
