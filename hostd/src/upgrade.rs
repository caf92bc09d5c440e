//! `hostd upgrade`: programs of another release in the place of these, and hostd
//! restarted; dynos run on meanwhile.
//!
//! ```text
//!  FOLDER ──examine──▶ in memory ──▶ replaced one by one ──▶ systemctl restart hostd
//!                          ▲                                      │ does not come up, or
//!                          │ refused: nothing was touched         ▼ is another version
//!                                    .dyno-previous ──▶ put back, restarted again
//! ```

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dyno_api::client::Client;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::config::{ConfigError, Upgrade};
use crate::durable::{self, Survives};
use crate::systemd::{self, InstallError};

/// Each, and whether it can be asked for its version: dyno-unpack speaks with hostd
/// alone.
const PROGRAMS: [(&str, bool); 5] = [
    ("dyno-runtime", true),
    ("dyno-unpack", false),
    ("dyno-edge", true),
    ("hostd", true),
    ("dyno", true),
];

/// Where those that were replaced are kept, beside the new ones.
const PREVIOUS: &str = ".dyno-previous";

/// How long a program may take to say its version.
const SAYS: Duration = Duration::from_secs(10);

/// How long the new hostd may take to answer once systemd takes it for ready.
const ANSWERS: Duration = Duration::from_secs(30);

/// Bytes of one program: more is none of ours.
const MAX_PROGRAM: u64 = 1 << 30;

