//! Classes of cache and memory bandwidth (OCI runtime spec, `linux.intelRdt`): groups of
//! the kernel's resctrl file system (`Documentation/filesystems/resctrl.rst`).
//!
//! ```text
//!  /sys/fs/resctrl           the default class, closID "/"
//!  └ CLASS/                  closID, or the container's id
//!    ├ schemata              l3CacheSchema, memBwSchema; after them schemata
//!    ├ tasks                 init, before it runs: what it forks is born here
//!    └ mon_groups/ID/tasks   the same, where enableMonitoring wants it counted
//! ```
//!
//! A class that has the container's name goes with it; one by `closID` is others', too,
//! and stays. Unlike a cgroup's, a group that is removed lets its processes go on.

mod schemata;
#[cfg(test)]
mod tests;

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIntelRdt;
use rustix::fs::statfs;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::mountinfo;
use crate::spec::SpecError;

/// See `<linux/magic.h>`.
const RDTGROUP_SUPER_MAGIC: i64 = 0x0765_5821;

/// Folders of the file system that are no classes.
const NO_CLASSES: [&str; 3] = ["info", "mon_data", "mon_groups"];

/// How often new tasks are looked for that were born beside those that were moved.
const ROUNDS: usize = 32;

/// Why a container has not the class that it shall have.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host has no such classes, or the configuration names none that can be.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The kernel refuses.
    #[error("linux.intelRdt: could not {what} {}{}", path.display(), said(.kernel))]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// `info/last_cmd_status`: what the kernel says beyond the error number.
        kernel: String,
        /// Its error number.
        source: io::Error,
    },
    /// A class that is there already is another than was asked for.
    #[error(
        "linux.intelRdt: class {} has {found:?} where {wanted:?} is asked for: \
         ask for what it has, or for another closID", path.display()
    )]
    Differs {
        /// Its folder.
        path: PathBuf,
        /// The line that it has.
        found: String,
        /// The line that was asked for.
        wanted: String,
    },
    /// The container has more new tasks all the time.
    #[error("linux.intelRdt: the container forks faster than its tasks can be moved to {}", path.display())]
    Forks {
        /// The class.
        path: PathBuf,
    },
}

fn said(kernel: &str) -> String {
    match kernel.trim() {
        "" | "ok" => String::new(),
        words => format!(" (the kernel says: {words})"),
    }
}

type Result<T> = std::result::Result<T, Error>;

/// The file system, where it is mounted.
#[derive(Debug)]
pub(crate) struct Resctrl(PathBuf);

/// The class of a container, to be kept in a state file before it is made.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Record {
    /// Where the file system is mounted.
    mount: PathBuf,
    /// The group that limits; the mount itself for the default class.
    class: PathBuf,
    /// The class is made with the container.
    made: bool,
    /// The class is the container's own: it goes with it.
    own: bool,
    /// The group that counts.
    monitor: Option<PathBuf>,
}

impl Resctrl {
    /// Where this host has it.
    ///
    /// # Errors
    /// [`SpecError::Host`] where it has none.
    pub(crate) fn find() -> std::result::Result<Self, SpecError> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        mountinfo::mounted(&mounts, "resctrl")
            // P1: it may be hidden by another file system.
            .filter(|path| statfs(path).is_ok_and(|found| found.f_type == RDTGROUP_SUPER_MAGIC))
            .map(Self)
            .ok_or(SpecError::Host {
                property: "linux.intelRdt",
                needed: "a resctrl file system on /sys/fs/resctrl",
            })
    }

    /// What is to be made for this container; nothing is made yet.
    ///
    /// # Errors
    /// [`SpecError::Invalid`] for a name that is no class.
    pub(crate) fn plan(&self, wanted: &LinuxIntelRdt, id: &str) -> Result<Record> {
        let named = wanted.clos_id().as_deref().filter(|name| !name.is_empty());
        let class = match named {
            Some("/") => self.0.clone(),
            named => self.0.join(class_name(named.unwrap_or(id))?),
        };
        let made = !class.is_dir();
        if made && named.is_some() && lines(wanted).next().is_none() {
            return Err(SpecError::Invalid {
                property: "linux.intelRdt.closID",
                value: named.unwrap_or_default().to_owned(),
                expected: "a class that there is, or a schema to make it with",
            }
            .into());
        }
        let monitor = wanted.enable_monitoring() == &Some(true);
        Ok(Record {
            mount: self.0.clone(),
            monitor: monitor.then(|| class.join("mon_groups").join(id)),
            class,
            made,
            own: named.is_none(),
        })
    }
}

/// A name by which nothing else than a class is found.
fn class_name(name: &str) -> Result<&str> {
    if NO_CLASSES.contains(&name) {
        return Err(SpecError::Invalid {
            property: "linux.intelRdt.closID",
            value: name.to_owned(),
            expected: "another name, as the kernel has a folder of this one",
        }
        .into());
    }
    Ok(name)
}

/// Every line that is asked for.
fn lines(wanted: &LinuxIntelRdt) -> impl Iterator<Item = &str> {
    older(wanted).chain(wanted.schemata().iter().flatten().map(String::as_str))
}

/// Those of the two older properties.
fn older(wanted: &LinuxIntelRdt) -> impl Iterator<Item = &str> {
    let both = [wanted.l3_cache_schema(), wanted.mem_bw_schema()];
    let both = both.into_iter().flatten().map(String::as_str);
    both.filter(|line| !line.is_empty())
}

