//! The keys that leave a dyno running: `ctrl-p,ctrl-q`.

/// Why a text is not a sequence of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{key:?} is not a key; accepted are ctrl-a to ctrl-z, ctrl-@ [ \\ ] ^ _ and single characters, separated by commas"
)]
pub(crate) struct KeyError {
    key: String,
}

/// A sequence of keys, as the bytes that a terminal sends for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    fn default() -> Self {
        Self(vec![ctrl(b'p'), ctrl(b'q')])
    }
}

/// A sequence of keys; the empty text is none at all.
pub(crate) fn parse(text: &str) -> Result<DetachKeys, KeyError> {
    if text.is_empty() {
        return Ok(DetachKeys(Vec::new()));
    }
    text.split(',')
        .map(key)
        .collect::<Result<_, _>>()
        .map(DetachKeys)
}

fn key(text: &str) -> Result<u8, KeyError> {
    let refused = || KeyError {
        key: text.to_owned(),
    };
    match text.as_bytes() {
        [
            b'c',
            b't',
            b'r',
            b'l',
            b'-',
            key @ (b'a'..=b'z' | b'@' | b'['..=b'_'),
        ] => Ok(ctrl(*key)),
        [key @ b' '..=b'~'] => Ok(*key),
        _ => Err(refused()),
    }
}

/// The byte that a terminal sends for a key held with control.
const fn ctrl(key: u8) -> u8 {
    key & 0x1f
}

/// Looks for the keys in what is typed, wherever the reads cut it.
#[derive(Debug)]
pub(crate) struct Scanner {
    keys: Vec<u8>,
    /// So many of the keys were typed and are held back.
    matched: usize,
}

/// What to do with what was typed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// These bytes are the dyno's.
    Forward(Vec<u8>),
    /// These bytes are the dyno's; then the keys came.
    Detach(Vec<u8>),
}

impl Scanner {
    pub(crate) fn new(keys: DetachKeys) -> Self {
        Self {
            keys: keys.0,
            matched: 0,
        }
    }

    /// Divides what was typed. What may yet become the keys is held back.
    pub(crate) fn feed(&mut self, typed: &[u8]) -> Typed {
        if self.keys.is_empty() {
            return Typed::Forward(typed.to_vec());
        }
        let mut forward = Vec::with_capacity(self.matched + typed.len());
        for byte in typed {
            while self.matched > 0 && self.keys[self.matched] != *byte {
                let fallback = self.fallback();
                forward.extend_from_slice(&self.keys[..self.matched - fallback]);
                self.matched = fallback;
            }
            if self.keys[self.matched] != *byte {
                forward.push(*byte);
                continue;
            }
            self.matched += 1;
            if self.matched == self.keys.len() {
                self.matched = 0;
                return Typed::Detach(forward);
            }
        }
        Typed::Forward(forward)
    }

    /// The longest beginning of the keys that ends the ones held back.
    fn fallback(&self) -> usize {
        let held = &self.keys[..self.matched];
        (0..self.matched)
            .rev()
            .find(|length| held.ends_with(&self.keys[..*length]))
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_what_a_terminal_sends() {
        assert_eq!(parse("ctrl-p,ctrl-q"), Ok(DetachKeys::default()));
        assert_eq!(parse("ctrl-p,ctrl-q"), Ok(DetachKeys(vec![16, 17])));
        assert_eq!(parse("ctrl-],x"), Ok(DetachKeys(vec![29, b'x'])));
        assert_eq!(parse(""), Ok(DetachKeys(Vec::new())));
        for bad in ["ctrl-", "ctrl-P", "alt-x", "ctrl-p,", "xy", "é"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        /// Against the plain meaning: everything before the first occurrence
        /// is forwarded, and where there is none everything is, but for a
        /// beginning of the keys at the end.
        #[test]
        fn the_keys_are_found_wherever_reads_cut_them(
            typed in prop::collection::vec(0_u8..3, 0..24),
            keys in prop::collection::vec(0_u8..3, 1..5),
            cut in 1_usize..6,
        ) {
            let mut scanner = Scanner::new(DetachKeys(keys.clone()));
            let (mut forward, mut detached) = (Vec::new(), false);
            for chunk in typed.chunks(cut) {
                match scanner.feed(chunk) {
                    Typed::Forward(bytes) => forward.extend(bytes),
                    Typed::Detach(bytes) => {
                        forward.extend(bytes);
                        detached = true;
                        break;
                    }
                }
            }
            match typed.windows(keys.len()).position(|window| window == keys) {
                Some(at) => {
                    prop_assert!(detached);
                    prop_assert_eq!(&forward[..], &typed[..at]);
                }
                None => {
                    prop_assert!(!detached);
                    forward.extend(&keys[..scanner.matched]);
                    prop_assert_eq!(forward, typed);
                }
            }
        }
    }
}