/// Why there was no upgrade.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// A program is not what it should be; nothing was changed.
    #[error("{path} is refused: {why}")]
    Refused {
        /// The program.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The programs are there already.
    #[error("{0} is where the programs are installed; --to says where else")]
    Same(PathBuf),
    /// A file could not be read or written.
    #[error("cannot use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The unit runs programs of another folder.
    #[error("hostd.service does not run {0}; --to says where its programs are")]
    Elsewhere(PathBuf),
    /// What was done could not be looked at afterwards.
    #[error("hostd.service runs, and nothing answers at {0}; --socket says where it listens")]
    Silent(PathBuf),
    /// The options cannot be followed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// systemd could not be asked.
    #[error(transparent)]
    Systemd(#[from] InstallError),
    /// A hostd runs that systemd does not look after.
    #[error("a hostd runs that is none of systemd's; --no-restart leaves its restart to you")]
    NotSystemds,
    /// The new one was tried and does not work; the previous one runs again.
    #[error("the new hostd does not work, and {previous} is back: {why}")]
    BackAgain {
        /// The version that runs again.
        previous: String,
        /// What was wrong.
        why: String,
    },
    /// Neither works.
    #[error("the new hostd does not work ({why}), and neither does the previous one: {then}")]
    Neither {
        /// What was wrong with the new one.
        why: String,
        /// What is wrong with the previous one.
        then: String,
    },
}

/// The programs of one release.
#[derive(Debug)]
struct Release {
    version: String,
    programs: Vec<(&'static str, Vec<u8>)>,
}

impl Release {
    /// Reads a release, having asked each program for its version: one that cannot be
    /// executed is found out before anything is changed.
    fn read(folder: &Path) -> Result<Self, UpgradeError> {
        let mut version: Option<String> = None;
        let mut programs = Vec::new();
        for (name, says) in PROGRAMS {
            let path = folder.join(name);
            let refused = |why: String| UpgradeError::Refused {
                path: path.clone(),
                why,
            };
            let bytes = read_program(&path).map_err(|error| refused(error.to_string()))?;
            if says {
                let said = version_of(&path, SAYS).map_err(refused)?;
                if let Some(others) = version.replace(said.clone())
                    && others != said
                {
                    let why = format!("it is of version {said}, and others are of {others}");
                    return Err(refused(why));
                }
            }
            programs.push((name, bytes));
        }
        Ok(Self {
            version: version.unwrap_or_default(),
            programs,
        })
    }

    /// Writes it beside what is there, and only then gives each program its name: a full
    /// disk leaves all as it was. What runs keeps its file.
    fn write(&self, folder: &Path) -> Result<(), UpgradeError> {
        let names = self.programs.iter().map(|(name, _)| *name);
        for (name, bytes) in &self.programs {
            let path = folder.join(new(name));
            let written = durable::write_mode(&path, bytes, 0o755, Survives::PowerCut);
            if let Err(source) = written {
                clean(folder);
                return Err(io_error(&path, source));
            }
        }
        names.into_iter().try_for_each(|name| take(folder, name))
    }
}

/// What is installed, whatever state it is in: an upgrade that was cut short has to be
/// repaired by the next one.
struct Installed {
    folder: PathBuf,
    /// By its hostd, where that one says.
    version: String,
}

impl Installed {
    fn look(folder: PathBuf) -> Self {
        let version = version_of(&folder.join("hostd"), SAYS);
        Self {
            folder,
            version: version.unwrap_or_else(|_| "what was there".to_owned()),
        }
    }

    /// Links the programs into the folder of the previous ones, unless they are a mixture.
    fn keep(&self) -> Result<(), UpgradeError> {
        let versions = PROGRAMS.iter().filter(|(_, says)| *says).map(|(name, _)| {
            let path = self.folder.join(name);
            version_of(&path, SAYS).is_ok_and(|version| version == self.version)
        });
        let previous = self.folder.join(PREVIOUS);
        if previous.exists() && !versions.into_iter().all(|same| same) {
            return Ok(());
        }
        fs::create_dir_all(&previous).map_err(|source| io_error(&previous, source))?;
        for (name, _) in PROGRAMS {
            link(&self.folder.join(name), &previous, name)?;
        }
        Ok(())
    }

    /// Puts the previous ones back; takes no room.
    fn go_back(&self) -> Result<(), UpgradeError> {
        let previous = self.folder.join(PREVIOUS);
        PROGRAMS
            .iter()
            .try_for_each(|(name, _)| link(&previous.join(name), &self.folder, name))
    }
}

/// Gives a program one more name, in place of what has that name now.
fn link(from: &Path, folder: &Path, name: &str) -> Result<(), UpgradeError> {
    let path = folder.join(new(name));
    durable::remove(&path, Survives::Crash).map_err(|source| io_error(&path, source))?;
    match fs::hard_link(from, &path) {
        Ok(()) => take(folder, name),
        // There was none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(io_error(&path, source)),
    }
}

/// The name of a program that is about to be there.
fn new(name: &str) -> String {
    format!(".{name}.new")
}

/// Lets the new one have its name, for good.
fn take(folder: &Path, name: &str) -> Result<(), UpgradeError> {
    let path = folder.join(name);
    fs::rename(folder.join(new(name)), &path)
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(|source| io_error(&path, source))
}

/// Removes what was written and not taken.
fn clean(folder: &Path) {
    for (name, _) in PROGRAMS {
        let path = folder.join(new(name));
        if let Err(error) = durable::remove(&path, Survives::Crash) {
            tracing::warn!(%error, path = %path.display(), "a file is left of an upgrade");
        }
    }
}

/// Replaces the programs and restarts hostd; what happened, for people.
///
/// # Errors
/// [`UpgradeError`]: before anything was changed, or with the previous programs back in
/// their place.
pub fn upgrade(options: &Upgrade) -> Result<String, UpgradeError> {
    let to = match &options.to {
        Some(folder) => folder.clone(),
        None => own_folder()?,
    };
    if same(&options.from, &to) {
        return Err(UpgradeError::Same(to));
    }
    let new = Release::read(&options.from)?;
    let old = Installed::look(to.clone());
    let restart = !options.no_restart && has_hostd(options, &to)?;
    old.keep()?;
    if let Err(error) = new.write(&to) {
        old.go_back()?;
        return Err(error);
    }
    let versions = format!("{} → {}", old.version, new.version);
    if !restart {
        return Ok(format!("{versions}; no hostd was restarted"));
    }
    let Err(why) = restarted(options, &new.version) else {
        return Ok(format!("{versions}; hostd was restarted, and no dyno"));
    };
    old.go_back()?;
    match restarted(options, &old.version) {
        Ok(()) => Err(UpgradeError::BackAgain {
            previous: old.version,
            why,
        }),
        Err(then) => Err(UpgradeError::Neither { why, then }),
    }
}

/// Whether there is a hostd to be restarted.
fn has_hostd(options: &Upgrade, to: &Path) -> Result<bool, UpgradeError> {
    let socket = options.socket()?;
    let answers = std::os::unix::net::UnixStream::connect(&socket).is_ok();
    match (systemd::runs(&to.join("hostd"))?, answers) {
        (Some(true), true) => Ok(true),
        (Some(true), false) => Err(UpgradeError::Silent(socket)),
        (Some(false), _) => Err(UpgradeError::Elsewhere(to.join("hostd"))),
        (None, true) => Err(UpgradeError::NotSystemds),
        (None, false) => Ok(false),
    }
}

/// Restarts the unit, and waits until that version answers.
fn restarted(options: &Upgrade, version: &str) -> Result<(), String> {
    systemd::restart().map_err(|error| durable::chain(&error))?;
    let socket = options.socket().map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let said = runtime.block_on(async {
        let client = Client::new(socket);
        tokio::time::timeout(ANSWERS, client.info()).await
    });
    match said {
        Ok(Ok(info)) if info.version == version => Ok(()),
        Ok(Ok(info)) => Err(format!("a hostd {} answers", info.version)),
        Ok(Err(error)) => Err(durable::chain(&error)),
        Err(_elapsed) => Err(format!("no answer within {ANSWERS:?}")),
    }
}

fn own_folder() -> Result<PathBuf, UpgradeError> {
    let link = Path::new("/proc/self/exe");
    let exe = fs::read_link(link).map_err(|source| io_error(link, source))?;
    Ok(exe.parent().map(Path::to_owned).unwrap_or_default())
}

fn same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

fn io_error(path: &Path, source: io::Error) -> UpgradeError {
    UpgradeError::Io {
        path: path.to_owned(),
        source,
    }
}

fn read_program(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::other("it is no program"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_PROGRAM).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether it has ended before that time is over, pidfd_open(2).
fn ends_within(child: &Child, limit: Duration) -> io::Result<bool> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit))?;
    Ok(ended > 0)
}

