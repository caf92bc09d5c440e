//! Several hosts on one machine: each a network namespace with its own hostd, its own
//! dynos and its own state, all on one wire, which can be cut.
//!
//! ```text
//!   switch (namespace)         br0
//!                  ┌────────────┼────────────┐
//!   host1 10.213.0.1      host2 .2      host3 .3      namespaces; eth0, hostd
//! ```
//!
//! There is no way out of it: nobody outside is reached, and nobody outside reaches it.
//!
//! | what | how |
//! |---|---|
//! | a host loses power | all of its processes are killed at once; its disk stays |
//! | two hosts do not reach each other | each thinks the other at an address that nobody has: packets vanish |
//! | a wire that loses packets | netem(8) on both ends, where the kernel has it |
//!
//! It is for tests and for a first look, and takes root, ip(8) and nsenter(1).

mod error;
mod host;
mod name;
mod network;
mod record;

pub use error::{Error, Result};
pub use host::State;
pub use name::Name;
pub use record::{Cut, Host};

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;

use host::Daemon;
use network::Network;
use record::Record;

/// Where sandboxes are kept.
pub const FOLDER: &str = "/var/lib/dyno-sandbox";

/// No sandbox has more hosts.
pub const HOSTS_MAX: u8 = 100;

/// One sandbox, which nobody else changes meanwhile.
#[derive(Debug)]
pub struct Sandbox {
    folder: PathBuf,
    record: Record,
    network: Network,
    _lock: File,
}

/// What there is of a host.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The host.
    pub host: Host,
    /// Whether its hostd runs.
    pub state: State,
    /// Its API.
    pub socket: PathBuf,
}

impl Sandbox {
    /// Makes one with so many hosts, `host1` and so on, and starts them by this hostd.
    ///
    /// # Errors
    /// [`Error::Exists`], or what kept it from coming up; nothing is left then.
    pub fn up(root: &Path, name: &Name, hosts: u8, hostd: &Path) -> Result<Self> {
        let folder = root.join(name.as_str());
        let failed = |source| Error::io("make", &folder, source);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(failed)?;
        let lock = lock(&folder)?;
        if Record::is_there(&folder) {
            return Err(Error::Exists(name.clone()));
        }
        let record = Record::new(name.clone(), hosts, hostd);
        // On record before there is anything: `down` finds what there is.
        record.write(&folder)?;
        let sandbox = Self {
            network: Network::of(name),
            folder,
            record,
            _lock: lock,
        };
        let made = sandbox
            .network
            .make(&sandbox.record.hosts)
            .and_then(|()| sandbox.each(|daemon| daemon.start()));
        match made {
            Ok(()) => Ok(sandbox),
            Err(error) => {
                // The first failure is the one to tell.
                sandbox.down().ok();
                Err(error)
            }
        }
    }

    /// One that is there.
    ///
    /// # Errors
    /// [`Error::NotFound`], or that its record cannot be read.
    pub fn open(root: &Path, name: &Name) -> Result<Self> {
        let folder = root.join(name.as_str());
        let gone = || Error::NotFound(name.clone());
        if !Record::is_there(&folder) {
            return Err(gone());
        }
        let lock = lock(&folder)?;
        if !Record::is_there(&folder) {
            return Err(gone());
        }
        Ok(Self {
            record: Record::read(&folder, name)?,
            network: Network::of(name),
            folder,
            _lock: lock,
        })
    }

