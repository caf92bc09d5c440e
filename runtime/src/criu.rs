//! CRIU, which saves processes and brings them back: where it is, and what it answers.
//!
//! ```text
//!  checkpoint ─▶ criu dump    ─▶ images + dyno-runtime.json ([`Image`])
//!  restore    ◀─ criu restore ◀─ the same, with config.json for what lies outside
//! ```
//!
//! It is executed by its own command line. What the kernel lacks is asked of it first,
//! so that nobody finds it out with processes half saved.

mod image;
pub(crate) mod lock;
mod mounts;
mod outside;
mod readable;
mod restoration;
mod scaffold;
pub(crate) mod stage;

pub(crate) use image::Image;
pub(crate) use mounts::{External, ids, saved};
pub(crate) use outside::Outside;
pub(crate) use readable::{Readable, close};
pub(crate) use restoration::{Restoration, Streams, set_apart, written};
pub(crate) use scaffold::Scaffold;

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::plan::PlanError;

/// Name by which a network that was made elsewhere is known in the images.
pub(crate) const NETWORK: &str = "dyno-net";

/// Why nothing could be saved, or brought back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The program is not there.
    #[error("there is no criu in PATH: install it (Debian's package is criu)")]
    Missing,
    /// It says that it cannot work on this kernel.
    #[error(
        "`criu check` says that this kernel will not do for criu {version}: {reason}; try a newer criu, or another kernel"
    )]
    Kernel {
        /// Its version.
        version: String,
        /// Its own words.
        reason: String,
    },
    /// It could not do what was asked.
    #[error("criu {verb} failed: {reason}; all of it is in {}", log.display())]
    Failed {
        /// What it was asked for.
        verb: &'static str,
        /// Its own words.
        reason: String,
        /// Where it wrote.
        log: PathBuf,
    },
    /// It, or a file of its, could not be handled.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// The reason.
        source: io::Error,
    },
    /// What it is handed cannot be prepared.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The container has something that cannot be saved or brought back.
    #[error("{0}")]
    Unfit(String),
}

impl Error {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// The program `criu`.
#[derive(Debug)]
pub(crate) struct Criu(PathBuf);

impl Criu {
    /// Where `PATH` has it; nothing is executed.
    pub(crate) fn find() -> Option<Self> {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|folder| folder.join("criu"))
            .find(|file| file.is_file())
            .map(Self)
    }

    /// One that says itself that it works on this kernel.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Kernel`], or a failure to execute it.
    pub(crate) fn ready() -> Result<Self, Error> {
        Self::find().ok_or(Error::Missing)?.checked()
    }

    /// This one, if it says itself that it works on this kernel.
    ///
    /// # Errors
    /// As [`Criu::ready`].
    pub(crate) fn at(path: &Path) -> Result<Self, Error> {
        match path.is_file() {
            true => Self(path.to_owned()).checked(),
            false => Err(Error::Missing),
        }
    }

    fn checked(self) -> Result<Self, Error> {
        let criu = self;
        let checked = criu.output("check")?;
        if checked.status.success() {
            return Ok(criu);
        }
        let version = criu.output("--version")?;
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let version = version.lines().next().unwrap_or_default();
        let said = [checked.stdout, checked.stderr].concat();
        Err(Error::Kernel {
            version: version.trim_start_matches("Version:").trim().to_owned(),
            reason: complaints(&String::from_utf8_lossy(&said)),
        })
    }

    /// Its file.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Executes a command to its end, which writes its log to this file of `folder`.
    ///
    /// # Errors
    /// [`Error::Failed`] with its own words.
    pub(crate) fn run(
        verb: &'static str,
        command: &mut Command,
        log: PathBuf,
    ) -> Result<(), Error> {
        let status = command.status();
        Self::ended(
            verb,
            status.map_err(Error::io(format!("execute criu {verb}")))?,
            log,
        )
    }

    /// What its end says.
    ///
    /// # Errors
    /// [`Error::Failed`] with its own words.
    pub(crate) fn ended(
        verb: &'static str,
        status: std::process::ExitStatus,
        log: PathBuf,
    ) -> Result<(), Error> {
        if status.success() {
            return Ok(());
        }
        let text = std::fs::read(&log).unwrap_or_default();
        let mut reason = complaints(&String::from_utf8_lossy(&text));
        if reason.is_empty() {
            reason = status.to_string();
        }
        Err(Error::Failed { verb, reason, log })
    }

    fn output(&self, word: &str) -> Result<std::process::Output, Error> {
        let mut command = Command::new(&self.0);
        command.arg(word).stdin(Stdio::null());
        let output = command.output();
        output.map_err(Error::io(format!("execute {} {word}", self.0.display())))
    }
}

/// CRIU's words for folders, an absolute one of images and one of its log; where that is.
pub(crate) fn say_folders(command: &mut Command, images: &Path, work: &Path, log: &str) -> PathBuf {
    command
        .arg(word("--images-dir=", images))
        .arg(word("--work-dir=", work))
        .arg(format!("--log-file={log}"))
        .args(["-v4", "--manage-cgroups=ignore"]);
    work.join(log)
}

/// `key=value` as one word, whatever bytes the value has.
pub(crate) fn word(key: &str, value: impl AsRef<OsStr>) -> std::ffi::OsString {
    let mut word = std::ffi::OsString::from(key);
    word.push(value);
    word
}

/// The errors of a log, in one line: the first few name the cause.
fn complaints(log: &str) -> String {
    let errors = log.lines().filter_map(|line| {
        let (_, error) = line.split_once("Error (")?;
        // The place in its source, `criu/vdso.c:381): `, tells nobody anything.
        error.split_once("): ").map(|(_, words)| words.trim())
    });
    errors.take(4).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_the_errors_are_told_without_their_place_in_the_source() {
        let log = "(00.009153) vdso: nbucket 3\n\
                   (00.009155) Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds\n\
                   Error (criu/crtools.c:260): Could not initialize kernel features detection.\n";
        assert_eq!(
            complaints(log),
            "vdso: Unexpected rt vDSO area bounds; Could not initialize kernel features detection."
        );
        assert_eq!(complaints("nothing is wrong\n"), "");
    }
}
