//! Finding an app's file and reading it by its format.

use std::path::{Path, PathBuf};

use super::document::clean;
use super::{App, compose, files, toml};
use crate::failure::Failure;

/// The files that are looked for, in order: ours, then those of the Compose
/// Specification (The Compose file).
const NAMES: [&str; 5] = [
    "dyno.toml",
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];

/// Files that Docker Compose lays over the others of their name.
const OVERRIDES: [&str; 4] = [
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yaml",
    "docker-compose.override.yml",
];

/// An app, and what its author should know of how its file was read.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The app.
    pub(crate) app: App,
    /// Lines for a person.
    pub(crate) notes: Vec<String>,
}

/// Reads the app of this file, or of the first that is found in the working directory.
///
/// # Errors
/// A [`Failure`] where there is none, or with all that is wrong with it.
pub(crate) fn load(file: Option<&Path>) -> Result<Loaded, Failure> {
    let cwd = std::env::current_dir()
        .map_err(|error| Failure::io("cannot tell the working directory", &error))?;
    let (file, mut notes) = match file {
        Some(file) => (file.to_owned(), Vec::new()),
        None => find(&cwd)?,
    };
    let text = files::read_text(&cwd.join(&file), files::MAX_BYTES)
        .map_err(|error| Failure::new(error.to_string()))?;
    // Names of folders are asked for, which `..` has none of.
    let whole = std::path::absolute(&file)
        .map_err(|error| Failure::io(format!("cannot tell where {} is", file.display()), &error))?;
    let folder = whole.parent().unwrap_or(&cwd);
    let shown = file.display().to_string();
    let app = match file.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => toml::read(&text, shown, folder)?,
        Some("yaml" | "yml") => {
            let own = |name: &str| std::env::var(name).ok();
            let read = compose::read(&text, shown, folder, &own)?;
            let unset = |name: &String| format!("{name} is not set, and nothing is put in for it");
            notes.extend(read.unset.iter().map(unset));
            read.app
        }
        _ => {
            let shown = clean(&shown);
            return Err(
                Failure::usage(format!("{shown} is no app's file by its name"))
                    .hint("call it .toml, or .yaml where it is a compose file"),
            );
        }
    };
    Ok(Loaded { app, notes })
}

/// The first that is there, and which others are not read.
fn find(cwd: &Path) -> Result<(PathBuf, Vec<String>), Failure> {
    let there = |name: &&&str| cwd.join(name).exists();
    let mut found = NAMES.iter().filter(there);
    let Some(first) = found.next() else {
        let message = format!("there is no {} here", NAMES.join(", "));
        return Err(Failure::new(message).hint("name the file: -f FILE"));
    };
    let others: Vec<&str> = found
        .chain(OVERRIDES.iter().filter(there))
        .copied()
        .collect();
    let notes = match others.is_empty() {
        true => Vec::new(),
        false => vec![format!("{first} is read, and not {}", others.join(", "))],
    };
    Ok((PathBuf::from(first), notes))
}
