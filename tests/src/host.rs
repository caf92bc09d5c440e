//! A hostd of its own for each test, in a network of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{DEADLINE, Folder, programs, root, until};

/// Has the name of the place where hostd is killed.
const FAILPOINT: &str = "failpoint";

/// A hostd with its folders. What its dynos and it leave behind goes with it.
#[derive(Debug)]
pub struct Host {
    hostd: Child,
    folder: Folder,
    environment: Vec<(String, String)>,
    options: Vec<String>,
}

impl Host {
    /// Starts hostd in a network namespace that it shares with this thread only.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, with more options of `hostd serve`.
    pub fn start_with(options: &[&str]) -> Self {
        crate::must_be_root();
        own_network();
        let folder = Folder::new();
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let hostd = spawn(folder.path(), &options);
        let host = Self {
            hostd,
            folder,
            environment: Vec::new(),
            options,
        };
        host.until_it_answers();
        host
    }

    /// One that was started by other means, with [`serve`] of this folder.
    pub fn of(hostd: Child, folder: Folder) -> Self {
        Self {
            hostd,
            folder,
            environment: Vec::new(),
            options: Vec::new(),
        }
    }

    /// Has another process be hostd, which was started by other means.
    pub fn replace(&mut self, hostd: Child) {
        self.hostd = hostd;
    }

    /// The same, with the image `busybox` imported.
    pub fn with_busybox() -> Self {
        let host = Self::start();
        host.import_busybox();
        host
    }

    /// Imports the image `busybox`.
    pub fn import_busybox(&self) {
        let archive = self.folder.path().join("busybox.tar");
        root::archive(&archive);
        self.ok(&["import", &archive.to_string_lossy(), "busybox"]);
    }

    /// The folder of all that belongs to this host: `state`, `run`, and what tests put there.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// hostd's process id.
    pub fn pid(&self) -> u32 {
        self.hostd.id()
    }

    /// Kills hostd as a power cut would, and starts it again. Its dynos are not asked.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.hostd = spawn(self.folder.path(), &self.options);
        self.until_it_answers();
    }

    /// Kills hostd with SIGKILL.
    pub fn kill(&mut self) {
        self.hostd.kill().expect("kill hostd");
        self.hostd.wait().expect("reap hostd");
    }

    /// Has hostd be killed by itself when it comes to this place, now or when it is started
    /// next, and once.
    pub fn arm(&self, failpoint: &str) {
        let file = self.folder.path().join(FAILPOINT);
        let new = file.with_extension("new");
        crate::write_file(&new, failpoint);
        std::fs::rename(new, file).expect("arm a failpoint");
    }

    /// Waits until hostd was killed there.
    pub fn until_killed_at(&mut self, failpoint: &str) {
        let hostd = &mut self.hostd;
        until(&format!("hostd comes to {failpoint}"), || {
            matches!(hostd.try_wait(), Ok(Some(_)))
        });
        let armed = self.folder.path().join(FAILPOINT).exists();
        assert!(!armed, "hostd ended before it came to {failpoint}");
    }

    /// Waits until hostd or one of its monitors was killed there.
    pub fn until_somebody_is_killed_at(&self, failpoint: &str) {
        let armed = self.folder.path().join(FAILPOINT);
        until(&format!("somebody comes to {failpoint}"), || {
            !armed.exists()
        });
    }

    /// Starts hostd again and returns at once.
    pub fn spawn_again(&mut self) {
        self.hostd = spawn(self.folder.path(), &self.options);
    }

    /// What hostd said last, if it has ended.
    pub fn last_words(&mut self) -> Option<String> {
        let status = self.hostd.try_wait().expect("look after hostd")?;
        let log = std::fs::read_to_string(self.folder.path().join("hostd.log"));
        let log = log.unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(8).collect();
        let lines = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
        Some(format!("{status}\n{lines}"))
    }

    /// Waits until the API answers.
    pub fn until_it_answers(&self) {
        until("hostd answers", || {
            self.run(&["version", "--json"]).status.success()
        });
    }

    /// The command `dyno` for this host.
    pub fn dyno(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs().join("dyno"));
        command
            .env("DYNO_SOCKET", self.socket())
            .env("DYNO_AUTOSTART", "0")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .args(arguments);
        command
    }

    /// hostd's socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("run/hostd.sock")
    }

    /// Runs `dyno` to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.dyno(arguments).output().expect("run dyno")
    }

    /// The standard output of a `dyno` that succeeds, its last line end cut off.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "dyno {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    /// The standard error and exit code of a `dyno` that fails.
    #[track_caller]
    pub fn fails(&self, arguments: &[&str]) -> (String, i32) {
        let output = self.run(arguments);
        let code = output.status.code().expect("an exit code");
        assert_ne!(code, 0, "dyno {arguments:?}: {output:?}");
        (String::from_utf8_lossy(&output.stderr).into_owned(), code)
    }

    /// `dyno inspect` as JSON: one dyno.
    #[track_caller]
    pub fn inspect(&self, dyno: &str) -> Value {
        let text = self.ok(&["inspect", "--json", dyno]);
        let value: Value = serde_json::from_str(&text).expect("JSON");
        match value {
            Value::Array(mut all) => all.remove(0),
            one => one,
        }
    }

    /// Gives the machine an address beside those of loopback.
    pub fn add_address(&self, address: &str) {
        ip(&["link", "add", "outside", "type", "bridge"]);
        ip(&["addr", "add", address, "dev", "outside"]);
        ip(&["link", "set", "outside", "up"]);
    }

    /// The ids of all dynos.
    pub fn ids(&self) -> Vec<String> {
        self.ok(&["ps", "-a", "-q"])
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Waits until a dyno is in this phase.
    #[track_caller]
    pub fn until_phase(&self, dyno: &str, phase: &str) {
        until(&format!("{dyno} is {phase}"), || {
            self.inspect(dyno)["status"]["phase"] == phase
        });
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if !matches!(self.hostd.try_wait(), Ok(None)) {
            self.hostd = spawn(self.folder.path(), &self.options);
            self.until_it_answers();
        }
        let ids = self.run(&["ps", "-a", "-q"]);
        for id in String::from_utf8_lossy(&ids.stdout).lines() {
            self.run(&["rm", "-f", id]);
        }
        let pid = i32::try_from(self.hostd.id()).ok().and_then(Pid::from_raw);
        pid.map(|pid| kill_process(pid, Signal::TERM));
        self.hostd.wait().ok();
        // The router and the cgroups outlive hostd by design, but not a test.
        let teardown = hostd("teardown", self.folder.path()).output();
        if let Ok(output) = teardown
            && !output.status.success()
            && !std::thread::panicking()
        {
            panic!("hostd teardown: {output:?}");
        }
    }
}

