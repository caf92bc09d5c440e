//! newuidmap(1) and newgidmap(1), which map what /etc/subuid and /etc/subgid grant.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, openat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, getpid, waitpid};

use super::Error;
use crate::child::{self, Receiver, Reporter};
use crate::sys;
use crate::sys::process::CStringArray;

/// One of the two.
pub(super) struct Kind {
    name: &'static str,
    property: &'static str,
    file: &'static str,
}

pub(super) const UIDS: Kind = Kind {
    name: "newuidmap",
    property: "linux.uidMappings",
    file: "/etc/subuid",
};

pub(super) const GIDS: Kind = Kind {
    name: "newgidmap",
    property: "linux.gidMappings",
    file: "/etc/subgid",
};

/// Where they are installed. Not `PATH`: a stranger's program would be told to map
/// ids, and its word be taken for it.
const FOLDERS: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"];

/// No refusal is told at greater length, in bytes (P15).
const LONGEST: u64 = 1000;

/// A process outside of the new namespace that waits to become one of them.
pub(super) struct Helper {
    kind: &'static Kind,
    path: PathBuf,
    ids: String,
    uid: u32,
    process: Pid,
    receiver: Receiver,
    words: OwnedFd,
}

impl Helper {
    /// None where there is nothing to map but the user's own id.
    pub(super) fn new(
        kind: &'static Kind,
        (uid, own): (u32, u32),
        ranges: &[Range<u32>],
    ) -> Result<Option<Self>, Error> {
        if ranges.is_empty() {
            return Ok(None);
        }
        let ids = words_of(ranges);
        let places = FOLDERS.map(|folder| Path::new(folder).join(kind.name));
        let Some(path) = places.iter().find(|place| may_be_executed(place)) else {
            return Err(Error::NoHelper {
                property: kind.property,
                ids,
                helper: kind.name,
                places: places
                    .iter()
                    .map(|place| place.display().to_string())
                    .collect(),
            });
        };
        let failed = "prepare a helper that maps ids";
        let program = c_string(&path.display().to_string())?;
        let mut argv = vec![
            program.clone(),
            c_string(&getpid().as_raw_nonzero().to_string())?,
        ];
        let own = std::iter::once([0, own, 1]);
        let others = ranges
            .iter()
            .map(|range| [range.start, range.start, range.end - range.start]);
        for number in own.chain(others).flatten() {
            argv.push(c_string(&number.to_string())?);
        }
        let (argv, envp) = (CStringArray::new(argv), CStringArray::new(Vec::new()));
        let (receiver, reporter) = child::pair().map_err(Error::system(failed))?;
        let (words, told) = pipe_with(PipeFlags::CLOEXEC).map_err(Error::system(failed))?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let null = openat(CWD, "/dev/null", flags, Mode::empty());
        let null = null.map_err(Error::system("open /dev/null"))?;
        let process = sys::process::clone3(0, None, || {
            receiver.close_copy();
            become_it(
                &reporter,
                null.as_fd(),
                told.as_fd(),
                &program,
                &argv,
                &envp,
            )
        });
        let process = process.map_err(Error::system(failed))?;
        Ok(Some(Self {
            kind,
            path: path.clone(),
            ids,
            uid,
            process,
            receiver,
            words,
        }))
    }

    /// Lets it map the ids of this process.
    pub(super) fn run(self) -> Result<(), Error> {
        let failed = "let a helper map ids";
        self.receiver.go(None).map_err(Error::system(failed))?;
        let mut words = Vec::new();
        File::from(self.words)
            .take(LONGEST)
            .read_to_end(&mut words)
            .map_err(Error::system(failed))?;
        let ended = rustix::io::retry_on_intr(|| waitpid(Some(self.process), WaitOptions::empty()));
        let ended = ended.map_err(Error::system(failed))?;
        if ended.is_some_and(|(_, status)| status.exit_status() == Some(0)) {
            return Ok(());
        }
        Err(Error::Refused {
            property: self.kind.property,
            ids: self.ids,
            helper: self.path,
            uid: self.uid,
            words: String::from_utf8_lossy(&words).trim().to_owned(),
            file: self.kind.file,
        })
    }
}

/// Runs in the child.
fn become_it(
    reporter: &Reporter,
    null: BorrowedFd<'_>,
    told: BorrowedFd<'_>,
    program: &CString,
    argv: &CStringArray,
    envp: &CStringArray,
) -> Infallible {
    let ready = || -> Result<(), Errno> {
        reporter.await_parent()?;
        rustix::stdio::dup2_stdin(null)?;
        rustix::stdio::dup2_stdout(told)?;
        rustix::stdio::dup2_stderr(told)?;
        // P4: it is a stranger with privileges.
        sys::process::close_range_cloexec(3)
    };
    if ready().is_ok() {
        sys::process::execve(program, argv, envp);
    }
    sys::process::exit_now(127)
}

fn may_be_executed(path: &Path) -> bool {
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}

fn words_of(ranges: &[Range<u32>]) -> String {
    let words: Vec<String> = ranges
        .iter()
        .map(|range| match range.end - range.start {
            1 => range.start.to_string(),
            _ => format!("{} to {}", range.start, range.end - 1),
        })
        .collect();
    format!("the ids {}", words.join(", "))
}

fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(Error::system("prepare a helper that maps ids"))
}
