//! `dyno sandbox`: hosts that come up, lose each other, lose their power, and go.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use dyno_tests::{Folder, must_be_root, programs, until};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;

/// How long silence must last to be believed.
const SILENCE: Duration = Duration::from_millis(700);
const ANSWER: Duration = Duration::from_secs(5);

/// A sandbox in a mount namespace of the test's own; it goes with the test.
struct Sandbox {
    folder: Folder,
}

impl Sandbox {
    fn up(hosts: u8) -> Self {
        let sandbox = Self::none();
        sandbox.ok(&["up", "--hosts", &hosts.to_string()]);
        sandbox
    }

    /// None yet.
    fn none() -> Self {
        must_be_root();
        let nothing: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(
            nothing,
            "/",
            nothing,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            nothing,
        )
        .unwrap();
        std::fs::create_dir_all("/run/netns").unwrap();
        mount(
            nothing,
            "/run/netns",
            Some("tmpfs"),
            MsFlags::empty(),
            nothing,
        )
        .unwrap();
        Self {
            folder: Folder::new(),
        }
    }

    fn dyno(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs().join("dyno"));
        command
            .env("DYNO_SANDBOX_DIR", self.folder.path())
            .env("DYNO_AUTOSTART", "0")
            .stdin(Stdio::null())
            .args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let arguments = [&["sandbox"], arguments].concat();
        self.dyno(&arguments).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "sandbox {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> (String, i32) {
        let output = self.run(arguments);
        let code = output.status.code().unwrap();
        assert_ne!(code, 0, "sandbox {arguments:?}: {output:?}");
        (String::from_utf8_lossy(&output.stderr).into_owned(), code)
    }

    /// `dyno` for a host.
    #[track_caller]
    fn on(&self, host: &str, arguments: &[&str]) -> String {
        let dyno = programs().join("dyno");
        let dyno = dyno.to_str().unwrap();
        self.ok(&[&["exec", host, "--", dyno], arguments].concat())
    }

    fn hosts(&self) -> Vec<Value> {
        let listed = self.ok(&["ls", "--json"]);
        serde_json::from_str(&listed).unwrap()
    }

    fn state(&self, host: &str) -> String {
        let hosts = self.hosts();
        let host = hosts.iter().find(|one| one["name"] == host).unwrap();
        host["state"].as_str().unwrap().to_owned()
    }

    /// Runs something in a host's network.
    fn inside<T: Send>(&self, host: &str, act: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/sandbox-{host}")).unwrap();
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                act()
            });
            inside.join().unwrap()
        })
    }

    /// Whether one host reaches another by TCP. Nothing is refused: it vanishes.
    fn reaches(&self, from: &str, to: &str) -> bool {
        let address = address(to, 7000);
        let listener = self.inside(to, || TcpListener::bind(address).unwrap());
        let connected = self.inside(from, || TcpStream::connect_timeout(&address, SILENCE));
        drop(listener);
        match connected {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::TimedOut => false,
            Err(error) => panic!("{from} to {to}: {error}"),
        }
    }

    /// Whether what one host says to another arrives.
    fn is_heard(&self, from: &str, to: &str) -> bool {
        let address = address(to, 7000);
        let ear = self.inside(to, || UdpSocket::bind(address).unwrap());
        ear.set_read_timeout(Some(SILENCE)).unwrap();
        self.inside(from, || {
            let mouth = UdpSocket::bind("0.0.0.0:0").unwrap();
            mouth.send_to(b"hello", address).unwrap();
        });
        ear.recv(&mut [0; 8]).is_ok()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.folder.path().join("sandbox").exists() {
            let down = self.run(&["down"]);
            if !down.status.success() && !std::thread::panicking() {
                panic!("sandbox down: {down:?}");
            }
        }
    }
}

fn address(host: &str, port: u16) -> SocketAddr {
    let number: u8 = host.strip_prefix("host").unwrap().parse().unwrap();
    SocketAddr::from(([10, 213, 0, number], port))
}

/// Processes whose command line names this folder.
fn processes_of(folder: &Path) -> BTreeSet<String> {
    let folder = folder.to_str().unwrap();
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(folder) {
            found.insert(format!("{} {line}", path.display()));
        }
    }
    found
}

#[test]
fn hosts_come_up_reach_each_other_and_go_without_a_trace() {
    let sandbox = Sandbox::none();
    let up = sandbox.ok(&["up", "--hosts", "3"]);
    assert_eq!(up, "host1\nhost2\nhost3");
    let ids: BTreeSet<String> = ["host1", "host2", "host3"]
        .map(|host| {
            assert_eq!(sandbox.state(host), "up");
            let info: Value = serde_json::from_str(&sandbox.on(host, &["info", "--json"])).unwrap();
            info["id"].as_str().unwrap().to_owned()
        })
        .into();
    assert_eq!(ids.len(), 3, "each is a host of its own");
    sandbox.on(
        "host2",
        &["run", "-d", "--name", "web", "host", "sleep", "1000"],
    );
    assert_eq!(sandbox.on("host1", &["ps", "-q"]), "");
    assert!(sandbox.reaches("host1", "host3") && sandbox.reaches("host3", "host1"));
    let (said, code) = sandbox.fails(&["up"]);
    assert!(code == 4 && said.contains("already"), "{said}");

    let folder = sandbox.folder.path().join("sandbox");
    assert!(!processes_of(&folder).is_empty());
    sandbox.ok(&["down"]);
    assert!(!folder.exists());
    assert_eq!(std::fs::read_dir("/run/netns").unwrap().count(), 0);
    until("all processes have ended", || {
        processes_of(&folder).is_empty()
    });
    let (_, code) = sandbox.fails(&["ls"]);
    assert_eq!(code, 3);
    assert_eq!(sandbox.ok(&["ls", "--all", "--json"]), "[]");
}