/// The command that serves a host in this folder.
pub fn serve(folder: &Path) -> Command {
    hostd("serve", folder)
}

/// The same with the hostd among other programs.
pub fn serve_by(programs: &Path, folder: &Path) -> Command {
    hostd_of(programs, "serve", folder)
}

/// Gives this thread, and what it starts from now on, an empty network with loopback.
pub fn own_network() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    ip(&["link", "set", "lo", "up"]);
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status();
    assert!(status.expect("run ip").success(), "ip {arguments:?}");
}

fn spawn(folder: &Path, options: &[String]) -> Child {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("hostd.log"));
    let mut serve = hostd("serve", folder);
    let serve = serve
        .env("DYNO_FAILPOINT", folder.join(FAILPOINT))
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    serve
        .stderr(log.expect("hostd's log"))
        .spawn()
        .expect("start hostd")
}

fn hostd(verb: &str, folder: &Path) -> Command {
    hostd_of(&programs(), verb, folder)
}

fn hostd_of(programs: &Path, verb: &str, folder: &Path) -> Command {
    let mut command = Command::new(programs.join("hostd"));
    command
        .arg(verb)
        .arg("--state-dir")
        .arg(folder.join("state"));
    command.arg("--run-dir").arg(folder.join("run"));
    command
        .arg("--secret-key-file")
        .arg(folder.join("secret.key"));
    // Former builds do not know the option.
    command.env("DYNO_REMOTE_KEY_FILE", folder.join("remote.key"));
    command
}

/// The body of an HTTP answer, or what went wrong.
pub fn http_get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    http_get_on(stream, path, "Accept: */*")
}

/// The same on a connection that there is, with one more header.
pub fn http_get_on(
    mut stream: impl Read + Write,
    path: &str,
    header: &str,
) -> std::io::Result<String> {
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: hostd\r\n{header}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(format!("not a 200: {answer:?}"))),
    }
}
