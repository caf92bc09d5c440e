//! A bundle of busybox, a monitor, and a client of its socket.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use dyno_runtime::cgroup;
use dyno_runtime::monitor::frame::Kind;
use dyno_runtime::monitor::log::folder;
use dyno_runtime::monitor::protocol::{Phase, State, file};
use serde_json::{Value, json};

/// Nothing in these tests may take longer, even in a machine that is emulated.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// Host id of the test dynos' root.
const ID_BASE: u32 = 1_300_000_000;

const APPLETS: [&str; 15] = [
    "cat", "chmod", "dd", "echo", "false", "head", "ls", "readlink", "seq", "sh", "sleep", "stty",
    "tail", "true", "yes",
];

/// One dyno's folder and its monitor; everything goes with it.
pub(crate) struct Rig {
    pub(crate) dir: PathBuf,
    /// `config.json`, to be changed before [`Rig::create`].
    pub(crate) spec: Value,
    /// `monitor.json`, likewise.
    pub(crate) config: Value,
    outer: String,
    monitor: Option<Child>,
}

impl Rig {
    /// A dyno that runs a shell script.
    pub(crate) fn new(script: &str) -> Self {
        let unique = format!("dyno-test-monitor-{}", std::process::id());
        let dir = std::env::temp_dir().join(&unique);
        make_rootfs(&dir.join("rootfs"));
        let outer = format!("/{unique}");
        let log = json!({"path": dir.join("log"), "max_bytes": 64 << 20, "keep": 2});
        Self {
            spec: spec(script, &format!("{outer}/dynos/a")),
            config: json!({"version": 1, "id": "a", "log": log}),
            dir,
            outer,
            monitor: None,
        }
    }

    /// Runs the monitor up to its announcement.
    pub(crate) fn announce(&mut self) -> Value {
        write(&self.dir.join("config.json"), &self.spec);
        write(&self.dir.join(file::CONFIG), &self.config);
        let errors = fs::File::create(self.dir.join("errors")).unwrap();
        let mut monitor = Command::new(env!("CARGO_BIN_EXE_dyno-runtime"))
            .arg("monitor")
            .arg(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap();
        let mut told = String::new();
        let stdout = monitor.stdout.take().unwrap();
        self.monitor = Some(monitor);
        // The end of the stream as well: one line, then it is closed.
        BufReader::new(stdout).read_to_string(&mut told).unwrap();
        assert_eq!(told.matches('\n').count(), 1, "{told:?}\n{self}");
        serde_json::from_str(&told).unwrap()
    }

    /// Runs the monitor and creates the dyno; the pid of its init.
    pub(crate) fn create(&mut self) -> u32 {
        let told = self.announce();
        let pid = told["created"]["pid"].as_u64();
        u32::try_from(pid.unwrap_or_else(|| panic!("{told}\n{self}"))).unwrap()
    }

    /// Creates and starts the dyno; the pid of its init.
    pub(crate) fn start(&mut self) -> u32 {
        let pid = self.create();
        let status = self.ask(json!({"op": "start"}));
        assert_eq!(status["ok"]["phase"], "running", "{status}\n{self}");
        pid
    }

    pub(crate) fn connect(&self) -> UnixStream {
        let socket = UnixStream::connect(self.dir.join(file::SOCKET)).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket
    }

    /// One request, one answer.
    pub(crate) fn ask(&self, request: Value) -> Value {
        self.open(request).0
    }

    /// One request, its answer, and the connection.
    pub(crate) fn open(&self, request: Value) -> (Value, UnixStream) {
        let mut socket = self.connect();
        socket.write_all(format!("{request}\n").as_bytes()).unwrap();
        let answer = read_line(&mut socket);
        (
            serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer:?}\n{self}")),
            socket,
        )
    }

    /// An attached or executing connection.
    pub(crate) fn frames(&self, request: Value) -> UnixStream {
        let (answer, socket) = self.open(request);
        assert!(answer["ok"].is_object(), "{answer}\n{self}");
        socket
    }

    pub(crate) fn state(&self) -> State {
        serde_json::from_slice(&fs::read(self.dir.join(file::STATE)).unwrap()).unwrap()
    }

