//! OCI bundles, and `dyno-runtime` on them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::{Folder, programs, root, until};

/// Host id that the containers' ids begin at.
pub const ID_BASE: u32 = 0x5000_0000;

/// A bundle with a busybox root, an overlay over it, and every namespace.
#[derive(Debug)]
pub struct Bundle {
    folder: Folder,
    /// `config.json`, to be changed before [`Bundle::run`].
    pub config: Value,
    /// The runtime; `dyno-runtime`, unless a test puts another in its place.
    pub program: PathBuf,
    id: String,
}

/// How a container ended, as far as a stranger to it can see.
#[derive(Debug)]
pub struct Ran {
    /// What `create` answered.
    pub create: Output,
    /// What the container wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Bundle {
    /// A bundle whose container runs a shell script.
    pub fn script(script: &str) -> Self {
        Self::new(&["sh", "-c", script])
    }

    /// A bundle whose container runs this.
    pub fn new(args: &[&str]) -> Self {
        crate::must_be_root();
        let folder = Folder::new();
        for name in ["rootfs", "layer", "upper", "work"] {
            std::fs::create_dir(folder.path().join(name)).expect("make a folder");
        }
        root::fill(&folder.path().join("layer"));
        let name = folder
            .path()
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let config = config(folder.path(), &name, args);
        Self {
            folder,
            config,
            program: programs().join("dyno-runtime"),
            id: name,
        }
    }

    /// The same without a user namespace: the container's root is the host's.
    #[must_use]
    pub fn as_host_root(mut self) -> Self {
        let linux = self.config["linux"].as_object_mut().expect("an object");
        linux.remove("uidMappings");
        linux.remove("gidMappings");
        let namespaces = linux["namespaces"].as_array_mut().expect("a list");
        namespaces.retain(|namespace| namespace["type"] != "user");
        self
    }

    /// Adds one to the mounts.
    pub fn mount(&mut self, mount: Value) {
        let mounts = self.config["mounts"].as_array_mut().expect("a list");
        mounts.push(mount);
    }

    /// The bundle's folder; below it the layer is `layer`, what was written is in `upper`.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `dyno-runtime` with this bundle's own state folder.
    pub fn runtime(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(self.path().join("state"))
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command of the runtime to its end.
    pub fn call(&self, args: &[&str]) -> Output {
        self.runtime(args).output().expect("run dyno-runtime")
    }

    /// Creates the container, its output going to files.
    pub fn create(&self) -> Output {
        self.create_by(|_command| {})
    }

    /// Writes `config.json` as it is now.
    pub fn write(&self) {
        let config = serde_json::to_vec(&self.config).expect("JSON");
        let mut file = File::create(self.path().join("config.json")).expect("make config.json");
        std::io::Write::write_all(&mut file, &config).expect("write config.json");
    }

    /// A command that takes the bundle and the id after these words.
    pub fn command(&self, words: &[&str]) -> Command {
        self.write();
        let path = self.path().to_string_lossy().into_owned();
        self.runtime(&[words, &["--bundle", &path, &self.id]].concat())
    }

    /// Runs the container in the foreground.
    pub fn run_attached(&self) -> Output {
        self.command(&["run"]).output().expect("run dyno-runtime")
    }

    /// Runs the container in the background.
    pub fn run_detached(&self) {
        // Not through pipes: the container would keep them open.
        let output = |name| File::create(self.path().join(name)).expect("make a file");
        let mut run = self.command(&["run", "--detach"]);
        run.stdout(output("stdout")).stderr(output("stderr"));
        let status = run.status().expect("run dyno-runtime");
        assert!(status.success(), "run: {}", self.read("stderr"));
    }

    /// The same, by a command that a test may spoil first.
    pub fn create_by(&self, spoil: impl FnOnce(&mut Command)) -> Output {
        self.write();
        let output = |name| File::create(self.path().join(name)).expect("make a file");
        let path = self.path().to_string_lossy().into_owned();
        let mut create = self.runtime(&["create", "--bundle", &path, &self.id]);
        create.stdout(output("stdout")).stderr(output("stderr"));
        spoil(&mut create);
        let status = create.status().expect("run dyno-runtime");
        Output {
            status,
            stdout: Vec::new(),
            stderr: self.read("stderr").into_bytes(),
        }
    }

    /// Creates and starts the container, waits for its end, and deletes it.
    pub fn run(&self) -> Ran {
        self.finish(self.create())
    }

    /// Starts a container that was created so, waits for its end, and deletes it.
    pub fn finish(&self, create: Output) -> Ran {
        if create.status.success() {
            self.start();
            until("the container stops", || {
                self.state()["status"] == "stopped"
            });
            let delete = self.call(&["delete", &self.id]);
            assert!(delete.status.success(), "delete: {delete:?}");
        }
        Ran {
            create,
            stdout: self.read("stdout"),
            stderr: self.read("stderr"),
        }
    }

    /// Starts the container.
    pub fn start(&self) {
        let start = self.call(&["start", &self.id]);
        assert!(start.status.success(), "start: {start:?}");
    }

    /// A command of the container's, executed in all its namespaces as their
    /// root with every capability: the strongest attacker there is inside.
    pub fn inside(&self, args: &[&str]) -> Command {
        let pid = self.state()["pid"].to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--mount", "--pid", "--ipc", "--uts"]);
        if self.config["linux"]["uidMappings"].is_array() {
            command.args(["--user", "--setuid=0", "--setgid=0"]);
        }
        command.arg("--").args(args).env("PATH", "/bin");
        command
    }

    /// What the container wrote, which must have been created.
    pub fn output(&self) -> String {
        let ran = self.run();
        assert!(ran.create.status.success(), "create: {ran:?}");
        assert_eq!(ran.stderr, "", "the container complains: {ran:?}");
        ran.stdout
    }

    /// What `state` says.
    pub fn state(&self) -> Value {
        let state = self.call(&["state", &self.id]);
        assert!(state.status.success(), "state: {state:?}");
        serde_json::from_slice(&state.stdout).expect("JSON")
    }

    fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // Whatever state a failed test left it in.
        self.call(&["delete", "--force", &self.id]);
    }
}

fn config(folder: &Path, name: &str, args: &[&str]) -> Value {
    let path = |name: &str| folder.join(name).display().to_string();
    let mount = |target: &str, kind: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": options});
    let layers = [
        format!("lowerdir={}", path("layer")),
        format!("upperdir={}", path("upper")),
        format!("workdir={}", path("work")),
        "userxattr".to_owned(),
    ];
    let namespaces = ["user", "pid", "mount", "network", "uts", "ipc", "cgroup"];
    let mapping = json!([{"containerID": 0, "hostID": ID_BASE, "size": 65536}]);
    let capabilities = json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL"]);
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "hostname": "box",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
        },
        "mounts": [
            {"destination": "/", "type": "overlay", "source": "overlay", "options": layers},
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "noexec", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "cgroupsPath": format!("/{name}"),
            "namespaces": namespaces.map(|kind| json!({"type": kind})),
            "uidMappings": mapping,
            "gidMappings": mapping,
            "maskedPaths": ["/proc/absent", "/proc/interrupts", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
