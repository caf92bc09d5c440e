//! Hostile images, canaries, and clients that do not behave.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use dyno_tests::host::Host;
use dyno_tests::root;
use serde_json::{Value, json};

/// Seconds after which a command hangs, as far as these tests are concerned.
const HANG: &str = "60";

/// Runs `dyno`, which must end by itself, and hostd must be the same afterwards.
#[track_caller]
pub(crate) fn bounded(host: &Host, arguments: &[&str]) -> Output {
    let dyno = host.dyno(arguments);
    let mut command = Command::new("timeout");
    command.args(["-k", "1", HANG]).arg(dyno.get_program());
    for (name, value) in dyno.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let output = command.args(dyno.get_args()).output().unwrap();
    assert_ne!(output.status.code(), Some(124), "{arguments:?} hangs");
    assert_sane(host);
    output
}

/// hostd answers, and neither it nor a monitor has panicked.
#[track_caller]
pub(crate) fn assert_sane(host: &Host) {
    host.ok(&["version"]);
    let log = fs::read_to_string(host.path().join("hostd.log")).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}

/// Bytes of memory that hostd has (`VmRSS`, proc_pid_status(5)).
pub(crate) fn memory(host: &Host) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.unwrap().parse::<u64>().unwrap() << 10
}

/// Both streams, as text.
pub(crate) fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat()
}

/// A folder of the host that no dyno was given.
pub(crate) struct Canary(PathBuf);

impl Canary {
    pub(crate) fn new(host: &Host) -> Self {
        let folder = host.path().join("canary");
        fs::create_dir(&folder).unwrap();
        for name in ["secret", "hosts", "passwd"] {
            let text = "secret:x:7777:7777:secret:/:/bin/sh\n";
            let mut file = File::create(folder.join(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    #[track_caller]
    pub(crate) fn assert_untouched(&self) {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0).unwrap() {
            let entry = entry.unwrap();
            let content = fs::read(entry.path()).unwrap();
            assert_eq!(
                content, b"secret:x:7777:7777:secret:/:/bin/sh\n",
                "{entry:?} changed"
            );
            names.push(entry.file_name());
        }
        names.sort();
        assert_eq!(names, ["hosts", "passwd", "secret"], "the canary changed");
    }
}

/// An image in the making: busybox, to be spoilt.
pub(crate) struct Hostile {
    folder: PathBuf,
    /// What `config.config` of the image says.
    pub(crate) config: Value,
}

impl Hostile {
    pub(crate) fn new(host: &Host, name: &str) -> Self {
        let folder = host.path().join(format!("image-{name}"));
        let root = folder.join("root");
        fs::create_dir_all(&root).unwrap();
        root::fill(&root);
        let config = json!({"Cmd": ["true"], "Env": ["PATH=/bin"]});
        Self { folder, config }
    }

    /// The root file system, as long as it is a folder of the host.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Puts a symlink there instead of what is there.
    pub(crate) fn link(&self, name: &str, target: &Path) {
        let path = self.root().join(name);
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else if path.exists() {
            fs::remove_file(&path).unwrap();
        }
        std::os::unix::fs::symlink(target, path).unwrap();
    }

    /// Makes the archive that `docker save` would, and loads it.
    pub(crate) fn load(&self, host: &Host, reference: &str) -> Output {
        let tar = |archive: &str, folder: &str, files: &[&str]| {
            let status = Command::new("tar")
                .args(["--owner=0", "--group=0", "-C"])
                .arg(self.folder.join(folder))
                .arg("-cf")
                .arg(self.folder.join(archive))
                .args(files)
                .status()
                .unwrap();
            assert!(status.success(), "tar: {status}");
        };
        tar("layer.tar", "root", &["."]);
        let sum = Command::new("sha256sum")
            .arg(self.folder.join("layer.tar"))
            .output()
            .unwrap();
        let sum = String::from_utf8(sum.stdout).unwrap();
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = json!({
            "architecture": architecture, "os": "linux", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", &sum[..64])]},
        });
        let manifest = json!([
            {"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}
        ]);
        for (name, document) in [("config.json", config), ("manifest.json", manifest)] {
            let mut file = File::create(self.folder.join(name)).unwrap();
            file.write_all(document.to_string().as_bytes()).unwrap();
        }
        let files = ["manifest.json", "config.json", "layer.tar"];
        tar("image.tar", ".", &files);
        let archive = self.folder.join("image.tar");
        bounded(host, &["load", "-i", &archive.to_string_lossy()])
    }

    /// Loads it and runs it with these arguments: the output of the first that fails.
    pub(crate) fn run(&self, host: &Host, arguments: &[&str]) -> Output {
        let reference = "hostile:latest";
        let loaded = self.load(host, reference);
        if !loaded.status.success() {
            return loaded;
        }
        let output = bounded(
            host,
            &[&["run", "--rm", "--pull", "never", reference], arguments].concat(),
        );
        host.run(&["rmi", reference]);
        output
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder)
            && !std::thread::panicking()
        {
            panic!("remove {}: {error}", self.folder.display());
        }
    }
}

/// Sends these bytes to hostd and nothing more, and returns all that it has to say.
pub(crate) fn raw(host: &Host, request: &[u8]) -> String {
    let stream = UnixStream::connect(host.socket()).unwrap();
    let mut answer = Vec::new();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    // A server that has seen enough may close before all was written.
    (&stream).write_all(request).ok();
    match (&stream).read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("no end of {:?}: {error}", request.escape_ascii()),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request for this path, by this method, with a JSON body or none.
pub(crate) fn request(host: &Host, method: &str, path: &str, body: &str) -> String {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: hostd\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    raw(host, &[head.as_bytes(), body.as_bytes()].concat())
}

/// The status of an HTTP answer; 0 where there is none.
pub(crate) fn status(answer: &str) -> u16 {
    let code = answer.split(' ').nth(1).unwrap_or_default();
    code.parse().unwrap_or_default()
}
