//! A containerd of the bench's own, beside whatever the machine may have.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::peers::Background;
use super::root::{Root, write};
use super::stage::done;

/// Where it listens, and what its state is below.
const STATE: &str = "/run/bench/containerd";
/// How long it may take to.
const DEADLINE: Duration = Duration::from_secs(20);
/// Its name of the image.
const IMAGE: &str = "localhost/bench:latest";
/// Its name of the container.
const NAME: &str = "bench";

/// A running containerd that has the image, killed at the end.
pub(super) struct Containerd {
    child: Child,
    socket: PathBuf,
}

impl Containerd {
    /// Starts it with its store in the bench's folder.
    pub(super) fn start(root: &Root) -> Result<Self> {
        let folder = root.folder().join("containerd");
        std::fs::create_dir_all(&folder)?;
        let socket = Path::new(STATE).join("socket");
        let config = format!(
            "version = 2\nroot = {folder:?}\nstate = {STATE:?}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {socket:?}\n"
        );
        let file = folder.join("config.toml");
        write(&file, config.as_bytes())?;
        let log = File::create(folder.join("log"))?;
        let child = Command::new("containerd")
            .arg("--config")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start containerd")?;
        let mut containerd = Self { child, socket };
        containerd.await_socket(&folder.join("log"))?;
        let archive = archive(root, &folder)?;
        let import = containerd.command(&["image", "import", &archive.to_string_lossy()]);
        done(Command::new("ctr").args(&import[1..]))?;
        Ok(containerd)
    }

    /// A container without a network.
    pub(super) fn background(&self) -> Background {
        let sleep = ["/bin/sleep", "60"];
        let run = [&["run", "--detach", "--null-io", IMAGE, NAME][..], &sleep].concat();
        Background {
            shown: "ctr run --detach, without a network",
            start: self.command(&run),
            remove: vec![
                self.command(&["task", "delete", "--force", NAME]),
                self.command(&["container", "delete", NAME]),
            ],
            faster_by: None,
        }
    }

    fn command(&self, arguments: &[&str]) -> Vec<String> {
        let socket = self.socket.to_string_lossy();
        let words = ["ctr", "--address", &socket];
        let words = words.iter().chain(arguments);
        words.map(ToString::to_string).collect()
    }

    fn await_socket(&mut self, log: &Path) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while UnixStream::connect(&self.socket).is_err() {
            let has_ended = self.child.try_wait()?.is_some();
            ensure!(
                !has_ended && Instant::now() < deadline,
                "containerd does not listen: {}",
                std::fs::read_to_string(log)?
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("bench: containerd cannot be ended: {error}");
        }
    }
}

/// The root file system as an image of one layer, as `docker save` writes it.
fn archive(root: &Root, folder: &Path) -> Result<PathBuf> {
    let layer = root.archive();
    let sum = done(Command::new("sha256sum").arg(&layer))?;
    let sum = sum.split(' ').next().unwrap_or_default();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
    });
    let manifest = json!([{
        "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"],
    }]);
    write(&folder.join("config.json"), config.to_string().as_bytes())?;
    write(
        &folder.join("manifest.json"),
        manifest.to_string().as_bytes(),
    )?;
    std::fs::copy(layer, folder.join("layer.tar"))?;
    let archive = folder.join("image.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(folder).arg("-cf").arg(&archive);
    done(tar.args(["manifest.json", "config.json", "layer.tar"]))?;
    Ok(archive)
}
