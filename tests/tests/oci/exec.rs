//! Processes executed in a running container, whose other processes are hostile:
//! through the monitor, which is the one that executes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use dyno_tests::bundle::Bundle;
use dyno_tests::until;
use serde_json::{Value, json};

use crate::seccomp::Agent;

/// A running container and its monitor.
struct Monitored {
    bundle: Bundle,
    monitor: Child,
}

impl Monitored {
    fn start(mut bundle: Bundle) -> Self {
        let id = bundle.id().to_owned();
        bundle.config["linux"]["cgroupsPath"] = json!(format!("/{id}/dynos/{id}"));
        let write = |name: &str, value: &Value| {
            let mut file = File::create(bundle.path().join(name)).unwrap();
            file.write_all(&serde_json::to_vec(value).unwrap()).unwrap();
        };
        write("config.json", &bundle.config);
        write("monitor.json", &json!({"version": 1, "id": id}));
        let path = bundle.path().display().to_string();
        let mut monitor = bundle
            .runtime(&["monitor", &path])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = String::new();
        let mut stdout = monitor.stdout.take().unwrap();
        stdout.read_to_string(&mut told).unwrap();
        assert!(told.contains("created"), "{told}");
        let monitored = Self { bundle, monitor };
        monitored.ask(&json!({"op": "start"})).0.unwrap();
        monitored
    }

    /// Waits until the container's own script has made this file.
    fn until_made(&self, name: &str) {
        let path = self.bundle.path().join("upper").join(name);
        until(&format!("it makes {name}"), || path.exists());
    }

    fn ask(&self, request: &Value) -> (Result<Value, Value>, UnixStream) {
        let mut socket = UnixStream::connect(self.bundle.path().join("monitor.sock")).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        socket.write_all(format!("{request}\n").as_bytes()).unwrap();
        let mut line = Vec::new();
        let mut byte = [0];
        while line.last() != Some(&b'\n') {
            socket.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        let answer: Value = serde_json::from_slice(&line).unwrap();
        match answer.get("err") {
            Some(error) => (Err(error.clone()), socket),
            None => (Ok(answer["ok"].clone()), socket),
        }
    }

    /// Executes a process; its output and exit code, or why there is none.
    fn exec(&self, process: &Value) -> Result<(String, i64), Value> {
        let (answer, mut socket) = self.ask(&json!({"op": "exec", "process": process}));
        answer?;
        let mut output = String::new();
        loop {
            let mut head = [0; 5];
            socket.read_exact(&mut head).unwrap();
            let [kind, length @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes(length) as usize];
            socket.read_exact(&mut payload).unwrap();
            match kind {
                1 | 2 => output.push_str(&String::from_utf8_lossy(&payload)),
                4 => {
                    let exit: Value = serde_json::from_slice(&payload).unwrap();
                    return Ok((output, exit["code"].as_i64().unwrap()));
                }
                _ => panic!("frame {kind} after {output:?}"),
            }
        }
    }
}

impl Drop for Monitored {
    fn drop(&mut self) {
        drop(self.ask(&json!({"op": "stop", "grace_ms": 0})));
        self.monitor.wait().unwrap();
        let top = Path::new("/sys/fs/cgroup");
        let hierarchies = std::fs::read_dir(top).unwrap();
        let hierarchies = hierarchies.map(|entry| entry.unwrap().path());
        for hierarchy in hierarchies.chain([top.to_owned()]) {
            let base = hierarchy.join(self.bundle.id());
            for folder in [base.join("dynos"), base] {
                std::fs::remove_dir(folder).ok();
            }
        }
    }
}

fn process(script: &str) -> Value {
    json!({
        "user": {"uid": 0, "gid": 0},
        "args": ["sh", "-c", script],
        "env": ["PATH=/bin"],
        "cwd": "/",
        "noNewPrivileges": true,
    })
}

const ALL_OWN: &str =
    "for n in user pid mnt net uts ipc cgroup; do readlink /proc/self/ns/$n; done";

#[test]
fn it_is_confined_as_the_first_process_is() {
    // P11: the same identity rules for exec as for start.
    let script = "grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp):' /proc/self/status; \
                  cut -d: -f3 /proc/self/cgroup | sort -u";
    let mut bundle = Bundle::script(&format!(
        "({ALL_OWN}; {script}) > /tmp/first; touch /tmp/done; sleep 1000"
    ));
    let capabilities = json!({"bounding": ["CAP_CHOWN"]});
    let user = json!({"uid": 1000, "gid": 1001, "additionalGids": [2000, 3000]});
    bundle.config["process"]["user"] = user.clone();
    bundle.config["process"]["capabilities"] = capabilities.clone();
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]});
    let layer = bundle.path().join("layer/tmp");
    let all = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o1777);
    std::fs::set_permissions(layer, all).unwrap();
    let monitored = Monitored::start(bundle);
    monitored.until_made("tmp/done");
    let first = std::fs::read_to_string(monitored.bundle.path().join("upper/tmp/first")).unwrap();
    let mut further = process(&format!("{ALL_OWN}; {script}"));
    further["user"] = user;
    further["capabilities"] = capabilities;
    assert_eq!(monitored.exec(&further), Ok((first.clone(), 0)));
    assert!(first.contains("Seccomp:\t2"), "{first}");
    assert!(first.contains("NoNewPrivs:\t1"), "{first}");
    assert!(first.contains("Groups:\t2000 3000"), "{first}");
}

