//! Machines by names of the user's own, and the one that is meant where none is
//! named: `~/.config/dyno/contexts.json`.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use dyno_api::client::Pin;
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::private;
use crate::failure::{Failure, code};

/// The name of this machine, which is always there.
pub(crate) const LOCAL: &str = "local";

/// The longest name, in bytes.
const NAME_MAX: usize = 63;

/// A context's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn is_local(&self) -> bool {
        self.0 == LOCAL
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        match begins && text.len() <= NAME_MAX && text.chars().all(fits) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "a context's name is a letter or digit and up to {} more, or - _ .",
                NAME_MAX - 1
            )),
        }
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.0)
    }
}

/// All contexts of a user.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The one that is meant where none is named; this machine without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current: Option<Name>,
    #[serde(default)]
    contexts: BTreeMap<Name, Entry>,
}

/// A machine that has a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) host: Machine,
    /// Who signs for it, where it listens with TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<Pin>,
    /// The file of the certificate and key that are shown to it, instead of a token's secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cert: Option<PathBuf>,
}

impl Contexts {
    /// Those of whoever runs us; none where there is no list.
    ///
    /// # Errors
    /// A [`Failure`] for a list that cannot be read.
    pub(crate) fn load() -> Result<Self, Failure> {
        path().map_or_else(|| Ok(Self::default()), |path| Self::read(&path))
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            Failure::io(format!("cannot read {}", path.display()), &error)
                .hint("mend or remove it; --socket, --host and `DYNO_HOST` do without it")
        };
        let Some(text) = private::read(path).map_err(failed)? else {
            return Ok(Self::default());
        };
        serde_json::from_slice(&text).map_err(|error| failed(error.into()))
    }

    /// Writes the list, whole or not at all.
    ///
    /// # Errors
    /// A [`Failure`] where there is no home folder or it cannot be written.
    pub(crate) fn save(&self) -> Result<(), Failure> {
        let path = path().ok_or_else(|| {
            Failure::new("there is no folder for the list of contexts")
                .hint("set HOME or XDG_CONFIG_HOME")
        })?;
        self.write(&path)
            .map_err(|error| Failure::io(format!("cannot write {}", path.display()), &error))
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        private::write(path, &text)
    }

    /// The machine of a context; none for this one.
    ///
    /// # Errors
    /// Not found.
    pub(crate) fn find(&self, name: &Name) -> Result<Option<&Entry>, Failure> {
        if name.is_local() {
            return Ok(None);
        }
        match self.contexts.get(name) {
            Some(entry) => Ok(Some(entry)),
            None => Err(missing(name)),
        }
    }

    /// The one that is meant where none is named; none for this machine.
    pub(crate) fn chosen(&self) -> Option<&Name> {
        self.current.as_ref()
    }

    /// The name of the context that is meant where none is named.
    pub(crate) fn current(&self) -> &str {
        self.chosen().map_or(LOCAL, Name::as_str)
    }

    /// Names and machines, in order, without this one.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Name, &Machine)> {
        self.contexts
            .iter()
            .map(|(name, entry)| (name, &entry.host))
    }

    /// Adds one.
    ///
    /// # Errors
    /// Conflict where the name is taken.
    pub(crate) fn add(&mut self, name: Name, entry: Entry) -> Result<(), Failure> {
        if name.is_local() || self.contexts.contains_key(&name) {
            let failure = Failure::new(format!("there is a context {name:?}", name = name.0));
            let hint = match name.is_local() {
                true => "choose another name: local is this machine".to_owned(),
                false => format!("dyno ctx rm {name}"),
            };
            return Err(failure.hint(hint).with_code(code::CONFLICT));
        }
        self.contexts.insert(name, entry);
        Ok(())
    }

    /// Chooses one.
    ///
    /// # Errors
    /// Not found.
    pub(crate) fn choose(&mut self, name: Name) -> Result<(), Failure> {
        self.find(&name)?;
        self.current = (!name.is_local()).then_some(name);
        Ok(())
    }

    /// Removes one; where it was chosen, this machine is from now on.
    ///
    /// # Errors
    /// Not found, and conflict for this machine.
    pub(crate) fn remove(&mut self, name: &Name) -> Result<(), Failure> {
        if name.is_local() {
            let failure = Failure::new("local is this machine, which is always there");
            return Err(failure.with_code(code::CONFLICT));
        }
        self.contexts.remove(name).ok_or_else(|| missing(name))?;
        self.current.take_if(|current| current == name);
        Ok(())
    }
}

fn missing(name: &Name) -> Failure {
    Failure::new(format!("there is no context {:?}", name.0))
        .hint("dyno ctx ls")
        .with_code(code::NOT_FOUND)
}

fn path() -> Option<PathBuf> {
    Some(private::folder()?.join("contexts.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn entry(host: &str) -> Entry {
        Entry {
            host: host.parse().unwrap(),
            ca: None,
            cert: None,
        }
    }

    fn two() -> Contexts {
        let mut contexts = Contexts::default();
        for (each, host) in [("prod", "ann@box:2222"), ("lab", "ssh://[::1]/run/x.sock")] {
            contexts.add(name(each), entry(host)).unwrap();
        }
        contexts
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dyno/contexts.json");
        assert_eq!(Contexts::read(&path).unwrap(), Contexts::default());
        let mut contexts = two();
        contexts.choose(name("lab")).unwrap();
        let tls = Entry {
            ca: format!("sha256:{}", "0".repeat(64)).parse().ok(),
            ..entry("https://box:4410")
        };
        contexts.add(name("tls"), tls).unwrap();
        for _ in 0..2 {
            contexts.write(&path).unwrap();
        }
        assert_eq!(Contexts::read(&path).unwrap(), contexts);
    }

    #[test]
    fn the_chosen_one_is_meant_until_it_is_removed() {
        let mut contexts = two();
        assert_eq!(contexts.chosen(), None);
        contexts.choose(name("prod")).unwrap();
        let chosen = contexts.find(contexts.chosen().unwrap()).unwrap();
        assert_eq!(chosen.unwrap().host.to_string(), "ann@box:2222");
        contexts.remove(&name("prod")).unwrap();
        assert_eq!((contexts.chosen(), contexts.current()), (None, LOCAL));
        contexts.choose(name("lab")).unwrap();
        contexts.choose(name(LOCAL)).unwrap();
        assert_eq!(contexts.current(), LOCAL);
    }

    #[test]
    fn what_is_not_there_or_taken_is_refused() {
        let mut contexts = two();
        let code = |refused: Result<(), Failure>| refused.unwrap_err().code();
        assert_eq!(code(contexts.choose(name("x"))), code::NOT_FOUND);
        assert_eq!(code(contexts.remove(&name("x"))), code::NOT_FOUND);
        assert_eq!(code(contexts.remove(&name(LOCAL))), code::CONFLICT);
        for taken in ["prod", LOCAL] {
            let added = contexts.add(name(taken), entry("box"));
            assert_eq!(code(added), code::CONFLICT);
        }
    }

    #[test]
    fn names_are_words() {
        for text in ["", "-x", ".x", "a b", "a/b", "ä", &"x".repeat(64)] {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_list_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contexts.json");
        private::write(&path, br#"{"contexts":{"prod":{"host":"-x"}}}"#).unwrap();
        let mut text = Vec::new();
        let failure = Contexts::read(&path).unwrap_err();
        failure.render(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.contains("contexts.json") && text.contains("try: "),
            "{text}"
        );
    }
}
