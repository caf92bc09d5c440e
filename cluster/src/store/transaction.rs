//! Transactions: what must be so, and what is changed then.

use std::collections::BTreeSet;

use super::{Error, KEY_MAX, KEYS_MAX, LeaseId, Result, Revision, TRANSACTION_MAX, VALUE_MAX};

/// How a key must be for a transaction to be done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Is {
    /// Not there.
    Absent,
    /// There, whatever its value.
    Present,
    /// There, and last changed by this revision.
    At(Revision),
}

/// A key, and how it must be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Expect {
    /// The key.
    pub key: Vec<u8>,
    /// How it must be.
    pub is: Is,
}

/// One change of a transaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// Gives a key this value.
    Put {
        /// The key.
        key: Vec<u8>,
        /// Its value from now on.
        value: Vec<u8>,
        /// What it ends with from now on.
        lease: Option<LeaseId>,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
}

/// Changes that are done together or not at all, each to a key of which it is said how
/// the writer has seen it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Transaction {
    expects: Vec<Expect>,
    changes: Vec<Change>,
}

impl Transaction {
    /// One that expects and changes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Expects something of a key that it does not change.
    #[must_use]
    pub fn expect(mut self, key: impl Into<Vec<u8>>, is: Is) -> Self {
        let key = key.into();
        self.expects.push(Expect { key, is });
        self
    }

    /// Makes a key that is not there.
    #[must_use]
    pub fn create(self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.put(key.into(), Is::Absent, value.into(), None)
    }

    /// The same, and lets it end with a lease.
    #[must_use]
    pub fn create_with(
        self,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
        lease: LeaseId,
    ) -> Self {
        self.put(key.into(), Is::Absent, value.into(), Some(lease))
    }

    /// Changes the value of a key that was last changed by this revision. It hangs on no
    /// lease from then on.
    #[must_use]
    pub fn replace(self, key: impl Into<Vec<u8>>, at: Revision, value: impl Into<Vec<u8>>) -> Self {
        self.put(key.into(), Is::At(at), value.into(), None)
    }

    /// The same, and lets it end with a lease.
    #[must_use]
    pub fn replace_with(
        self,
        key: impl Into<Vec<u8>>,
        at: Revision,
        value: impl Into<Vec<u8>>,
        lease: LeaseId,
    ) -> Self {
        self.put(key.into(), Is::At(at), value.into(), Some(lease))
    }

    /// Removes a key that was last changed by this revision.
    #[must_use]
    pub fn delete(self, key: impl Into<Vec<u8>>, at: Revision) -> Self {
        let key = key.into();
        let mut changed = self.expect(key.clone(), Is::At(at));
        changed.changes.push(Change::Delete { key });
        changed
    }

    fn put(self, key: Vec<u8>, is: Is, value: Vec<u8>, lease: Option<LeaseId>) -> Self {
        let mut changed = self.expect(key.clone(), is);
        changed.changes.push(Change::Put { key, value, lease });
        changed
    }

    /// What it expects.
    #[must_use]
    pub fn expects(&self) -> &[Expect] {
        &self.expects
    }

    /// What it changes.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Whether any store takes it.
    ///
    /// # Errors
    /// [`Error::Invalid`]: a key is named twice, or is empty, or something is too large.
    pub fn check(&self) -> Result<()> {
        let invalid = |words: String| Err(Error::Invalid(words));
        if self.expects.is_empty() {
            return invalid("a transaction names no key".into());
        }
        if self.expects.len() > KEYS_MAX {
            let count = self.expects.len();
            return invalid(format!(
                "a transaction names {count} keys, of {KEYS_MAX} at most"
            ));
        }
        let mut bytes = 0;
        let mut keys = BTreeSet::new();
        for Expect { key, .. } in &self.expects {
            check_key(key)?;
            bytes += key.len();
            if !keys.insert(key) {
                let key = String::from_utf8_lossy(key);
                return invalid(format!("a transaction names the key {key:?} twice"));
            }
        }
        for change in &self.changes {
            if let Change::Put { key, value, .. } = change {
                if value.len() > VALUE_MAX {
                    let (key, length) = (String::from_utf8_lossy(key), value.len());
                    return invalid(format!(
                        "the value of {key:?} has {length} bytes, of {VALUE_MAX} at most"
                    ));
                }
                bytes += value.len();
            }
        }
        if bytes > TRANSACTION_MAX {
            return invalid(format!(
                "a transaction has {bytes} bytes, of {TRANSACTION_MAX} at most"
            ));
        }
        Ok(())
    }
}

/// Whether there can be such a key.
pub(super) fn check_key(key: &[u8]) -> Result<()> {
    match key.len() {
        0 => Err(Error::Invalid("a key is empty".into())),
        1..=KEY_MAX => Ok(()),
        length => Err(Error::Invalid(format!(
            "a key has {length} bytes, of {KEY_MAX} at most"
        ))),
    }
}

/// The first key behind all that begin so; `None` where that is the end of all keys.
pub(super) fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_store_takes_is_refused_by_name() {
        let valid = Transaction::new().create("a", "1").expect("b", Is::Present);
        assert!(valid.check().is_ok());
        for (transaction, words) in [
            (Transaction::new(), "no key"),
            (Transaction::new().create("", "1"), "empty"),
            (
                Transaction::new().create("a", "1").expect("a", Is::Present),
                "twice",
            ),
            (
                Transaction::new().create(vec![b'a'; KEY_MAX + 1], ""),
                "a key has 1025 bytes",
            ),
            (
                Transaction::new().create("a", vec![0; VALUE_MAX + 1]),
                "\"a\" has 262145 bytes",
            ),
            (
                (0..5).fold(Transaction::new(), |all, n| {
                    all.create(format!("{n}"), vec![0; VALUE_MAX])
                }),
                "a transaction has",
            ),
            (
                (0..=KEYS_MAX).fold(Transaction::new(), |all, n| all.create(format!("{n}"), "")),
                "101 keys",
            ),
        ] {
            let error = transaction.check().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_prefix_ends_where_the_next_begins() {
        assert_eq!(end_of(b"a/"), Some(b"a0".to_vec()));
        assert_eq!(end_of(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(end_of(b"\xff"), None);
        assert_eq!(end_of(b""), None);
    }
}
