//! `state.json`: what survives the monitor, replaced at every change.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use dyno_failpoint::failpoint;
use rustix::process::{Pid, getpid};

use super::protocol::{ProcessId, State, Status, VERSION, file};
use crate::{cgroup, replace};

/// Writes the state of one dyno.
#[derive(Debug)]
pub(super) struct Recorder {
    path: PathBuf,
    next: PathBuf,
    state: State,
}

impl Recorder {
    /// Prepares the state; nothing is written yet.
    ///
    /// # Errors
    /// When `/proc` does not tell about this process.
    pub(super) fn new(
        dir: &Path,
        id: &str,
        cgroup: cgroup::Record,
        status: Status,
    ) -> io::Result<Self> {
        let state = State {
            version: VERSION,
            id: id.to_owned(),
            monitor: process_id(getpid())?,
            init: None,
            cgroup,
            status,
        };
        Ok(Self {
            path: dir.join(file::STATE),
            next: dir.join(format!("{}.next", file::STATE)),
            state,
        })
    }

    /// The status that was recorded last.
    pub(super) fn status(&self) -> &Status {
        &self.state.status
    }

    /// Records another init, or none.
    pub(super) fn set_init(&mut self, init: Option<ProcessId>) {
        self.state.init = init;
    }

    /// Replaces the file. It lies in a file system in memory: it must be whole
    /// for every reader, but need not outlive the machine, so nothing is synced.
    ///
    /// # Errors
    /// When the file cannot be written; the old one is still there then.
    pub(super) fn write(&mut self, status: Status) -> io::Result<()> {
        self.state.status = status;
        let mut text = serde_json::to_vec(&self.state)?;
        text.push(b'\n');
        File::create(&self.next)?.write_all(&text)?;
        failpoint("monitor_record.written");
        replace::put_in_place(&self.next, &self.path)
            .inspect(|()| failpoint("monitor_record.named"))
    }
}

/// A process with its start time, which makes it unmistakable.
///
/// # Errors
/// When there is no such process.
pub(super) fn process_id(pid: Pid) -> io::Result<ProcessId> {
    let number = pid.as_raw_nonzero().get();
    let stat = fs::read_to_string(format!("/proc/{number}/stat"))?;
    let start_time = start_time(&stat).ok_or(io::ErrorKind::InvalidData)?;
    let pid = number.cast_unsigned();
    Ok(ProcessId { pid, start_time })
}

/// Field 22 of proc_pid_stat(5); the second one, the name, may hold anything.
fn start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        for name in ["sh", "a) S 9 (b", "", ") "] {
            let stat = format!("17 ({name}) {tail}");
            assert_eq!(start_time(&stat), Some(4711), "{name}");
        }
        assert_eq!(start_time("17 (sh) S 1"), None);
    }

    #[test]
    fn a_process_is_told_from_one_that_started_later() {
        let own = process_id(getpid()).unwrap();
        assert!(own.start_time > 0);
        assert_eq!(own, process_id(getpid()).unwrap());
    }
}
