//! The processes of a cgroup: who they are, and freezing, killing, waiting, removing.
//!
//! On v2 (hybrid machines included) the kernel does each of these for the whole
//! group at once. Without a v2 tree the v1 freezer holds the group still while
//! every member gets its signal.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use super::error::{Error, Result};
use super::layout::Controller;
use super::{Cgroup, file};

/// How often something is looked at that the kernel does not notify us of.
const LOOK: Duration = Duration::from_millis(2);

/// How often something is looked at that the kernel does notify us of. It puts off what
/// follows upon another notification by 10 ms, and forgets it where the group is removed
/// meanwhile (`cgroup_file_notify`, kernel/cgroup/cgroup.c).
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl Cgroup {
    /// Moves a process into every hierarchy of this cgroup.
    ///
    /// # Errors
    /// When the kernel refuses, such as for a process that has ended.
    pub fn add(&self, pid: Pid) -> Result<()> {
        self.folders()
            .into_iter()
            .try_for_each(|folder| enter(folder, pid))
    }

    pub(super) fn enter_v2(&self, pid: Pid) -> Result<()> {
        match self.record.v2.as_deref() {
            Some(folder) => enter(folder, pid),
            None => Ok(()),
        }
    }

    /// The `tasks` file of each v1 folder, open for writing. A process with one thread
    /// that writes `0` there moves itself, and whatever it clones is born there. The
    /// kernel lets it do so at once, where moving another process waits for an RCU
    /// grace period: 6 to 10 ms.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub fn v1_tasks(&self) -> Result<Vec<File>> {
        let v2 = self.record.v2.as_deref();
        let folders = self
            .folders()
            .into_iter()
            .filter(|folder| Some(*folder) != v2);
        let open = |folder: &Path| {
            let path = folder.join("tasks");
            File::options()
                .write(true)
                .open(&path)
                .map_err(Error::file("open", &path))
        };
        folders.map(open).collect()
    }

    /// All processes in the group and the groups below it. A removed group has none.
    ///
    /// # Errors
    /// When the lists cannot be read.
    pub fn procs(&self) -> Result<Vec<Pid>> {
        let mut pids = Vec::new();
        if self.record.absent {
            return Ok(pids);
        }
        let folder = self.main_folder();
        collect(folder, &mut pids).map_err(Error::file("list processes of", folder))?;
        Ok(pids)
    }

    /// Whether any process is in the group or below it.
    ///
    /// # Errors
    /// When the kernel's answer cannot be read.
    pub fn populated(&self) -> Result<bool> {
        match &self.record.v2 {
            Some(folder) => {
                let path = folder.join("cgroup.events");
                let events = file::gone_is_none(file::read(&path));
                let events = events.map_err(Error::file("read", &path))?;
                Ok(events.is_some_and(|events| file::keyed(&events, "populated") != Some(0)))
            }
            None => Ok(!self.procs()?.is_empty()),
        }
    }

    /// Kills every process in the group and below it, new ones included. They are
    /// dying when this returns; [`Cgroup::wait_empty`] waits until they are gone.
    ///
    /// # Errors
    /// When the kernel refuses. A group that is gone is not an error, nor is one that
    /// never was ([`Cgroup::is_absent`]), of which no member is known here.
    pub fn kill(&self) -> Result<()> {
        if self.record.absent {
            return Ok(());
        }
        let Some(folder) = &self.record.v2 else {
            return self.kill_one_by_one();
        };
        self.killed.set(true);
        let path = folder.join("cgroup.kill");
        file::gone_is_none(file::write(&path, "1")).map_err(Error::file("write", &path))?;
        Ok(())
    }

    /// Sends a signal to every process that is in the group at this moment. The
    /// group is held still meanwhile, so that none is missed by forking.
    ///
    /// # Errors
    /// When the group cannot be frozen or listed.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let frozen = self.freeze(Duration::from_secs(2));
        let sent = frozen.and_then(|()| self.signal_each(signal));
        self.thaw()?;
        sent
    }

    fn kill_one_by_one(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            // A group that cannot be frozen (a D-state member, no freezer) is killed
            // all the same: then the loop catches those who are born meanwhile.
            let frozen = self.freeze(Duration::from_millis(100)).is_ok();
            self.signal_each(Signal::KILL)?;
            if self.v1(Controller::Freezer).is_some() {
                self.thaw()?;
            }
            if frozen || !self.populated()? || Instant::now() >= deadline {
                return Ok(());
            }
        }
    }

    fn signal_each(&self, signal: Signal) -> Result<()> {
        for pid in self.procs()? {
            match kill_process(pid, signal) {
                // It was a zombie, or it is gone.
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(Error::file("signal", self.main_folder())(error)),
            }
        }
        Ok(())
    }

    /// Stops every process of the group until [`Cgroup::thaw`].
    ///
    /// # Errors
    /// [`Error::Timeout`] when one of them cannot be stopped within `timeout`
    /// (uninterruptible sleep); the group goes on freezing then.
    pub fn freeze(&self, timeout: Duration) -> Result<()> {
        self.set_frozen(true)?;
        let deadline = Instant::now() + timeout;
        if let Some(folder) = &self.record.v2 {
            return wait_event(folder, "frozen", 1, deadline, timeout);
        }
        let Some(folder) = self.v1(Controller::Freezer) else {
            return Ok(());
        };
        let path = folder.join("freezer.state");
        loop {
            let state = file::gone_is_none(file::read(&path));
            match state.map_err(Error::file("read", &path))?.as_deref() {
                None | Some("FROZEN") => return Ok(()),
                // Asking again catches what was forked while it froze.
                Some(_) => self.set_frozen(true)?,
            }
            if Instant::now() >= deadline {
                return Err(timed_out(folder, "frozen", timeout));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Lets a frozen group run on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen(false)
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        let (path, value) = match (&self.record.v2, self.v1(Controller::Freezer)) {
            (Some(folder), _) => (folder.join("cgroup.freeze"), if frozen { "1" } else { "0" }),
            (None, Some(folder)) => (
                folder.join("freezer.state"),
                if frozen { "FROZEN" } else { "THAWED" },
            ),
            (None, None) if self.record.absent => {
                let reason = "the container has no cgroup, as none was delegated to its maker";
                return Err(Error::unenforceable("freezer", frozen, reason));
            }
            (None, None) => {
                let reason = "this host has neither cgroup v2 nor the v1 freezer";
                return Err(Error::unenforceable("freezer", frozen, reason));
            }
        };
        file::gone_is_none(file::write(&path, value)).map_err(Error::file("write", &path))?;
        Ok(())
    }

    /// Waits until no process is left in the group or below it.
    ///
    /// # Errors
    /// [`Error::Timeout`] when there still is one after `timeout`.
    pub fn wait_empty(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        if let Some(folder) = &self.record.v2 {
            return wait_event(folder, "populated", 0, deadline, timeout);
        }
        while self.populated()? {
            if Instant::now() >= deadline {
                return Err(timed_out(self.main_folder(), "empty", timeout));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Removes the group as [`Cgroup::remove`] does, if no process is left in it: what
    /// is known to have ended need not be killed. False where something is left, or
    /// somebody else removes it.
    ///
    /// # Errors
    /// When the kernel refuses for another reason than that.
    pub fn remove_empty(&self) -> Result<bool> {
        if self.record.unit.is_some() || self.record.absent {
            return Ok(false);
        }
        for folder in self.folders() {
            match remove_tree(folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Ok(false),
                Err(error) => return Err(Error::file("remove", folder)(error)),
            }
        }
        Ok(true)
    }

    /// Removes the group's folders and what the container made below them; outer
    /// folders stay. What is gone already is not an error.
    ///
    /// # Errors
    /// [`Error::Timeout`] when processes are still in it after `timeout`.
    pub fn remove(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        if self.record.unit.is_some() {
            // Stopping would kill who is left, without being asked.
            drop(self.holder.take());
            self.wait_empty(timeout)?;
            self.stop_unit()?;
        }
        for folder in self.folders() {
            // EBUSY outlasts the last process for a moment: the kernel lets go of
            // a group only after its members are reaped.
            while let Err(error) = remove_tree(folder) {
                if error.raw_os_error() != Some(libc::EBUSY) {
                    return Err(Error::file("remove", folder)(error));
                }
                if Instant::now() >= deadline {
                    return Err(timed_out(folder, "empty", timeout));
                }
                std::thread::sleep(LOOK);
            }
        }
        Ok(())
    }
}

fn enter(folder: &Path, pid: Pid) -> Result<()> {
    let path = folder.join("cgroup.procs");
    file::write(&path, &pid.as_raw_nonzero().to_string())
        .map_err(Error::file("move a process into", &path))
}

fn collect(folder: &Path, pids: &mut Vec<Pid>) -> io::Result<()> {
    match file::gone_is_none(file::read(&folder.join("cgroup.procs"))) {
        Ok(Some(list)) => {
            // Processes outside our pid namespace read as 0.
            let visible = list
                .lines()
                .filter_map(|pid| pid.parse().ok().and_then(Pid::from_raw));
            pids.extend(visible);
        }
        Ok(None) => return Ok(()),
        // A threaded group: its processes are listed above it.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        Err(error) => return Err(error),
    }
    for child in children(folder)? {
        collect(&child, pids)?;
    }
    Ok(())
}

/// Removes a folder after those below it. Already gone is success.
pub(super) fn remove_tree(folder: &Path) -> io::Result<()> {
    match file::gone_is_none(std::fs::remove_dir(folder)) {
        Ok(_) => return Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
        Err(error) => return Err(error),
    }
    for child in children(folder)? {
        remove_tree(&child)?;
    }
    file::gone_is_none(std::fs::remove_dir(folder))?;
    Ok(())
}

fn children(folder: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let Some(entries) = file::gone_is_none(std::fs::read_dir(folder))? else {
        return Ok(Vec::new());
    };
    let mut children = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            children.push(entry.path());
        }
    }
    Ok(children)
}

/// Waits until `key` of `cgroup.events` has a value; the file polls as POLLPRI on
/// every change since it was last read, cgroup-v2.rst.
fn wait_event(
    folder: &Path,
    key: &'static str,
    value: u64,
    deadline: Instant,
    timeout: Duration,
) -> Result<()> {
    let path = folder.join("cgroup.events");
    let failed = |action| Error::file(action, &path);
    let Some(mut events) = file::gone_is_none(File::open(&path)).map_err(failed("open"))? else {
        return Ok(());
    };
    loop {
        let mut text = String::new();
        // systemd removes a scope's folder by itself, at any moment.
        let read = events.rewind();
        let read = read.and_then(|()| events.read_to_string(&mut text));
        let read = file::gone_is_none(read).map_err(failed("read"))?;
        if read.is_none() || file::keyed(&text, key) == Some(value) {
            return Ok(());
        }
        let Some(left) = deadline.checked_duration_since(Instant::now()) else {
            return Err(timed_out(
                folder,
                if value == 0 { "empty" } else { key },
                timeout,
            ));
        };
        let mut fds = [PollFd::new(&events, PollFlags::PRI)];
        match poll(
            &mut fds,
            Some(&Timespec::try_from(left.min(LOOK_AGAIN)).unwrap_or_default()),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed("poll")(error.into())),
        }
    }
}

fn timed_out(folder: &Path, awaited: &'static str, timeout: Duration) -> Error {
    Error::Timeout {
        path: folder.to_owned(),
        awaited,
        waited_ms: timeout.as_millis(),
    }
}