/// The last word of the first line that it prints for `--version`.
fn version_of(program: &Path, limit: Duration) -> Result<String, String> {
    let mut child = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let in_time = ends_within(&child, limit);
    if !matches!(in_time, Ok(true)) {
        child.kill().map_err(|error| error.to_string())?;
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if !in_time.map_err(|error| error.to_string())? {
        return Err(format!("it does not say its version within {limit:?}"));
    }
    if !status.success() {
        return Err(format!("asked for its version it ended with {status}"));
    }
    let mut said = String::new();
    // What fits a pipe: it has ended.
    let stdout = child.stdout.take().map(|stdout| stdout.take(4096));
    if let Some(mut stdout) = stdout {
        stdout
            .read_to_string(&mut said)
            .map_err(|error| error.to_string())?;
    }
    let line = said.lines().next().unwrap_or_default();
    let version = line.split_whitespace().last();
    version
        .map(str::to_owned)
        .ok_or_else(|| "it has no version".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scripts that say they are of this version.
    fn release(folder: &Path, version: &str) {
        fs::create_dir_all(folder).unwrap();
        for (name, _) in PROGRAMS {
            program(folder, name, &format!("echo {name} {version}"));
        }
    }

    fn program(folder: &Path, name: &str, script: &str) {
        let text = format!("#!/bin/sh\n{script}\n");
        durable::write_mode(&folder.join(name), text.as_bytes(), 0o755, Survives::Crash).unwrap();
    }

    fn options(from: &Path, to: &Path) -> Upgrade {
        Upgrade {
            from: from.to_owned(),
            to: Some(to.to_owned()),
            no_restart: true,
            socket: None,
        }
    }

    #[test]
    fn programs_are_replaced_and_the_previous_ones_kept_to_go_back_to() {
        let folder = tempfile::tempdir().unwrap();
        let (new, installed) = (folder.path().join("new"), folder.path().join("bin"));
        release(&new, "2.0");
        release(&installed, "1.0");
        let said = upgrade(&options(&new, &installed)).unwrap();
        assert!(said.starts_with("1.0 → 2.0"), "{said}");
        let says = |folder: &Path| version_of(&folder.join("hostd"), SAYS).unwrap();
        assert_eq!(says(&installed), "2.0");
        let previous = installed.join(PREVIOUS);
        assert_eq!(says(&previous), "1.0");
        // Back, from the very folder that is about to be overwritten.
        upgrade(&options(&previous, &installed)).unwrap();
        assert_eq!(
            (says(&installed), says(&previous)),
            ("1.0".into(), "2.0".into())
        );
        let same = upgrade(&options(&installed, &installed)).unwrap_err();
        assert!(matches!(same, UpgradeError::Same(_)), "{same}");
    }

    #[test]
    fn a_broken_release_is_refused_and_nothing_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (new, installed) = (folder.path().join("new"), folder.path().join("bin"));
        release(&installed, "1.0");
        let refused = |what: &str| {
            let error = upgrade(&options(&new, &installed)).unwrap_err();
            assert!(
                matches!(error, UpgradeError::Refused { .. }),
                "{what}: {error}"
            );
            assert!(!installed.join(PREVIOUS).exists(), "{what}");
            let says = version_of(&installed.join("dyno"), SAYS).unwrap();
            assert_eq!(says, "1.0", "{what}");
            error.to_string()
        };
        assert!(refused("no folder").contains("dyno-runtime"));
        release(&new, "2.0");
        program(&new, "dyno-edge", "echo dyno-edge 1.9");
        assert!(refused("mixed").contains("version 1.9"));
        program(&new, "dyno-edge", "exit 3");
        assert!(refused("fails").contains("ended with"));
        program(&new, "dyno-edge", "true");
        assert!(refused("says nothing").contains("no version"));
        durable::write_mode(&new.join("dyno-edge"), b"\x7fELF", 0o755, Survives::Crash).unwrap();
        refused("cut off");
        durable::write_mode(&new.join("dyno-edge"), b"", 0o644, Survives::Crash).unwrap();
        assert!(refused("not executable").contains("no program"));
        fs::remove_file(new.join("dyno-unpack")).unwrap();
        assert!(refused("missing").contains("dyno-unpack"));
    }

    #[test]
    fn an_upgrade_that_was_cut_short_is_repaired_by_the_next_and_keeps_what_was_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (new, installed) = (folder.path().join("new"), folder.path().join("bin"));
        release(&new, "2.0");
        release(&installed, "1.0");
        upgrade(&options(&new, &installed)).unwrap();
        // Half of the next one, and one program lost.
        release(&new, "3.0");
        program(&installed, "dyno-runtime", "echo dyno-runtime 3.0");
        fs::remove_file(installed.join("dyno-edge")).unwrap();
        upgrade(&options(&new, &installed)).unwrap();
        for (name, says) in PROGRAMS {
            let version = version_of(&installed.join(name), SAYS).unwrap();
            assert_eq!(version, "3.0", "{name}");
            let previous = version_of(&installed.join(PREVIOUS).join(name), SAYS);
            assert!(!says || previous.unwrap() == "1.0", "{name}");
        }
        assert_eq!(
            fs::read_dir(&installed).unwrap().count(),
            PROGRAMS.len() + 1
        );
    }

    #[test]
    fn a_program_that_hangs_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        program(folder.path(), "hostd", "exec sleep 1000");
        let path = folder.path().join("hostd");
        let error = version_of(&path, Duration::from_millis(100)).unwrap_err();
        assert!(error.contains("within"), "{error}");
    }
}