#[test]
fn the_listener_of_its_filter_goes_to_the_agent_too() {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    let agent = Agent::for_calls(&mut bundle, &["mkdir"]);
    let monitored = Monitored::start(bundle);
    let (of_init, _listener) = agent.accept();
    assert_eq!(of_init["state"]["status"], "creating");
    let script = "mkdir /tmp/x 2>&1 | sed 's/.*: //'";
    let answer = std::thread::scope(|scope| {
        let exec = scope.spawn(|| monitored.exec(&process(script)));
        let (told, listener) = agent.accept();
        assert_eq!(told["state"]["status"], "running");
        assert_eq!(told["state"]["pid"], of_init["pid"]);
        assert_eq!(told["state"]["id"], monitored.bundle.id());
        assert_ne!(told["pid"], of_init["pid"]);
        drop(listener);
        exec.join().unwrap()
    });
    assert_eq!(answer, Ok(("Function not implemented\n".to_owned(), 0)));
}

#[test]
fn its_terminal_belongs_to_its_user() {
    let monitored = Monitored::start(Bundle::new(&["sleep", "1000"]));
    for uid in [0, 1000] {
        let mut further = process("tty; stat -c %u $(tty); test -t 0 && stty size");
        further["user"] = json!({"uid": uid, "gid": uid});
        further["terminal"] = json!(true);
        further["consoleSize"] = json!({"height": 33, "width": 77});
        let (output, code) = monitored.exec(&further).unwrap();
        let lines: Vec<&str> = output.lines().map(str::trim_end).collect();
        assert!(lines[0].starts_with("/dev/pts/"), "{lines:?}");
        assert_eq!(
            (lines[1..].to_vec(), code),
            (vec![&*uid.to_string(), "33 77"], 0)
        );
    }
}

#[test]
fn a_forged_terminal_is_refused_and_holds_nobody_up() {
    // P1: the container's root may mount what he likes over his own /dev/pts.
    for forgery in [
        "mknod /dev/pts/ptmx p",
        "touch /dev/pts/ptmx",
        "ln -s /proc/self/fd/0 /dev/pts/ptmx",
        "ln -s ../null /dev/pts/ptmx",
        "touch /dev/pts/ptmx; mount -o bind /dev/zero /dev/pts/ptmx",
        "true",
    ] {
        let script =
            format!("mount -t tmpfs x /dev/pts && {forgery} && touch /made; exec sleep 1000");
        let mut bundle = Bundle::script(&script);
        let capabilities = &mut bundle.config["process"]["capabilities"];
        for set in ["bounding", "effective", "permitted"] {
            capabilities[set] = json!(["CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_DAC_OVERRIDE"]);
        }
        let monitored = Monitored::start(bundle);
        monitored.until_made("made");
        let mut further = process("tty");
        further["terminal"] = json!(true);
        let refused = monitored.exec(&further).expect_err(forgery);
        assert!(
            refused["message"].as_str().unwrap().contains("terminal"),
            "{refused}"
        );
    }
}

#[test]
fn who_stops_it_on_its_way_holds_nobody_up() {
    // P15: root of the container stops whatever appears; the monitor waits for
    // it, but not for ever.
    let script = "touch /made; trap '' TERM; while :; do kill -STOP -1 2>/dev/null; done";
    let monitored = Monitored::start(Bundle::script(script));
    monitored.until_made("made");
    let begin = Instant::now();
    let mut refused = None;
    while refused.is_none() && begin.elapsed() < Duration::from_secs(40) {
        // Where it is stopped after its execve only, the client hangs up.
        let (answer, socket) = monitored.ask(&json!({"op": "exec", "process": process("exit 3")}));
        drop(socket);
        refused = answer.err();
    }
    let refused = refused.expect("it was never stopped in time: this proves nothing");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("timed out"), "{refused}");
    let (status, _) = monitored.ask(&json!({"op": "status"}));
    assert_eq!(status.unwrap()["phase"], "running");
}

#[test]
fn it_cannot_be_looked_into_on_its_way() {
    // P4: it has the monitor's memory until its execve. The container's root
    // looks into whatever appears, and says so if he ever sees our program.
    let script = "touch /made; \
        while :; do for p in /proc/[0-9]*; do \
            n=$(readlink $p/exe 2>/dev/null) || { test -d $p && echo $p >> /refused; continue; }; \
            case $n in */busybox) : ;; *) echo $n >> /seen ;; esac; \
        done; done";
    let monitored = Monitored::start(Bundle::script(script));
    monitored.until_made("made");
    let upper = monitored.bundle.path().join("upper");
    // The control: one was there and would not be looked into.
    until("one is caught on its way", || {
        assert_eq!(monitored.exec(&process("exit 3")), Ok((String::new(), 3)));
        upper.join("refused").exists()
    });
    let seen = std::fs::read_to_string(upper.join("seen"));
    assert!(seen.is_err(), "seen: {seen:?}");
}
