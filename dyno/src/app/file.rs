//! Finding an app's file and reading it by its format.

use std::path::{Path, PathBuf};

use super::{App, files, toml};
use crate::failure::Failure;

/// The files that are looked for, in order.
const NAMES: [&str; 1] = ["dyno.toml"];

/// Reads the app of this file, or of the first that is found in the working directory.
///
/// # Errors
/// A [`Failure`] where there is none, or with all that is wrong with it.
pub(crate) fn load(file: Option<&Path>) -> Result<App, Failure> {
    let cwd = std::env::current_dir()
        .map_err(|error| Failure::io("cannot tell the working directory", &error))?;
    let file = match file {
        Some(file) => file.to_owned(),
        None => find(&cwd)?,
    };
    let text = files::read_text(&cwd.join(&file), files::MAX_BYTES)
        .map_err(|error| Failure::new(error.to_string()))?;
    // Names of folders are asked for, which `..` has none of.
    let whole = std::path::absolute(&file)
        .map_err(|error| Failure::io(format!("cannot tell where {} is", file.display()), &error))?;
    let folder = whole.parent().unwrap_or(&cwd);
    let shown = file.display().to_string();
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => toml::read(&text, shown, folder),
        _ => Err(
            Failure::usage(format!("{shown} is no app's file by its name")).hint("call it .toml"),
        ),
    }
}

fn find(cwd: &Path) -> Result<PathBuf, Failure> {
    let found = NAMES.iter().find(|name| cwd.join(name).exists());
    found.map(PathBuf::from).ok_or_else(|| {
        let message = format!("there is no {} here", NAMES.join(", "));
        Failure::new(message).hint("name the file: -f FILE")
    })
}
