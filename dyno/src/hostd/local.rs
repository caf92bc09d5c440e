//! hostd of this machine: finding it, and starting it where none runs and the user may.
//!
//! A started hostd outlives us: it gets a session of its own, no terminal, and
//! a log file. A program cannot leave its session between fork and exec without
//! unsafe code, so `dyno` executes itself first, as [`DAEMON`].

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dyno_api::client::{self, Client};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use crate::failure::{Failure, code};

/// The first argument of a `dyno` that is about to become hostd.
const DAEMON: &str = "__become-hostd";

/// Where hostd keeps its socket unless told otherwise.
const RUN_DIR: &str = "/run/dyno";

/// The unit that `hostd install` writes.
const UNIT: &str = "/etc/systemd/system/hostd.service";

/// How long a started hostd may take until it listens.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long another hostd may take that won the race to be started.
const RACE: Duration = Duration::from_secs(1);

/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(5);

/// Where hostd is, and whether it may be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Local {
    /// Its socket.
    pub(super) socket: PathBuf,
    /// The folder of its socket and of its log.
    run_dir: PathBuf,
    /// A hostd that is started would listen there, and the user may start one.
    may_start: bool,
    /// systemd starts it, or was told to stop it: nobody else shall.
    has_unit: bool,
}

impl Local {
    /// From the socket that was asked for, the environment, and who asks.
    pub(super) fn find(socket: Option<PathBuf>) -> Self {
        let root = rustix::process::geteuid().is_root();
        let place = Self::from(
            socket,
            |name| std::env::var_os(name).filter(|value| !value.is_empty()),
            root,
        );
        // As sd_booted(3) says. A unit that cannot be read is nobody's.
        let unit = std::fs::read_to_string(UNIT).unwrap_or_default();
        if Path::new("/run/systemd/system").exists() {
            place.with_unit(&unit)
        } else {
            place
        }
    }

    /// The same where systemd has this unit: for our run folder, or for another one.
    fn with_unit(self, unit: &str) -> Self {
        let run_dir = format!("--run-dir {} ", self.run_dir.display());
        let has_unit = unit.contains(&run_dir);
        Self {
            may_start: self.may_start && !has_unit,
            has_unit,
            ..self
        }
    }

    fn from(
        socket: Option<PathBuf>,
        variable: impl Fn(&str) -> Option<OsString>,
        root: bool,
    ) -> Self {
        let run_dir = variable("DYNO_RUN_DIR").map_or_else(|| RUN_DIR.into(), PathBuf::from);
        let own = run_dir.join("hostd.sock");
        let socket = socket.unwrap_or_else(|| own.clone());
        let wanted = variable("DYNO_AUTOSTART").is_none_or(|value| value != "0");
        let may_start = root && wanted && socket == own;
        Self {
            socket,
            run_dir,
            may_start,
            has_unit: false,
        }
    }