#[test]
fn hosts_that_are_parted_do_not_hear_of_each_other_until_it_is_healed() {
    let sandbox = Sandbox::up(3);
    sandbox.ok(&["partition", "host1", "host2"]);
    assert!(!sandbox.reaches("host1", "host2") && !sandbox.reaches("host2", "host1"));
    assert!(sandbox.reaches("host1", "host3") && sandbox.reaches("host3", "host2"));
    let hosts = sandbox.hosts();
    assert_eq!(hosts[0]["unreached"], serde_json::json!(["host2"]));
    sandbox.ok(&["heal"]);
    assert!(sandbox.reaches("host1", "host2") && sandbox.reaches("host2", "host1"));

    sandbox.ok(&["partition", "--one-way", "host1", "host2"]);
    assert!(!sandbox.is_heard("host1", "host2"));
    assert!(sandbox.is_heard("host2", "host1"));
    sandbox.ok(&["heal"]);
    assert!(sandbox.is_heard("host1", "host2"));
    let (_, code) = sandbox.fails(&["partition", "host1", "host1"]);
    assert_eq!(code, 2);
    let (_, code) = sandbox.fails(&["partition", "host1", "host9"]);
    assert_eq!(code, 3);
}

#[test]
fn a_host_without_power_has_no_process_left_and_its_dynos_come_back_with_it() {
    let sandbox = Sandbox::up(2);
    for host in ["host1", "host2"] {
        let always = ["run", "-d", "--name", "web", "--restart", "always", "host"];
        sandbox.on(host, &[&always[..], &["sleep", "1000"]].concat());
    }
    let pid = |host: &str| {
        let shown = sandbox.on(host, &["inspect", "--json", "web"]);
        let dyno = match serde_json::from_str(&shown).unwrap() {
            Value::Array(mut all) => all.remove(0),
            one => one,
        };
        dyno["status"]["pid"].as_u64()
    };
    let (bystander, before) = (pid("host1"), pid("host2").unwrap());
    let folder = sandbox.folder.path().join("sandbox/host2");
    sandbox.ok(&["kill", "host2"]);
    assert_eq!(sandbox.state("host2"), "down");
    assert_eq!(processes_of(&folder), BTreeSet::new());
    assert!(!Path::new(&format!("/proc/{before}/exe")).exists());
    let (_, code) = sandbox.fails(&["exec", "host2", "--", "dyno-that-is-not-there"]);
    assert_eq!(code, 127);
    assert_eq!(pid("host1"), bystander);

    sandbox.ok(&["start", "host2"]);
    until("the dyno is back", || {
        pid("host2").is_some_and(|pid| pid != before)
    });
    assert_eq!(pid("host1"), bystander);

    // hostd alone: its dynos live on.
    let before = pid("host2");
    sandbox.ok(&["kill", "--daemon", "host2"]);
    assert_eq!(sandbox.state("host2"), "down");
    sandbox.ok(&["start", "host2"]);
    assert_eq!(pid("host2"), before);
}

#[test]
fn what_is_executed_on_a_host_has_its_network_its_hostd_and_its_own_exit_code() {
    let sandbox = Sandbox::up(2);
    let output = sandbox.run(&[
        "exec",
        "host2",
        "--",
        "sh",
        "-c",
        "echo $DYNO_SOCKET; exit 42",
    ]);
    assert_eq!(output.status.code(), Some(42));
    let socket = sandbox.hosts()[1]["socket"].as_str().unwrap().to_owned();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), socket);
    let addresses = sandbox.ok(&[
        "exec", "host2", "--", "ip", "-o", "-4", "addr", "show", "eth0",
    ]);
    assert!(addresses.contains("10.213.0.2/24"), "{addresses}");
    let (said, code) = sandbox.fails(&["exec", "host7", "--", "true"]);
    assert!(code == 125 && said.contains("host7"), "{code} {said}");
    let killed = sandbox.run(&["exec", "host1", "--", "sh", "-c", "kill -TERM $$"]);
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(killed.status.signal(), Some(15));
}

#[test]
fn a_wire_loses_packets_where_the_kernel_can() {
    let sandbox = Sandbox::up(2);
    let output = sandbox.run(&["loss", "host1", "100"]);
    match output.status.code() {
        Some(0) => {
            assert!(!sandbox.is_heard("host1", "host2") && !sandbox.is_heard("host2", "host1"));
            sandbox.ok(&["loss", "host1", "0"]);
            assert!(sandbox.is_heard("host1", "host2") && sandbox.is_heard("host2", "host1"));
            sandbox.ok(&["loss", "host1", "100"]);
            sandbox.ok(&["heal"]);
            assert!(sandbox.is_heard("host1", "host2"));
        }
        code => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(code == Some(7) && said.contains("netem"), "{code:?} {said}");
            // Nothing was half done.
            assert!(sandbox.is_heard("host1", "host2") && sandbox.is_heard("host2", "host1"));
            sandbox.ok(&["heal"]);
        }
    }
    let waited = sandbox.inside("host1", || {
        TcpStream::connect_timeout(&address("host2", 9), ANSWER).unwrap_err()
    });
    assert_eq!(waited.kind(), ErrorKind::ConnectionRefused);
}
