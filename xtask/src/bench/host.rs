//! A hostd for the bench, with the image imported and unpacked.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::api::call;
use super::root::Root;
use super::runner::Commands;
use super::stage::done;

/// How long hostd may take to listen.
const DEADLINE: Duration = Duration::from_secs(20);
/// Where it keeps what lives as long as it does.
const RUN_DIR: &str = "/run/dyno-bench";
/// Name of the image.
pub(super) const IMAGE: &str = "localhost/bench";

/// A running hostd, killed at the end; its namespace's end takes the rest.
pub(super) struct Host {
    child: Child,
    hostd: PathBuf,
    dyno: String,
    socket: PathBuf,
    folder: PathBuf,
}

impl Host {
    /// Starts hostd with its state under the bench's folder and imports the image.
    pub(super) fn start(programs: &Path, root: &Root) -> Result<Self> {
        let (hostd, folder) = (programs.join("hostd"), root.folder().to_owned());
        let child = serve(&hostd, &folder)?;
        let dyno = programs
            .join("dyno")
            .to_str()
            .context("--bin-dir is no text")?
            .to_owned();
        let mut host = Self {
            child,
            hostd,
            dyno,
            socket: Path::new(RUN_DIR).join("hostd.sock"),
            folder,
        };
        host.until("it listens", |host| {
            UnixStream::connect(&host.socket).is_ok()
        })?;
        let import = host.command(&["import", &root.archive().to_string_lossy(), IMAGE]);
        let (program, arguments) = import.split_first().context("an empty command")?;
        done(Command::new(program).args(arguments))?;
        Ok(host)
    }

    /// The id that its names on the machine carry.
    pub(super) fn id(&self) -> Result<String> {
        let info = self.command(&["info", "--json"]);
        let (program, arguments) = info.split_first().context("an empty command")?;
        let info: serde_json::Value =
            serde_json::from_str(&done(Command::new(program).args(arguments))?)?;
        let id = info["id"].as_str().context("an info without id")?;
        Ok(id.to_owned())
    }

    /// The seccomp profile that it gives a dyno.
    pub(super) fn seccomp(&self) -> Result<Value> {
        let spec = json!({"image": IMAGE, "command": ["/bin/sleep", "600"], "net": "none"});
        let dyno = call(&self.socket, "POST", "/v1/dynos?start=true", &spec)?;
        let id = dyno["id"].as_str().context("an answer without id")?;
        let config = Path::new(RUN_DIR)
            .join("dynos")
            .join(id)
            .join("config.json");
        let config: Value = serde_json::from_reader(File::open(config)?)?;
        let path = format!("/v1/dynos/{id}?force=true");
        call(&self.socket, "DELETE", &path, &Value::Null)?;
        Ok(config["linux"]["seccomp"].clone())
    }

    /// `dyno run` of `/bin/true` with these options.
    pub(super) fn run(&self, options: &[&str]) -> Vec<String> {
        self.command(&[&["run", "--rm"], options, &[IMAGE, "/bin/true"]].concat())
    }

    /// A whole life of an image.
    pub(super) fn import_and_remove(&self, archive: &str) -> Commands {
        let tree = "localhost/bench-tree";
        vec![
            self.command(&["import", archive, tree]),
            self.command(&["rmi", tree]),
        ]
    }

    /// Where its API is.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    fn command(&self, arguments: &[&str]) -> Vec<String> {
        let socket = self.socket.to_string_lossy();
        let words = [self.dyno.as_str(), "--socket", &socket];
        words
            .iter()
            .chain(arguments)
            .map(ToString::to_string)
            .collect()
    }

    /// Kills hostd, starts it again, and waits until it can be given work; how long
    /// all of that took.
    pub(super) fn kill_and_restart(&mut self) -> Result<Duration> {
        let begin = Instant::now();
        self.child.kill()?;
        self.child.wait()?;
        self.child = serve(&self.hostd, &self.folder)?;
        self.until("it is ready", |host| {
            call(&host.socket, "GET", "/readyz", &Value::Null).is_ok()
        })?;
        Ok(begin.elapsed())
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<()> {
        let log = || std::fs::read_to_string(self.folder.join("hostd.log"));
        let deadline = Instant::now() + DEADLINE;
        while !is_so(self) {
            if let Some(status) = self.child.try_wait()? {
                bail!("hostd ended: {status}: {}", log()?);
            }
            if Instant::now() > deadline {
                bail!("hostd, until {what}: {}", log()?);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

/// Executes hostd with its state below `folder`.
fn serve(hostd: &Path, folder: &Path) -> Result<Child> {
    let log = folder.join("hostd.log");
    let log = File::options().append(true).create(true).open(log)?;
    Command::new(hostd)
        .arg("serve")
        .args(["--run-dir", RUN_DIR])
        .arg("--state-dir")
        .arg(folder.join("dyno"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start hostd")
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("bench: hostd cannot be ended: {error}");
        }
    }
}