    /// A client of the hostd that runs there, started where there is none.
    ///
    /// # Errors
    /// A [`Failure`] where none runs and none may or can be started.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        let client = Client::new(&self.socket);
        match client.clone().connected().await {
            Ok(client) => Ok(client),
            Err(absent) if absent.is_absent() => {
                if self.may_start {
                    self.start().await.map(|()| client)
                } else {
                    Err(self.refusal(&absent))
                }
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// A client of the hostd that runs there, if one does; none is started.
    ///
    /// # Errors
    /// A [`Failure`] where one runs and does not let us in.
    pub(crate) async fn running(&self) -> Result<Option<Client>, Failure> {
        match Client::new(&self.socket).connected().await {
            Ok(client) => Ok(Some(client)),
            Err(absent) if absent.is_absent() => Ok(None),
            Err(refused) => Err(refused.into()),
        }
    }

    fn refusal(&self, absent: &client::Error) -> Failure {
        let socket = self.socket.display();
        let why = match absent {
            client::Error::Connect { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "no such socket"
            }
            _ => "nothing listens",
        };
        let failure = Failure::new(format!("hostd is not running at {socket} ({why})"));
        let hint = match self.run_dir.to_str() {
            _ if self.has_unit => "sudo systemctl start hostd".to_owned(),
            Some(RUN_DIR) | None => "sudo hostd serve".to_owned(),
            Some(run_dir) => format!("sudo hostd serve --run-dir {run_dir}"),
        };
        failure.hint(hint).with_code(code::NO_HOSTD)
    }

    async fn start(&self) -> Result<(), Failure> {
        let program = program().ok_or_else(no_program)?;
        let log_path = self.run_dir.join("hostd.log");
        let (mut log, child) = self.spawn(&program, &log_path).map_err(|error| {
            Failure::io(format!("cannot start {}", program.display()), &error)
                .with_code(code::NO_HOSTD)
        })?;
        self.await_socket(child, &mut log).await?;
        let mut stderr = io::stderr();
        if stderr.is_terminal() {
            // A note that cannot be written is no failure of the command.
            writeln!(stderr, "started hostd, its log is {}", log_path.display())
                .unwrap_or_default();
        }
        Ok(())
    }

    /// hostd, and its log from where it begins to write.
    fn spawn(&self, program: &Path, log_path: &Path) -> io::Result<(File, Child)> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&self.run_dir)?;
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(log_path)?;
        // Opened on its own: a duplicate would move on with what hostd writes.
        let mut said = File::open(log_path)?;
        said.seek(SeekFrom::End(0))?;
        // Flags rather than variables: hostd shows them in the process list.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(DAEMON)
            .arg(program)
            .arg("serve")
            .arg("--run-dir")
            .arg(&self.run_dir);
        if let Some(state_dir) = std::env::var_os("DYNO_STATE_DIR").filter(|dir| !dir.is_empty()) {
            command.arg("--state-dir").arg(state_dir);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok((said, child))
    }

    async fn await_socket(&self, mut child: Child, log: &mut File) -> Result<(), Failure> {
        let mut deadline = Instant::now() + DEADLINE;
        let mut ended = None;
        while Instant::now() < deadline {
            if UnixStream::connect(&self.socket).await.is_ok() {
                return Ok(());
            }
            if ended.is_none() {
                // Another dyno may have started one at the same time: ours
                // ends on the lock, and the other one listens soon.
                ended = child.try_wait().ok().flatten();
                if ended.is_some() {
                    deadline = deadline.min(Instant::now() + RACE);
                }
            }
            sleep(PAUSE).await;
        }
        let mut said = String::new();
        log.read_to_string(&mut said).unwrap_or_default();
        let last = said.lines().rev().find(|line| !line.trim().is_empty());
        let message = match ended {
            Some(status) => format!("hostd ended at once ({status})"),
            None => format!("hostd does not listen after {} s", DEADLINE.as_secs()),
        };
        let message = last.map_or(message.clone(), |last| {
            format!("{message}: {}", last.trim())
        });
        let log = self.run_dir.join("hostd.log");
        Err(Failure::new(message)
            .hint(format!("less {}", log.display()))
            .with_code(code::NO_HOSTD))
    }
}

/// hostd beside us, else the first in `PATH`.
pub(crate) fn program() -> Option<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .map(|dyno| dyno.with_file_name("hostd"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path: Vec<PathBuf> = std::env::split_paths(&path)
        .map(|folder| folder.join("hostd"))
        .collect();
    beside
        .into_iter()
        .chain(in_path)
        .find(|program| program.is_file())
}

/// What is to be said where there is no [`program`].
pub(crate) fn no_program() -> Failure {
    Failure::new("hostd is not running, and its program is neither beside dyno nor in PATH")
        .hint("install hostd beside dyno")
        .with_code(code::NO_HOSTD)
}

/// Becomes the program that the arguments name, in a session of its own, if
/// they begin with [`DAEMON`]. Returns only what went wrong, or that they don't.
pub(crate) fn become_daemon(arguments: &[OsString]) -> Option<Failure> {
    let [_, daemon, program, rest @ ..] = arguments else {
        return None;
    };
    if daemon != OsStr::new(DAEMON) {
        return None;
    }
    if let Err(error) = rustix::process::setsid() {
        return Some(Failure::io(
            "cannot begin a session (setsid)",
            &error.into(),
        ));
    }
    let error = Command::new(program).args(rest).current_dir("/").exec();
    Some(Failure::io(
        format!("cannot execute {}", program.display()),
        &error,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(socket: Option<&str>, variables: &[(&str, &str)], root: bool) -> Local {
        let variable = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Local::from(socket.map(PathBuf::from), variable, root)
    }

    #[test]
    fn the_socket_is_the_flags_then_the_run_folders() {
        assert_eq!(
            place(None, &[], true).socket,
            Path::new("/run/dyno/hostd.sock")
        );
        let folder = [("DYNO_RUN_DIR", "/tmp/run")];
        assert_eq!(
            place(None, &folder, true).socket,
            Path::new("/tmp/run/hostd.sock")
        );
        assert_eq!(
            place(Some("/x.sock"), &folder, true).socket,
            Path::new("/x.sock")
        );
    }

    #[test]
    fn hostd_is_started_only_by_root_where_it_would_listen_there() {
        assert!(place(None, &[], true).may_start);
        assert!(place(None, &[("DYNO_RUN_DIR", "/tmp/run")], true).may_start);
        assert!(place(Some("/run/dyno/hostd.sock"), &[], true).may_start);
        assert!(!place(None, &[], false).may_start);
        assert!(!place(None, &[("DYNO_AUTOSTART", "0")], true).may_start);
        let unit = "ExecStart=hostd serve --run-dir /run/dyno --cgroup /x\n";
        let managed = place(None, &[], true).with_unit(unit);
        assert!(managed.has_unit && !managed.may_start);
        let other = [("DYNO_RUN_DIR", "/run/dyno-b")];
        assert!(place(None, &other, true).with_unit(unit).may_start);
        assert!(!place(Some("/other.sock"), &[], true).may_start);
    }

    #[test]
    fn an_absent_hostd_is_refused_with_the_line_that_starts_it() {
        let refusal = |variables: &[(&str, &str)]| {
            let place = place(None, variables, false);
            let source = io::Error::from(io::ErrorKind::NotFound);
            let failure = place.refusal(&client::Error::Connect {
                socket: place.socket.clone(),
                source,
            });
            let mut text = Vec::new();
            failure.render(&mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        assert!(refusal(&[]).contains("hostd is not running at /run/dyno/hostd.sock"));
        assert!(refusal(&[]).ends_with("  try: sudo hostd serve\n"));
        let moved = refusal(&[("DYNO_RUN_DIR", "/tmp/run")]);
        assert!(
            moved.ends_with("  try: sudo hostd serve --run-dir /tmp/run\n"),
            "{moved}"
        );
    }

    #[test]
    fn ordinary_arguments_make_no_daemon() {
        let arguments = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
        assert!(become_daemon(&arguments(&["dyno"])).is_none());
        assert!(become_daemon(&arguments(&["dyno", "run", "busybox"])).is_none());
    }
}
