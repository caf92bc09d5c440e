//! A host's processes: hostd, started, killed, and taken down with its dynos.

use std::collections::{HashMap, HashSet};
use std::fs::{DirBuilder, File};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use dyno_api::client::Client;
use dyno_api::query::RemoveQuery;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::network::Network;
use crate::{Error, Host, Result};

/// How long hostd may take until it answers, dynos to end, and so on.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Whether a host's hostd runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// It does, with this process id.
    Up(i32),
    /// It does not.
    Down,
}

pub(crate) struct Daemon<'a> {
    pub(crate) hostd: &'a Path,
    pub(crate) folder: PathBuf,
    pub(crate) network: &'a Network,
    pub(crate) host: &'a Host,
}

impl Daemon<'_> {
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("run/hostd.sock")
    }

    pub(crate) fn state(&self) -> State {
        let peer = UnixStream::connect(self.socket());
        let peer = peer.and_then(|peer| Ok(rustix::net::sockopt::socket_peercred(&peer)?));
        peer.map_or(State::Down, |peer| {
            State::Up(peer.pid.as_raw_nonzero().get())
        })
    }

    fn failed(&self, said: impl Into<String>) -> Error {
        Error::Hostd {
            host: self.host.name.clone(),
            said: said.into(),
        }
    }

    fn arguments(&self, verb: &str) -> Vec<String> {
        let folder = |name: &str| self.folder.join(name).display().to_string();
        let options = [
            ("--state-dir", "state"),
            ("--run-dir", "run"),
            ("--secret-key-file", "secret.key"),
            ("--remote-key-file", "remote.key"),
        ];
        let mut arguments = vec![verb.to_owned()];
        for (option, name) in options {
            arguments.extend([option.to_owned(), folder(name)]);
        }
        arguments
    }

    /// Starts hostd, unless it runs, and waits until it answers.
    pub(crate) fn start(&self) -> Result<()> {
        if matches!(self.state(), State::Up(_)) {
            return Ok(());
        }
        let failed = |source| Error::io("make", &self.folder, source);
        let mut folder = DirBuilder::new();
        let folder = folder.recursive(true).mode(0o700);
        folder.create(&self.folder).map_err(failed)?;
        let log_path = self.folder.join("hostd.log");
        let log = File::options().create(true).append(true).open(&log_path);
        let log = log.map_err(|source| Error::io("open", &log_path, source))?;
        let errors = log.try_clone().map_err(failed)?;
        // In a session of its own, it outlives us and our terminal.
        let mut command = self.network.command(self.host, "setsid");
        let started = command
            .arg(self.hostd)
            .args(self.arguments("serve"))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn();
        let mut started = started.map_err(|error| self.failed(error.to_string()))?;
        let begun = Instant::now();
        loop {
            if matches!(self.state(), State::Up(_)) {
                return Ok(());
            }
            let ended = started.try_wait().ok().flatten();
            if ended.is_some() || begun.elapsed() > PATIENCE {
                let mut said = String::new();
                let log = File::open(&log_path);
                log.and_then(|mut log| log.read_to_string(&mut said)).ok();
                let last = said.lines().rev().find(|line| !line.trim().is_empty());
                return Err(self.failed(last.unwrap_or("it does not answer")));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Kills everything that lives on it.
    pub(crate) fn kill(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let alive = self.processes()?;
            if alive.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(self.failed(format!("processes {alive:?} do not end")));
            }
            for pid in alive {
                self.kill_one(pid);
            }
            std::thread::sleep(PAUSE);
        }
    }

    pub(crate) fn kill_daemon(&self) -> Result<()> {
        let begun = Instant::now();
        while let State::Up(pid) = self.state() {
            if begun.elapsed() > PATIENCE {
                return Err(self.failed("it does not end"));
            }
            self.kill_one(pid);
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// `None` if it has ended already.
    fn kill_one(&self, pid: i32) -> Option<()> {
        let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        // The descriptor is of who has this number now: is that still one of ours?
        self.processes().ok()?.contains(&pid).then_some(())?;
        pidfd_send_signal(&process, Signal::KILL).ok()
    }

    /// Who is in the host's namespace, and whom they have started: dynos are in
    /// namespaces of their own.
    fn processes(&self) -> Result<HashSet<i32>> {
        let path = self.network.file(self.host);
        let namespace = match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(HashSet::new()),
            namespace => namespace.map_err(|source| Error::io("look at", &path, source))?,
        };
        let proc = Path::new("/proc");
        let all = std::fs::read_dir(proc).map_err(|source| Error::io("read", proc, source))?;
        let mut parents: HashMap<i32, i32> = HashMap::new();
        let mut ours = HashSet::new();
        for entry in all.filter_map(std::result::Result::ok) {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            // Whoever has ended meanwhile is nobody.
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
                continue;
            };
            let Some((state, parent)) = parse_stat(&stat) else {
                continue;
            };
            if state == 'Z' {
                continue;
            }
            parents.insert(pid, parent);
            let own = std::fs::metadata(entry.path().join("ns/net"));
            if own.is_ok_and(|own| (own.dev(), own.ino()) == (namespace.dev(), namespace.ino())) {
                ours.insert(pid);
            }
        }
        loop {
            let more = parents
                .iter()
                .filter(|(pid, parent)| ours.contains(*parent) && !ours.contains(*pid));
            let more: Vec<i32> = more.map(|(pid, _)| *pid).collect();
            if more.is_empty() {
                break;
            }
            ours.extend(more);
        }
        Ok(ours)
    }

    /// Removes its dynos, ends hostd, and takes away what they have in the kernel.
    pub(crate) fn down(&self) -> Result<()> {
        if self.folder.exists() && self.network.file(self.host).exists() {
            self.start()?;
            self.remove_dynos()?;
            self.end_daemon()?;
            let program = self.hostd.display().to_string();
            let mut teardown = self.network.command(self.host, &program);
            let output = teardown.args(self.arguments("teardown")).output();
            let output = output.map_err(|error| self.failed(error.to_string()))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(self.failed(said));
            }
        }
        self.kill()
    }

    fn remove_dynos(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| self.failed(error.to_string()))?;
        let removed = runtime.block_on(async {
            let client = Client::new(self.socket());
            let force = RemoveQuery { force: true };
            for dyno in client.dynos().await? {
                client.remove(dyno.id.as_str(), force).await?;
            }
            Ok::<(), dyno_api::client::Error>(())
        });
        removed.map_err(|error| self.failed(error.to_string()))
    }

    fn end_daemon(&self) -> Result<()> {
        let State::Up(pid) = self.state() else {
            return Ok(());
        };
        let process = Pid::from_raw(pid).ok_or_else(|| self.failed("it has no process id"))?;
        let process = match pidfd_open(process, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            process => process.map_err(|errno| self.failed(errno.to_string()))?,
        };
        let begun = Instant::now();
        while self.processes()?.contains(&pid) {
            match pidfd_send_signal(&process, Signal::TERM) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(errno) => return Err(self.failed(errno.to_string())),
            }
            if begun.elapsed() > PATIENCE {
                return Err(self.failed("it does not end"));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// State and parent, proc_pid_stat(5): after the name, which may hold anything.
fn parse_stat(stat: &str) -> Option<(char, i32)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_call_itself_anything() {
        assert_eq!(parse_stat("7 (a) b (c)) S 1 7 7 0"), Some(('S', 1)));
        assert_eq!(parse_stat("7 (x"), None);
    }
}
