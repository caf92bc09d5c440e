//! Where bytes that others wrote come in: one function each, driven by proptest
//! here and by libFuzzer in `fuzz/`.
//!
//! Each takes any bytes and panics only where a promise is broken.

use std::path::PathBuf;

use oci_spec::runtime::{Process, Spec};

use crate::monitor::{frame, protocol};
use crate::{child, spec, state};

/// A bundle's `config.json`, and the process that `exec --process` reads.
pub fn config(text: &[u8]) {
    match spec::parse::<Spec>(text) {
        Ok(parsed) => match spec::Bundle::new(PathBuf::from("/bundle"), parsed) {
            Ok(bundle) => drop(bundle.rootfs()),
            Err(error) => assert!(!error.to_string().is_empty()),
        },
        Err(malformed) => assert!(!malformed.to_string().is_empty()),
    }
    if let Ok(process) = spec::parse::<Process>(text)
        && let Err(error) = spec::check_process(&process)
    {
        assert!(!error.to_string().is_empty());
    }
}

/// `state.json` of the OCI command line, and of a monitor.
///
/// # Panics
/// When what was read is not what would be written again.
pub fn state(text: &[u8]) {
    if let Ok(record) = state::Record::parse(text) {
        assert!(record.pid >= 0, "a group of processes");
        again(&record, state::Record::parse);
    }
    if let Ok(state) = serde_json::from_slice::<protocol::State>(text) {
        again(&state, |text| serde_json::from_slice(text));
    }
}

/// What a child reports to the process that cloned it, and what clients send a
/// monitor.
///
/// # Panics
/// When a frame takes more bytes than there are, or none.
pub fn report(packet: &[u8]) {
    if let Ok(report) = child::channel::decode(packet, None) {
        assert!(!format!("{report:?}").is_empty());
    }
    let mut rest = packet;
    while let Ok(Some((_, taken))) = frame::decode(rest) {
        assert!((frame::HEADER..=rest.len()).contains(&taken), "{taken}");
        rest = &rest[taken..];
    }
    drop(serde_json::from_slice::<protocol::Request>(packet));
}

/// What is written and read is the same.
fn again<T: serde::Serialize, E: std::fmt::Debug>(
    value: &T,
    parse: impl FnOnce(&[u8]) -> Result<T, E>,
) {
    let json = |value: &T| serde_json::to_value(value).unwrap_or_default();
    let text = json(value).to_string();
    let read = parse(text.as_bytes());
    let same = read.as_ref().is_ok_and(|read| json(read) == json(value));
    assert!(same, "{text} is not read as it was written");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    type Target = (&'static str, fn(&[u8]));

    const TARGETS: [Target; 3] = [("config", config), ("state", state), ("report", report)];

    /// The files that the fuzzer begins with, and those that once broke something.
    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        let files = std::fs::read_dir(folder.join(name)).unwrap();
        let corpus: Vec<_> = files
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .collect();
        assert!(!corpus.is_empty(), "{name} has no corpus");
        corpus
    }

    #[test]
    fn the_corpus_breaks_nothing() {
        for (name, target) in TARGETS {
            corpus(name).iter().for_each(|bytes| target(bytes));
        }
    }

    #[test]
    fn the_corpus_has_what_is_accepted() {
        let accepted = corpus("config").iter().any(|text| {
            let parsed = spec::parse::<Spec>(text).ok();
            parsed.is_some_and(|parsed| spec::Bundle::new(PathBuf::new(), parsed).is_ok())
        });
        assert!(accepted, "no configuration");
        let mut records = corpus("state").into_iter();
        assert!(records.any(|text| state::Record::parse(&text).is_ok()));
        let mut packets = corpus("report").into_iter();
        assert!(packets.any(|packet| child::channel::decode(&packet, None).is_ok()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_bytes_break_nothing(bytes: Vec<u8>) {
            for (_, target) in TARGETS {
                target(&bytes);
            }
        }

        #[test]
        fn a_corpus_with_bytes_changed_breaks_nothing(
            file: prop::sample::Index,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..8),
        ) {
            for (name, target) in TARGETS {
                let corpus = corpus(name);
                let mut bytes = file.get(&corpus).clone();
                for (place, byte, change) in &changes {
                    if bytes.is_empty() {
                        continue;
                    }
                    let place = place.index(bytes.len());
                    match change {
                        0 => bytes[place] = *byte,
                        1 => bytes.insert(place, *byte),
                        _ => drop(bytes.remove(place)),
                    }
                }
                target(&bytes);
            }
        }
    }
}
