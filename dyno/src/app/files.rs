//! The files that an app's file names.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use dyno_api::secret::{CONFIG_FILE_MAX_BYTES, ConfigFile};

use super::document::{Fields, Item};
use crate::command::run::environment;
use crate::value::env::{self, Variable};
use crate::value::given::ConfigFileFlag;

/// Bytes of an app's file and of a file of variables.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("{path} has more than {most} bytes")]
    Long { path: String, most: usize },
    #[error("{path} is no text")]
    Text { path: String },
    #[error("{path}, {source}")]
    Variables {
        path: String,
        source: env::FileError,
    },
}

/// The bytes of a file, all of them within a limit.
pub(super) fn read_bytes(path: &Path, most: usize) -> Result<Vec<u8>, FileError> {
    let shown = || path.display().to_string();
    let mut bytes = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|source| FileError::Read {
            path: shown(),
            source,
        })?;
    if bytes.len() > most {
        return Err(FileError::Long {
            path: shown(),
            most,
        });
    }
    Ok(bytes)
}

/// The text of a file.
pub(super) fn read_text(path: &Path, most: usize) -> Result<String, FileError> {
    String::from_utf8(read_bytes(path, most)?).map_err(|_bytes| FileError::Text {
        path: path.display().to_string(),
    })
}

/// The variables of `env_file` and of the table `key`, which goes before files.
pub(super) fn variables(
    fields: &mut Fields<'_>,
    key: &str,
    folder: &Path,
) -> BTreeMap<String, String> {
    let mut variables = Vec::new();
    let files = fields.take("env_file").map(|item| item.one_or_more());
    for item in files.iter().flatten() {
        let file = item.text().map(|path| folder.join(path));
        let read = file.and_then(|path| item.take(of_file(&path)));
        variables.extend(read.into_iter().flatten());
    }
    let own = fields.take(key).map(|item| item.entries());
    for (name, item) in own.into_iter().flatten() {
        if name.contains('=') {
            item.wrong("the name of a variable has no `=`");
        }
        let value = item.text();
        let named = value.and_then(|value| item.take(env::parse(&format!("{name}={value}"))));
        variables.extend(named);
    }
    environment::resolve(variables, |name| std::env::var(name).ok())
}

/// What a file of `NAME=value` lines says.
pub(super) fn of_file(path: &Path) -> Result<Vec<Variable>, FileError> {
    let text = read_text(path, MAX_BYTES)?;
    env::parse_file(&text).map_err(|source| FileError::Variables {
        path: path.display().to_string(),
        source,
    })
}

/// A configuration file with what it holds now.
pub(super) fn config_file(
    item: &Item<'_>,
    folder: &Path,
    flag: ConfigFileFlag,
) -> Option<ConfigFile> {
    let content = read_text(&folder.join(flag.source), CONFIG_FILE_MAX_BYTES);
    Some(ConfigFile {
        target: flag.target,
        content: Some(item.take(content)?),
        mode: flag.mode,
    })
}
