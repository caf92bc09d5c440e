//! The variables that a compose file can use: the caller's own, then those of `.env`
//! beside the file (Compose Specification, Interpolation).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::super::files::{self, FileError};
use super::dotenv::{self, DotenvError};
use crate::value::env::Variable;

/// Bytes of all values and files that are put in somewhere.
const MAX_BYTES: usize = 64 << 20;

/// A few lines ask for more than anybody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_BYTES} bytes of variables and files are put in")]
pub(super) struct Spent;

/// Why a file of variables cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum VariablesError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path}, {source}")]
    Text { path: String, source: DotenvError },
    #[error(transparent)]
    Spent(#[from] Spent),
}

/// Variables by name.
pub(super) struct Variables<'a> {
    /// The caller's own environment.
    own: &'a dyn Fn(&str) -> Option<String>,
    /// What goes before it.
    fixed: BTreeMap<String, String>,
    /// What goes behind it.
    files: BTreeMap<String, String>,
    /// Those that the file has which is being read.
    earlier: BTreeMap<String, String>,
    left: usize,
    /// Those that had no value where one was wanted.
    unset: BTreeSet<String>,
}

impl<'a> Variables<'a> {
    /// The caller's own and nothing else.
    pub(super) fn new(own: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            own,
            fixed: BTreeMap::new(),
            files: BTreeMap::new(),
            earlier: BTreeMap::new(),
            left: MAX_BYTES,
            unset: BTreeSet::new(),
        }
    }

    /// Adds those of `.env` in this folder, if there is one.
    pub(super) fn add_dotenv(&mut self, folder: &Path) -> Result<(), VariablesError> {
        match self.of_file(&folder.join(".env")) {
            Ok(variables) => {
                let given = variables.into_iter();
                let given = given.filter_map(|Variable { name, value }| Some((name, value?)));
                self.files.extend(given);
                Ok(())
            }
            Err(VariablesError::File(FileError::Read { source, .. }))
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// What a file of variables says with nothing quoted and nothing put in.
    pub(super) fn of_raw_file(&mut self, path: &Path) -> Result<Vec<Variable>, VariablesError> {
        let variables = files::of_file(path)?;
        let values = variables.iter().filter_map(|one| one.value.as_deref());
        self.spend(values.map(str::len).sum())?;
        Ok(variables)
    }

    /// What a file of variables says; a name alone has no value.
    pub(super) fn of_file(&mut self, path: &Path) -> Result<Vec<Variable>, VariablesError> {
        let text = files::read_text(path, files::MAX_BYTES)?;
        self.spend(text.len())?;
        dotenv::parse(&text, self).map_err(|source| VariablesError::Text {
            path: path.display().to_string(),
            source,
        })
    }

    /// Sets a variable, whatever it is elsewhere.
    pub(super) fn fix(&mut self, name: &str, value: &str) {
        self.fixed.insert(name.to_owned(), value.to_owned());
    }

    /// Sets a variable that what follows in the same file can use.
    pub(super) fn set_earlier(&mut self, name: &str, value: &str) {
        self.earlier.insert(name.to_owned(), value.to_owned());
    }

    /// Another file begins.
    pub(super) fn forget_earlier(&mut self) {
        self.earlier.clear();
    }

    /// The value of a variable that is wanted as it is.
    pub(super) fn value(&mut self, name: &str) -> Result<Option<String>, Spent> {
        let value = self.get(name);
        match &value {
            Some(value) => self.spend(value.len())?,
            None => drop(self.unset.insert(name.to_owned())),
        }
        Ok(value)
    }

    /// The value of a variable.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let fixed = self.fixed.get(name).cloned();
        fixed
            .or_else(|| (self.own)(name))
            .or_else(|| self.files.get(name).cloned())
            .or_else(|| self.earlier.get(name).cloned())
    }

    /// Takes so many bytes from what can be put in.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), Spent> {
        self.left = self.left.checked_sub(bytes).ok_or(Spent)?;
        Ok(())
    }

    /// Those that were wanted and are not set.
    pub(super) fn into_unset(self) -> BTreeSet<String> {
        self.unset
    }
}