impl Record {
    /// Makes the class, or finds that the one which is there will do.
    ///
    /// # Errors
    /// [`Error`]; what was made is removed again.
    pub(crate) fn make(&self, wanted: &LinuxIntelRdt) -> Result<()> {
        if self.made {
            self.make_folder(&self.class)?;
        }
        let result = self.set(wanted).and_then(|()| match &self.monitor {
            Some(monitor) => self.make_folder(monitor),
            None => Ok(()),
        });
        if result.is_err() && self.made {
            // The failure to make it counts more than one to clean up.
            std::fs::remove_dir(&self.class).ok();
        }
        result
    }

    fn set(&self, wanted: &LinuxIntelRdt) -> Result<()> {
        let older: Vec<&str> = older(wanted).collect();
        if !self.made && !self.own && !older.is_empty() {
            let there = self.schemata()?;
            if let Some((found, wanted)) = schemata::difference(&there, &older) {
                return Err(Error::Differs {
                    path: self.class.clone(),
                    found,
                    wanted,
                });
            }
        }
        self.write_lines(&older)?;
        // Apart, and last: the kernel takes each resource once in a write.
        let newer: Vec<&str> = wanted
            .schemata()
            .iter()
            .flatten()
            .map(String::as_str)
            .collect();
        self.write_lines(&newer)
    }

    /// Sets other limits; what they were, for [`Record::put_back`].
    ///
    /// # Errors
    /// When the kernel refuses; it takes all lines or none.
    pub(crate) fn change(&self, wanted: &LinuxIntelRdt) -> Result<Vec<String>> {
        let lines: Vec<&str> = older(wanted).collect();
        let before = schemata::same_resources(&self.schemata()?, &lines);
        self.write_lines(&lines)?;
        Ok(before)
    }

    /// Sets the limits that there were.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn put_back(&self, lines: &[String]) -> Result<()> {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        self.write_lines(&lines)
    }

    fn write_lines(&self, lines: &[&str]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let text = lines.join("\n") + "\n";
        self.write("write", &self.class.join("schemata"), &text)
    }

    fn schemata(&self) -> Result<String> {
        let path = self.class.join("schemata");
        std::fs::read_to_string(&path).map_err(|source| self.error("read", &path, source))
    }

    /// Moves a process that has one thread yet.
    ///
    /// # Errors
    /// When the kernel refuses, among others because the class is gone.
    pub(crate) fn admit(&self, pid: Pid) -> Result<()> {
        self.admit_task(pid.as_raw_nonzero().get())
    }

    fn admit_task(&self, task: i32) -> Result<()> {
        // Only who is in the class is counted by one of its groups.
        for group in [Some(&self.class), self.monitor.as_ref()]
            .into_iter()
            .flatten()
        {
            let tasks = group.join("tasks");
            self.write("move a task to", &tasks, &format!("{task}\n"))?;
        }
        Ok(())
    }

    /// Moves every thread of a container that runs.
    ///
    /// # Errors
    /// [`Error`]; some may have moved then.
    pub(crate) fn admit_all(&self, cgroup: &Cgroup) -> Result<()> {
        let mut moved = Vec::new();
        for _ in 0..ROUNDS {
            let threads = threads_of(cgroup);
            let new: Vec<i32> = threads
                .into_iter()
                .filter(|id| !moved.contains(id))
                .collect();
            if new.is_empty() {
                return Ok(());
            }
            for task in new {
                match self.admit_task(task) {
                    Err(Error::Kernel { source, .. })
                        if source.raw_os_error() == Some(libc::ESRCH) => {}
                    admitted => admitted?,
                }
                moved.push(task);
            }
        }
        Err(Error::Forks {
            path: self.class.clone(),
        })
    }

    /// Removes what is the container's own.
    ///
    /// # Errors
    /// When the kernel refuses; what is gone already is no failure.
    pub(crate) fn remove(&self) -> Result<()> {
        let class = Some(&self.class).filter(|_| self.made && self.own);
        for group in [self.monitor.as_ref(), class].into_iter().flatten() {
            self.remove_folder(group)?;
        }
        Ok(())
    }

    /// After a failure: a class by `closID` goes, too, if it was made just now and nobody
    /// else has come into it.
    ///
    /// # Errors
    /// As [`Record::remove`].
    pub(crate) fn undo(&self) -> Result<()> {
        self.remove()?;
        if !self.made || self.own {
            return Ok(());
        }
        match std::fs::read_to_string(self.class.join("tasks")) {
            Ok(tasks) if tasks.trim().is_empty() => self.remove_folder(&self.class),
            _ => Ok(()),
        }
    }

    fn make_folder(&self, path: &Path) -> Result<()> {
        let made = DirBuilder::new().mode(0o755).create(path);
        made.map_err(|source| self.error("make", path, source))
    }

    fn remove_folder(&self, path: &Path) -> Result<()> {
        match std::fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|source| self.error("remove", path, source)),
        }
    }

    fn write(&self, what: &'static str, path: &Path, text: &str) -> Result<()> {
        // The kernel makes no file here, and knows no end of one: both only matter to
        // an ordinary folder in its place.
        let file = OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|source| self.error(what, path, source))
    }

    fn error(&self, what: &'static str, path: &Path, source: io::Error) -> Error {
        let said = std::fs::read_to_string(self.mount.join("info/last_cmd_status"));
        Error::Kernel {
            what,
            path: path.to_owned(),
            kernel: said.unwrap_or_default(),
            source,
        }
    }
}

/// The threads of all processes in a cgroup; of one that has ended there are none.
fn threads_of(cgroup: &Cgroup) -> Vec<i32> {
    let processes = cgroup.procs().unwrap_or_default().into_iter();
    let folders = processes.map(|pid| format!("/proc/{}/task", pid.as_raw_nonzero()));
    let entries = folders.flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten());
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}
