//! Machines by names of the user's own, and the one that is meant where none is
//! named: `~/.config/dyno/contexts.json`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::destination::Destination;
use crate::failure::{Failure, code};

/// The name of this machine, which is always there.
pub(crate) const LOCAL: &str = "local";

/// The most that is read of the list, in bytes (P15).
const FILE_MAX: u64 = 1 << 20;

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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    host: Destination,
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
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
        };
        let mut text = Vec::new();
        file.take(FILE_MAX).read_to_end(&mut text).map_err(failed)?;
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
        if let Some(folder) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        let new = path.with_extension(format!("json.{}", std::process::id()));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        let written = serde_json::to_writer_pretty(&mut file, self)
            .map_err(io::Error::from)
            .and_then(|()| file.write_all(b"\n"))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&new, path));
        if written.is_err() {
            fs::remove_file(&new).ok();
        }
        written
    }

    /// The machine of a context; none for this one.
    ///
    /// # Errors
    /// Not found.
    pub(crate) fn host(&self, name: &Name) -> Result<Option<Destination>, Failure> {
        if name.is_local() {
            return Ok(None);
        }
        match self.contexts.get(name) {
            Some(entry) => Ok(Some(entry.host.clone())),
            None => Err(missing(name)),
        }
    }

    /// The machine that is meant where none is named.
    ///
    /// # Errors
    /// Not found, where somebody has edited the list.
    pub(crate) fn chosen(&self) -> Result<Option<Destination>, Failure> {
        match &self.current {
            Some(name) => self.host(name),
            None => Ok(None),
        }
    }

    /// The name of the context that is meant where none is named.
    pub(crate) fn current(&self) -> &str {
        self.current.as_ref().map_or(LOCAL, Name::as_str)
    }

    /// Names and machines, in order, without this one.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Name, &Destination)> {
        self.contexts
            .iter()
            .map(|(name, entry)| (name, &entry.host))
    }

    /// Adds one.
    ///
    /// # Errors
    /// Conflict where the name is taken.
    pub(crate) fn add(&mut self, name: Name, host: Destination) -> Result<(), Failure> {
        if name.is_local() || self.contexts.contains_key(&name) {
            let failure = Failure::new(format!("there is a context {name:?}", name = name.0));
            let hint = match name.is_local() {
                true => "choose another name: local is this machine".to_owned(),
                false => format!("dyno ctx rm {name}"),
            };
            return Err(failure.hint(hint).with_code(code::CONFLICT));
        }
        self.contexts.insert(name, Entry { host });
        Ok(())
    }

    /// Chooses one.
    ///
    /// # Errors
    /// Not found.
    pub(crate) fn choose(&mut self, name: Name) -> Result<(), Failure> {
        self.host(&name)?;
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

/// XDG Base Directory Specification: `$XDG_CONFIG_HOME`, else `~/.config`.
fn path() -> Option<PathBuf> {
    let variable = |name: &str| {
        let value = std::env::var_os(name).map(PathBuf::from);
        value.filter(|path| path.is_absolute())
    };
    let folder = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))?;
    Some(folder.join("dyno/contexts.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn two() -> Contexts {
        let mut contexts = Contexts::default();
        for (each, host) in [("prod", "ann@box:2222"), ("lab", "ssh://[::1]/run/x.sock")] {
            contexts.add(name(each), host.parse().unwrap()).unwrap();
        }
        contexts
    }

    #[test]
    fn what_is_written_is_read_again_and_is_nobody_elses() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dyno/contexts.json");
        assert_eq!(Contexts::read(&path).unwrap(), Contexts::default());
        let mut contexts = two();
        contexts.choose(name("lab")).unwrap();
        for _ in 0..2 {
            contexts.write(&path).unwrap();
        }
        assert_eq!(Contexts::read(&path).unwrap(), contexts);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn the_chosen_one_is_meant_until_it_is_removed() {
        let mut contexts = two();
        assert_eq!(contexts.chosen().unwrap(), None);
        contexts.choose(name("prod")).unwrap();
        let host = contexts.chosen().unwrap().unwrap();
        assert_eq!(host.to_string(), "ann@box:2222");
        contexts.remove(&name("prod")).unwrap();
        assert_eq!(
            (contexts.chosen().unwrap(), contexts.current()),
            (None, LOCAL)
        );
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
            let host = "box".parse().unwrap();
            assert_eq!(code(contexts.add(name(taken), host)), code::CONFLICT);
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
        let mut file = File::create(&path).unwrap();
        file.write_all(br#"{"contexts":{"prod":{"host":"-x"}}}"#)
            .unwrap();
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