    /// The names of all that there are.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn names(root: &Path) -> Result<Vec<Name>> {
        let failed = |source| Error::io("read", root, source);
        let entries = match std::fs::read_dir(root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            names.extend(name.filter(|_| Record::is_there(&entry.path())));
        }
        names.sort();
        Ok(names)
    }

    /// Its hosts, as they are.
    #[must_use]
    pub fn hosts(&self) -> Vec<Seen> {
        let seen = |host: &Host| {
            let daemon = self.daemon(host);
            Seen {
                host: host.clone(),
                state: daemon.state(),
                socket: daemon.socket(),
            }
        };
        self.record.hosts.iter().map(seen).collect()
    }

    /// Who does not reach whom.
    #[must_use]
    pub fn cuts(&self) -> &[Cut] {
        &self.record.cuts
    }

    /// Powers a host on again.
    ///
    /// # Errors
    /// [`Error::NoHost`], [`Error::Hostd`].
    pub fn start(&self, host: &str) -> Result<()> {
        self.daemon(self.find(host)?).start()
    }

    /// Cuts a host's power: everything on it is killed at once.
    ///
    /// # Errors
    /// [`Error::NoHost`], or that something did not end.
    pub fn kill(&self, host: &str) -> Result<()> {
        self.daemon(self.find(host)?).kill()
    }

    /// Kills a host's hostd alone, as `kill -9` does.
    ///
    /// # Errors
    /// [`Error::NoHost`], or that it did not end.
    pub fn kill_daemon(&self, host: &str) -> Result<()> {
        self.daemon(self.find(host)?).kill_daemon()
    }

    /// Keeps what one host sends from the other.
    ///
    /// # Errors
    /// [`Error::NoHost`], and what ip(8) says.
    pub fn cut(&mut self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.find(from)?.clone(), self.find(to)?.clone());
        if from == to {
            return Err(Error::Itself(from.name));
        }
        let cut = Cut {
            from: from.name.clone(),
            to: to.name.clone(),
        };
        if !self.record.cuts.contains(&cut) {
            self.record.cuts.push(cut);
            self.record.write(&self.folder)?;
        }
        self.network.cut(&from, &to)
    }

    /// Has a host's wire lose so many of a hundred packets, in both directions; 0 ends it.
    ///
    /// # Errors
    /// [`Error::NoHost`], [`Error::NoLoss`] where the kernel cannot.
    pub fn lose(&mut self, host: &str, percent: u8) -> Result<()> {
        let host = self.find(host)?.clone();
        self.network.lose(&host, percent)
    }

    /// Lets all hosts reach each other again, without loss.
    ///
    /// # Errors
    /// What ip(8) says.
    pub fn heal(&mut self) -> Result<()> {
        for cut in &self.record.cuts {
            let (from, to) = (self.find(&cut.from)?, self.find(&cut.to)?);
            self.network.heal(from, to)?;
        }
        self.record.cuts.clear();
        self.record.write(&self.folder)?;
        for host in &self.record.hosts {
            self.network.lose_nothing(host)?;
        }
        Ok(())
    }

    /// The command that runs something on a host, with `DYNO_SOCKET` set.
    ///
    /// # Errors
    /// [`Error::NoHost`].
    pub fn command(&self, host: &str, program: &str) -> Result<std::process::Command> {
        let host = self.find(host)?;
        let mut command = self.network.command(host, program);
        command.env("DYNO_SOCKET", self.daemon(host).socket());
        for other in ["DYNO_HOST", "DYNO_CTX", "DYNO_RUN_DIR", "DYNO_STATE_DIR"] {
            command.env_remove(other);
        }
        Ok(command)
    }

    /// Ends it: dynos, hostds, networks and files.
    ///
    /// # Errors
    /// What could not be taken down; the rest is, and a second try is for that.
    pub fn down(self) -> Result<()> {
        self.each(|daemon| daemon.down())?;
        self.network.remove(&self.record.hosts)?;
        let failed = |source| Error::io("remove", &self.folder, source);
        std::fs::remove_dir_all(&self.folder).map_err(failed)
    }

    fn daemon<'a>(&'a self, host: &'a Host) -> Daemon<'a> {
        Daemon {
            hostd: &self.record.hostd,
            folder: self.folder.join(&host.name),
            network: &self.network,
            host,
        }
    }

    /// Does something on all hosts at once; the first failure.
    fn each(&self, act: impl Fn(&Daemon<'_>) -> Result<()> + Sync) -> Result<()> {
        thread::scope(|scope| {
            let act = &act;
            let threads: Vec<_> = self
                .record
                .hosts
                .iter()
                .map(|host| scope.spawn(move || act(&self.daemon(host))))
                .collect();
            let done = threads.into_iter().map(|thread| match thread.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            // All are waited for.
            let done: Vec<Result<()>> = done.collect();
            done.into_iter().collect()
        })
    }

    fn find(&self, name: &str) -> Result<&Host> {
        let mut hosts = self.record.hosts.iter();
        let found = hosts.find(|host| host.name == name);
        found.ok_or_else(|| Error::NoHost {
            sandbox: self.record.name.clone(),
            host: name.to_owned(),
        })
    }
}

/// Waits until nobody else is at it.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let failed = |source| Error::io("lock", &path, source);
    let file = File::create(&path).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}