    /// Waits until the state is as wanted.
    pub(crate) fn wait_for(&self, what: &str, mut wanted: impl FnMut(&State) -> bool) -> State {
        let begin = Instant::now();
        loop {
            let state = self.state();
            if wanted(&state) {
                return state;
            }
            assert!(begin.elapsed() < LONG, "no {what}: {state:?}\n{self}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the end of the monitor and that nothing is left of the dyno.
    pub(crate) fn finished(&mut self) -> State {
        let status = self.monitor_exit();
        assert!(status.success(), "{status}\n{self}");
        let state = self.state();
        assert!(state.status.phase.is_final(), "{state:?}");
        assert_eq!(state.status.pid, None);
        assert_eq!(state.init, None);
        assert!(!self.dir.join(file::SOCKET).exists());
        let cgroup = state.cgroup.v2.as_ref().unwrap();
        assert!(!cgroup.exists(), "{} is left", cgroup.display());
        state
    }

    /// [`Rig::finished`] for a dyno that exits.
    pub(crate) fn exit_code(&mut self) -> u8 {
        let state = self.finished();
        assert_eq!(state.status.phase, Phase::Exited, "{state:?}");
        state.status.exit.unwrap().code
    }

    pub(crate) fn monitor_pid(&self) -> i32 {
        i32::try_from(self.monitor.as_ref().unwrap().id()).unwrap()
    }

    pub(crate) fn monitor_exit(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.monitor.as_mut().unwrap().try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < LONG, "the monitor does not end\n{self}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The log's lines without their time, oldest first.
    pub(crate) fn log(&self) -> Vec<String> {
        let path = self.dir.join("log");
        let mut lines = Vec::new();
        for file in folder::list(&path).unwrap() {
            let Ok(text) = fs::read(folder::plain(&path, file.part)) else {
                continue;
            };
            for line in String::from_utf8_lossy(&text).lines() {
                lines.push(line.split_once(' ').unwrap().1.to_owned());
            }
        }
        lines
    }

    /// The process that writes the log, where that is not the monitor.
    pub(crate) fn log_writer(&self) -> i32 {
        let begin = Instant::now();
        loop {
            for entry in fs::read_dir("/proc").unwrap().flatten() {
                let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
                // proc_pid_stat(5): pid, name, state, parent.
                if let Some((pid, rest)) = stat.split_once(" (dyno-log) ")
                    && rest.split(' ').nth(1) == Some(&self.monitor_pid().to_string())
                {
                    return pid.parse().unwrap();
                }
            }
            assert!(begin.elapsed() < LONG, "there is no writer\n{self}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the log holds this line.
    pub(crate) fn wait_for_line(&self, wanted: &str) {
        let begin = Instant::now();
        while !self.log().iter().any(|line| line == wanted) {
            assert!(begin.elapsed() < LONG, "no line {wanted:?}\n{self}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// What is known when something goes wrong.
impl std::fmt::Display for Rig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let read = |name| fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        let log = self.log();
        let tail = &log[log.len().saturating_sub(10)..];
        write!(
            f,
            "state: {}errors: {}\nlog: {tail:#?}",
            read(file::STATE),
            read("errors")
        )
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(monitor) = &mut self.monitor {
            // It has ended already in every test that succeeds.
            monitor.kill().ok();
            monitor.wait().ok();
        }
        let layout = cgroup::detect().unwrap();
        if let Ok(text) = fs::read(self.dir.join(file::STATE)) {
            let state: State = serde_json::from_slice(&text).unwrap();
            if let Ok(group) = cgroup::Cgroup::open(state.cgroup) {
                group.kill().unwrap();
                group.remove(LONG).unwrap();
            }
        }
        cgroup::prune(&layout, &self.outer).unwrap();
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

fn write(path: &Path, value: &Value) {
    fs::File::create(path)
        .unwrap()
        .write_all(value.to_string().as_bytes())
        .unwrap();
}

fn make_rootfs(root: &Path) {
    for folder in ["bin", "dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let busybox = "/bin/busybox";
    fs::copy(busybox, root.join("bin/busybox")).expect("busybox-static is installed");
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::File::create(root.join("bin/plain")).unwrap();
}

/// The process of `exec` and of the bundle.
pub(crate) fn process(script: &str) -> Value {
    json!({
        "terminal": false,
        "user": {"uid": 0, "gid": 0},
        "args": ["/bin/sh", "-c", script],
        "env": ["PATH=/bin"],
        "cwd": "/",
        "noNewPrivileges": true
    })
}

fn spec(script: &str, cgroup: &str) -> Value {
    let ids = json!([{"containerID": 0, "hostID": ID_BASE, "size": 65536}]);
    let namespaces: Vec<Value> = ["user", "network", "mount", "pid", "uts", "ipc", "cgroup"]
        .into_iter()
        .map(|kind| json!({"type": kind}))
        .collect();
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": process(script),
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}
        ],
        "linux": {
            "uidMappings": ids,
            "gidMappings": ids,
            "namespaces": namespaces,
            "cgroupsPath": cgroup
        }
    })
}

/// One line, read byte by byte: what follows belongs to someone else.
pub(crate) fn read_line(socket: &mut UnixStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while socket.read(&mut byte).unwrap() == 1 {
        if byte == *b"\n" {
            break;
        }
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// All further lines, as JSON.
pub(crate) fn read_lines(socket: UnixStream) -> Vec<Value> {
    let lines = BufReader::new(socket).lines();
    lines
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect()
}

/// The next frame; none at the end of the stream.
pub(crate) fn read_frame(socket: &mut UnixStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 5];
    match socket.read(&mut header[..1]).unwrap() {
        0 => return None,
        _ => socket.read_exact(&mut header[1..]).unwrap(),
    }
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
    let mut payload = vec![0; length as usize];
    socket.read_exact(&mut payload).unwrap();
    Some((header[0], payload))
}

pub(crate) fn send_frame(socket: &mut UnixStream, kind: Kind, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![kind as u8];
    frame.extend_from_slice(&length);
    frame.extend_from_slice(payload);
    socket.write_all(&frame).unwrap();
}

/// What came over an attached connection until its end.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// Kind and JSON of the last frame.
    pub(crate) last: Option<(u8, Value)>,
}

impl Session {
    pub(crate) fn read(mut socket: UnixStream) -> Self {
        let mut session = Self::default();
        while let Some((kind, payload)) = read_frame(&mut socket) {
            assert!(session.last.is_none(), "a frame after the last one");
            match kind {
                1 => session.stdout.extend_from_slice(&payload),
                2 => session.stderr.extend_from_slice(&payload),
                _ => session.last = Some((kind, serde_json::from_slice(&payload).unwrap())),
            }
        }
        session
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.stderr.clone()).unwrap()
    }

    /// The code in its Exit frame.
    pub(crate) fn code(&self) -> u64 {
        match &self.last {
            Some((kind, exit)) if *kind == Kind::Exit as u8 => exit["code"].as_u64().unwrap(),
            other => panic!("no exit frame: {other:?}"),
        }
    }

    /// The kind in its Error frame.
    pub(crate) fn error(&self) -> &str {
        match &self.last {
            Some((kind, error)) if *kind == Kind::Error as u8 => error["kind"].as_str().unwrap(),
            other => panic!("no error frame: {other:?}"),
        }
    }
}

/// Reads standard output until this text has come.
pub(crate) fn read_until(socket: &mut UnixStream, text: &str) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        let (kind, payload) = read_frame(socket).unwrap_or_else(|| panic!("end after {read:?}"));
        assert_eq!(
            kind,
            Kind::Stdout as u8,
            "{}",
            String::from_utf8_lossy(&payload)
        );
        read.push_str(&String::from_utf8_lossy(&payload));
    }
    read
}

/// Whether a process is there; a zombie is not.
pub(crate) fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Waits until a process is gone.
pub(crate) fn wait_gone(pid: u32) {
    let begin = Instant::now();
    while is_alive(pid) {
        assert!(begin.elapsed() < LONG, "process {pid} lives on");
        std::thread::sleep(Duration::from_millis(2));
    }
}
