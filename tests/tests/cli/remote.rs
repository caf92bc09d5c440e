//! Another machine over ssh: Debian's sshd and ssh with a configuration of the test's
//! own, in the network of the test.

mod tls;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use dyno_tests::host::Host;
use dyno_tests::{programs, until, write_file};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::rig::{Lines, bare, text, wait};

const SSHD: &str = "/usr/sbin/sshd";

/// A machine with hostd and sshd, which ssh's configuration calls `box`.
struct Machine {
    host: Host,
    sshd: Child,
}

impl Machine {
    fn start() -> Self {
        Self::start_with("", &programs())
    }

    /// With this in front of the key (AUTHORIZED_KEYS FILE FORMAT in sshd(8)), and
    /// `dyno` in this folder.
    fn start_with(option: &str, programs: &Path) -> Self {
        let host = Host::start();
        let file = |name: &str| host.path().join(name);
        for key in ["key", "host_key"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
            assert!(keygen.arg(file(key)).status().unwrap().success());
        }
        let public = |key: &str| std::fs::read_to_string(file(key).with_extension("pub")).unwrap();
        write_file(
            &file("authorized_keys"),
            &format!("{option} {}", public("key")),
        );
        write_file(
            &file("known_hosts"),
            &format!("[127.0.0.1]:2222 {}", public("host_key")),
        );
        let folder = host.path().display();
        write_file(
            &file("sshd_config"),
            &format!(
                "ListenAddress 127.0.0.1:2222\nHostKey {folder}/host_key\nPidFile none\n\
                 AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n\
                 PermitRootLogin prohibit-password\nLogLevel VERBOSE\n\
                 SetEnv PATH={}:/usr/bin:/bin DYNO_SOCKET={} DYNO_AUTOSTART=0\n",
                programs.display(),
                host.socket().display(),
            ),
        );
        write_file(
            &file("ssh_config"),
            &format!(
                "Host box\n HostName 127.0.0.1\n Port 2222\n User root\nHost *\n \
                 IdentityFile {folder}/key\n IdentitiesOnly yes\n \
                 UserKnownHostsFile {folder}/known_hosts\n"
            ),
        );
        std::fs::create_dir(file("bin")).unwrap();
        let ssh = file("bin/ssh");
        write_file(
            &ssh,
            &format!("#!/bin/sh\nexec /usr/bin/ssh -F {folder}/ssh_config \"$@\"\n"),
        );
        std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
        // Debian's service makes it, which does not run here.
        std::fs::create_dir_all("/run/sshd").unwrap();
        let sshd = Command::new(SSHD)
            .args(["-D", "-f"])
            .arg(file("sshd_config"))
            .arg("-E")
            .arg(file("sshd.log"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        until("sshd listens", || {
            std::net::TcpStream::connect("127.0.0.1:2222").is_ok()
        });
        Self { host, sshd }
    }

    /// `dyno` on this side, which knows nothing of a hostd here.
    fn dyno(&self, arguments: &[&str]) -> Command {
        let mut command = bare();
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", self.host.path().join("bin").display());
        command
            .env("PATH", path)
            .env("XDG_CONFIG_HOME", self.host.path().join("config"))
            .env("XDG_RUNTIME_DIR", self.host.path())
            .env("DYNO_AUTOSTART", "0")
            .env("DYNO_RUN_DIR", self.host.path().join("none"))
            .stdin(Stdio::null())
            .args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.dyno(arguments).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "dyno {arguments:?}: {output:?}");
        text(&output.stdout).trim_end().to_owned()
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> (String, Option<i32>) {
        let output = self.run(arguments);
        assert!(!output.status.success(), "dyno {arguments:?}: {output:?}");
        (text(&output.stderr), output.status.code())
    }

    /// How often somebody has logged in.
    fn logins(&self) -> usize {
        let log = std::fs::read_to_string(self.host.path().join("sshd.log")).unwrap();
        log.matches("Accepted publickey").count()
    }

    fn end_master(&self) -> bool {
        let control = format!("ControlPath={}/dyno/%C", self.host.path().display());
        let mut ssh = Command::new(self.host.path().join("bin/ssh"));
        let exit = ssh.args(["-o", &control, "-O", "exit", "box"]).output();
        exit.unwrap().status.success()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end_master();
        self.sshd.kill().unwrap();
        self.sshd.wait().unwrap();
    }
}

#[test]
fn dynos_of_another_machine_are_as_those_of_this_one() {
    let machine = Machine::start();
    let on_box = |arguments: &[&str]| machine.ok(&[&["--host", "box"], arguments].concat());
    let script = "cat; echo err >&2; exit 7";
    let mut run = machine.dyno(&["--host", "box", "run", "--rm", "-i", "host", "sh", "-c"]);
    let mut run = run
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // More than all buffers on the way hold, both ways.
    let sent: Vec<u8> = (0..251).cycle().take(8 << 20).collect();
    let mut stdin = run.stdin.take().unwrap();
    let bytes = sent.clone();
    let writer = thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let output = run.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert!(output.stdout == sent, "{} bytes", output.stdout.len());
    assert_eq!(text(&output.stderr), "err\n");

    on_box(&["run", "-d", "--name", "web", "host", "sleep", "1000"]);
    assert_eq!(on_box(&["exec", "web", "echo", "hi"]), "hi");
    machine.host.until_phase("web", "running");
    assert!(on_box(&["ps"]).contains("web"));
    on_box(&["rm", "-f", "web"]);
    assert!(machine.host.ids().is_empty());
    // What this machine has is none of it.
    assert_eq!(machine.run(&["ps"]).status.code(), Some(9));
    assert_eq!(machine.logins(), 1);
}

#[test]
fn who_has_logged_in_does_so_again_once_the_master_has_gone() {
    let machine = Machine::start();
    let version = || machine.ok(&["--host", "root@box:2222", "version"]);
    assert!(version().contains("API"));
    version();
    assert_eq!(machine.logins(), 1);
    assert!(machine.end_master());
    version();
    assert_eq!(machine.logins(), 2);
}

#[test]
fn an_interrupt_goes_to_the_dyno_and_the_connection_stays() {
    let machine = Machine::start();
    let script = "trap 'echo interrupted; exit 7' INT; echo ready; while :; do sleep 0.1; done";
    let arguments = ["--host", "box", "run", "--rm", "host", "sh", "-c", script];
    let mut child = machine
        .dyno(&arguments)
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut lines = Lines::of(child.stdout.take().unwrap());
    lines.wait_for("ready");
    // As a terminal does: to all of the group.
    kill_process_group(Pid::from_child(&child), Signal::INT).unwrap();
    lines.wait_for("interrupted");
    assert_eq!(wait(&mut child), Some(7));
}

#[test]
fn a_connection_that_breaks_is_told() {
    let machine = Machine::start();
    machine.ok(&[
        "--host",
        "box",
        "run",
        "-d",
        "--name",
        "web",
        "host",
        "sh",
        "-c",
        "echo hi; sleep 1000",
    ]);
    let mut logs = machine
        .dyno(&["--host", "box", "logs", "-f", "web"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = Lines::of(logs.stdout.take().unwrap());
    lines.wait_for("hi");
    assert!(machine.end_master());
    assert_eq!(wait(&mut logs), Some(1));
    machine.ok(&["--host", "box", "rm", "-f", "web"]);
}

#[test]
fn what_a_login_shell_says_is_no_part_of_the_connection() {
    let talks = r#"command="echo Welcome; echo; exec sh -c \"$SSH_ORIGINAL_COMMAND\"""#;
    let machine = Machine::start_with(talks, &programs());
    assert!(machine.ok(&["--host", "box", "version"]).contains("API"));
}

#[test]
fn a_key_that_is_held_to_the_bridge_is_enough() {
    let machine = Machine::start_with(r#"restrict,command="dyno __bridge""#, &programs());
    assert!(machine.ok(&["--host", "box", "version"]).contains("API"));
    let mut ssh = Command::new(machine.host.path().join("bin/ssh"));
    let output = ssh
        .args(["box", "id"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!text(&output.stdout).contains("uid="), "{output:?}");
}

#[test]
fn what_is_missing_on_the_way_is_told() {
    let machine = Machine::start_with("", Path::new("/nowhere"));
    let (said, code) = machine.fails(&["--host", "box", "ps"]);
    assert_eq!(code, Some(9), "{said}");
    assert!(said.contains("try: install dyno on box"), "{said}");
    let (said, code) = machine.fails(&["--host", "root@127.0.0.1:9", "ps"]);
    assert_eq!(code, Some(9), "{said}");
    assert!(said.contains("cannot log in at root@127.0.0.1:9"), "{said}");
    // sshd knows no other key than ours.
    std::fs::remove_file(machine.host.path().join("authorized_keys")).unwrap();
    machine.end_master();
    let (said, code) = machine.fails(&["--host", "box", "ps"]);
    assert_eq!(code, Some(9), "{said}");
    assert!(said.contains("Permission denied"), "{said}");
}

#[test]
fn where_no_hostd_runs_its_machine_says_so_once() {
    let mut machine = Machine::start();
    let elsewhere = "ssh://box/run/none/it's.sock";
    let (said, code) = machine.fails(&["--host", elsewhere, "ps"]);
    assert_eq!(code, Some(9), "{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
    assert!(said.contains("/run/none/it's.sock"), "{said}");
    machine.host.kill();
    let (said, code) = machine.fails(&["--host", "box", "ps"]);
    assert_eq!(code, Some(9), "{said}");
    machine.host.spawn_again();
    machine.host.until_it_answers();
}

#[test]
fn a_name_is_no_option_of_ssh() {
    let machine = Machine::start();
    let proof = machine.host.path().join("proof");
    let option = format!("-oProxyCommand=touch {}", proof.display());
    for arguments in [
        &["--host", &option, "ps"][..],
        &[&format!("--host={option}"), "ps"],
        &["ctx", "add", "x", "--", &option],
    ] {
        let (said, code) = machine.fails(arguments);
        assert_eq!(code, Some(2), "{said}");
    }
    let mut ps = machine.dyno(&["ps"]);
    let output = ps.env("DYNO_HOST", &option).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(!proof.exists());
}

#[test]
fn a_context_is_chosen_by_name_variable_or_for_good() {
    let machine = Machine::start();
    let list = || -> Value { serde_json::from_str(&machine.ok(&["ctx", "ls", "--json"])).unwrap() };
    machine.ok(&["ctx", "add", "prod", "root@box"]);
    assert_eq!(list()[0]["current"], true);
    assert_eq!(list()[1]["host"], "root@box");
    // Added is not chosen.
    assert_eq!(machine.run(&["ps"]).status.code(), Some(9));
    machine.ok(&["--ctx", "prod", "ps"]);
    let mut ps = machine.dyno(&["ps"]);
    assert!(ps.env("DYNO_CTX", "prod").status().unwrap().success());
    machine.ok(&["ctx", "use", "prod"]);
    assert_eq!(list()[1]["current"], true);
    machine.ok(&["ps"]);
    // Who names one means it.
    assert_eq!(
        machine.run(&["--ctx", "local", "ps"]).status.code(),
        Some(9)
    );
    machine.ok(&["--socket", &machine.host.socket().to_string_lossy(), "ps"]);
    assert_eq!(machine.fails(&["--ctx", "lab", "ps"]).1, Some(3));
    assert_eq!(
        machine.fails(&["--ctx", "prod", "--host", "box", "ps"]).1,
        Some(2)
    );
    assert_eq!(machine.fails(&["ctx", "add", "prod", "box"]).1, Some(4));
    machine.ok(&["ctx", "rm", "prod"]);
    assert_eq!(machine.ok(&["ctx", "ls", "-q"]), "local");
    assert_eq!(machine.run(&["ps"]).status.code(), Some(9));
}

#[test]
fn a_list_of_contexts_that_cannot_be_read_stops_only_who_needs_it() {
    let machine = Machine::start();
    let file: PathBuf = machine.host.path().join("config/dyno/contexts.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    write_file(&file, "{");
    let (said, code) = machine.fails(&["ps"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("contexts.json"), "{said}");
    machine.ok(&["--host", "box", "ps"]);
}
