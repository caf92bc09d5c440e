//! Another machine whose hostd listens with TLS: `dyno` on one side, hostd on the other,
//! and nothing in common but the network of the test.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use dyno_tests::host::Host;
use dyno_tests::write_file;
use serde_json::Value;

use crate::rig::{Lines, bare, text, wait};
use crate::terminal::Terminal;

const ALL: &str = "read,logs,run,secrets,host";

/// A machine whose hostd listens.
struct Machine {
    host: Host,
}

/// A token, and where it is good.
struct Token {
    secret: String,
    url: String,
    ca: String,
}

impl Machine {
    fn start() -> Self {
        Self {
            host: Host::start_with(&["--listen", "127.0.0.1:0"]),
        }
    }

    /// One that has a context, `box`, with all scopes, which is chosen.
    fn chosen() -> Self {
        let machine = Self::start();
        let token = machine.token("all", ALL);
        let added = machine.add("box", &token, &["--use"], &token.secret);
        assert!(added.status.success(), "{added:?}");
        machine
    }

    fn token(&self, name: &str, scopes: &str) -> Token {
        let text = self
            .host
            .ok(&["token", "create", "--json", "--scope", scopes, name]);
        let new: Value = serde_json::from_str(&text).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Token {
            secret: text(&new["secret"]),
            url: format!("https://{}", text(&new["endpoint"]["address"])),
            ca: text(&new["endpoint"]["ca"]),
        }
    }

    /// `dyno` on this side, which knows nothing of a hostd here.
    fn dyno(&self, arguments: &[&str]) -> Command {
        let mut command = bare();
        command
            .env("XDG_CONFIG_HOME", self.host.path().join("config"))
            .env("DYNO_AUTOSTART", "0")
            .env("DYNO_RUN_DIR", self.host.path().join("none"))
            .stdin(Stdio::null())
            .args(arguments);
        command
    }

    /// The same, for that host by variables.
    fn by_variables(&self, token: &Token, arguments: &[&str]) -> Command {
        let mut command = self.dyno(arguments);
        command
            .env("DYNO_HOST", &token.url)
            .env("DYNO_CA", &token.ca)
            .env("DYNO_TOKEN", &token.secret);
        command
    }

    /// `ctx add` with this on its standard input.
    fn add(&self, name: &str, token: &Token, more: &[&str], input: &str) -> Output {
        let arguments = ["ctx", "add", name, &token.url, "--ca", &token.ca];
        let mut child = self
            .dyno(&[&arguments, more].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that needs none does not read it.
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).ok();
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        done(self.dyno(arguments))
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.dyno(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

#[track_caller]
fn done(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    text(&output.stdout).trim_end().to_owned()
}

#[track_caller]
fn refused(mut command: Command) -> (String, Option<i32>) {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{command:?}: {output:?}");
    (text(&output.stderr), output.status.code())
}

#[test]
fn streams_go_both_ways_and_the_exit_code_comes_back() {
    let machine = Machine::chosen();
    let script = "cat; echo err >&2; exit 7";
    let mut run = machine.spawn(&["run", "--rm", "-i", "host", "sh", "-c", script]);
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
}

#[test]
fn every_kind_of_command_works_there() {
    let machine = Machine::chosen();
    let mut events = machine.spawn(&["events"]);
    let script = "echo hi; while read line; do echo got-$line; done; sleep 1000";
    machine.ok(&[
        "run", "-d", "-i", "--name", "web", "host", "sh", "-c", script,
    ]);
    machine.host.until_phase("web", "running");
    assert!(machine.ok(&["ps"]).contains("web"));
    assert_eq!(machine.ok(&["exec", "web", "echo", "there"]), "there");
    assert!(machine.ok(&["stats", "--no-stream"]).contains("web"));
    assert!(machine.ok(&["inspect", "web"]).contains("\"web\""));

    let mut logs = machine.spawn(&["logs", "-f", "web"]);
    let mut lines = Lines::of(logs.stdout.take().unwrap());
    lines.wait_for("hi");
    let mut attach = machine.spawn(&["attach", "web"]);
    attach.stdin.take().unwrap().write_all(b"one\n").unwrap();
    lines.wait_for("got-one");
    Lines::of(attach.stdout.take().unwrap()).wait_for("got-one");

    let (here, back) = (
        machine.host.path().join("here"),
        machine.host.path().join("back"),
    );
    let content = "0123456789abcdef".repeat(1 << 16);
    write_file(&here, &content);
    machine.ok(&["cp", &here.to_string_lossy(), "web:/tmp/there"]);
    machine.ok(&["cp", "web:/tmp/there", &back.to_string_lossy()]);
    assert!(fs::read_to_string(&back).unwrap() == content);

    machine.ok(&["volume", "create", "data"]);
    assert!(machine.ok(&["volume", "export", "data"]).contains("ustar"));
    machine.ok(&["rm", "-f", "web"]);
    assert!(machine.host.ids().is_empty());
    assert_eq!(wait(&mut logs), Some(0));
    wait(&mut attach);
    let mut seen = String::new();
    let mut stream = events.stdout.take().unwrap();
    while !(seen.contains("web") && seen.contains("removed")) {
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes).unwrap();
        assert_ne!(length, 0, "{seen}");
        seen += &text(&bytes[..length]);
    }
    events.kill().unwrap();
    events.wait().unwrap();
}

#[test]
fn a_terminal_is_one_there_too() {
    let machine = Machine::chosen();
    machine.ok(&["run", "-d", "--name", "web", "host", "sleep", "1000"]);
    machine.host.until_phase("web", "running");
    let terminal = Terminal::new(33, 99);
    let mut child = terminal.spawn(machine.dyno(&["exec", "-it", "web", "sh"]));
    terminal.enter("stty size");
    terminal.wait_for("33 99");
    terminal.enter("exit 5");
    assert_eq!(wait(&mut child), Some(5));
}

#[test]
fn many_connections_at_once_are_all_served() {
    let machine = Machine::chosen();
    let names: Vec<String> = (0..40).map(|number| format!("n{number}")).collect();
    for name in &names {
        machine.host.ok(&["volume", "create", name]);
    }
    let mut arguments = vec!["volume", "rm"];
    arguments.extend(names.iter().map(String::as_str));
    assert_eq!(machine.ok(&arguments).lines().count(), 40);
}

#[test]
fn variables_are_enough() {
    let machine = Machine::start();
    let token = machine.token("ci", "read");
    assert!(done(machine.by_variables(&token, &["version"])).contains("API"));
    let mut version = machine.dyno(&["--host", &token.url, "version"]);
    version.env("DYNO_TOKEN", &token.secret);
    version.env("DYNO_CA", machine.host.path().join("state/remote/ca.pem"));
    done(version);
    // By name as well as by address.
    let by_name = Token {
        url: token.url.replace("127.0.0.1", "localhost"),
        ..token
    };
    done(machine.by_variables(&by_name, &["ps"]));
    for missing in ["DYNO_CA", "DYNO_TOKEN"] {
        let mut ps = machine.by_variables(&by_name, &["ps"]);
        let (said, code) = refused({
            ps.env_remove(missing);
            ps
        });
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(missing), "{said}");
    }
}

#[test]
fn a_token_comes_from_a_file_a_variable_or_the_standard_input() {
    let machine = Machine::start();
    let token = machine.token("ci", "read");
    let file = machine.host.path().join("token");
    write_file(&file, &format!("{}\n", token.secret));
    let name = file.to_string_lossy().into_owned();
    // Others may read it: it is no secret.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let output = machine.add("file", &token, &["--token-file", &name], "");
    assert!(text(&output.stderr).contains("chmod"), "{output:?}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let output = machine.add("file", &token, &["--token-file", &name], "");
    assert!(output.status.success(), "{output:?}");
    fs::remove_file(&file).unwrap();

    let mut add = machine.dyno(&["ctx", "add", "variable", &token.url, "--ca", &token.ca]);
    add.env("DYNO_TOKEN", &token.secret);
    done(add);
    let output = machine.add("input", &token, &[], &token.secret);
    assert!(output.status.success(), "{output:?}");
    for context in ["file", "variable", "input"] {
        machine.ok(&["--ctx", context, "ps"]);
    }
    for (more, input) in [(&[][..], ""), (&[], "two words"), (&["--ca", "x"], "x")] {
        let output = machine.add("wrong", &token, more, input);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
    machine.ok(&["ctx", "rm", "file", "variable", "input"]);
    let kept = machine.host.path().join("config/dyno/tokens");
    assert_eq!(fs::read_dir(kept).unwrap().count(), 0);
    // What is reached over ssh has none of this.
    let (said, code) = refused(machine.dyno(&["ctx", "add", "x", "box", "--ca", &token.ca]));
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn a_refusal_says_whether_the_token_or_its_scope_is_missing() {
    let machine = Machine::start();
    let token = machine.token("weak", "read");
    let (said, code) = refused(machine.by_variables(&token, &["rm", "web"]));
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("`run`"), "{said}");
    let wrong = Token {
        secret: "dyno_wrong".to_owned(),
        ..token
    };
    let (said, code) = refused(machine.by_variables(&wrong, &["ps"]));
    assert_eq!(code, Some(10), "{said}");
    assert!(said.contains("dyno token create"), "{said}");
}

/// What `dyno` says of whatever listens there.
#[track_caller]
fn unreachable(machine: &Machine, token: &Token, port: u16, expected: &str) {
    let there = Token {
        url: format!("https://127.0.0.1:{port}"),
        secret: token.secret.clone(),
        ca: token.ca.clone(),
    };
    let (said, code) = refused(machine.by_variables(&there, &["ps"]));
    assert_eq!(code, Some(9), "{said}");
    assert!(said.contains(expected) && said.contains("try: "), "{said}");
    assert!(said.contains(&there.url), "{said}");
}

#[test]
fn what_cannot_be_reached_says_why() {
    let machine = Machine::start();
    let token = machine.token("ci", "read");
    unreachable(&machine, &token, 9, "does not answer");
    let listen = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    };
    let (plain, port) = listen();
    thread::spawn(move || {
        for stream in plain.incoming() {
            let mut stream = stream.unwrap();
            stream.read_exact(&mut [0; 16]).unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").ok();
        }
    });
    unreachable(&machine, &token, port, "does not speak TLS");
    let (closing, port) = listen();
    thread::spawn(move || {
        for stream in closing.incoming() {
            drop(stream);
        }
    });
    unreachable(&machine, &token, port, "closes connections");
    // It accepts, as the kernel does for it, and says nothing.
    let (_silent, port) = listen();
    unreachable(&machine, &token, port, "does not get to TLS within 10 s");
    let nameless = Token {
        url: "https://nowhere.invalid:1".to_owned(),
        ..token
    };
    let (said, code) = refused(machine.by_variables(&nameless, &["ps"]));
    assert_eq!(code, Some(9), "{said}");
    assert!(said.contains("has no address"), "{said}");
}

#[test]
fn a_stream_ends_with_its_token() {
    let machine = Machine::start();
    let token = machine.token("ci", ALL);
    done(machine.by_variables(
        &token,
        &[
            "run",
            "-d",
            "--name",
            "web",
            "host",
            "sh",
            "-c",
            "echo hi; sleep 1000",
        ],
    ));
    let mut logs = machine
        .by_variables(&token, &["logs", "-f", "web"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = Lines::of(logs.stdout.take().unwrap());
    lines.wait_for("hi");
    machine.host.ok(&["token", "rm", "ci"]);
    assert_eq!(wait(&mut logs), Some(1));
    let (said, code) = refused(machine.by_variables(&token, &["ps"]));
    assert_eq!(code, Some(10), "{said}");
}

#[test]
fn a_certificate_takes_the_place_of_a_token() {
    let machine = Machine::start();
    let other = machine.token("other", "read");
    let file = machine.host.path().join("ci.pem");
    let name = file.to_string_lossy().into_owned();
    let create = [
        "token",
        "create",
        "--scope",
        "read,logs,run",
        "--cert",
        &name,
        "ci",
    ];
    assert_eq!(machine.host.ok(&create), name);
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // One that is there is not written over, nor a token made.
    let (said, code) = machine.host.fails(&create);
    assert_eq!(code, 4, "{said}");
    let output = machine.add("box", &other, &["--use", "--cert", &name], "");
    assert!(output.status.success(), "{output:?}");
    assert!(!machine.ok(&["ctx", "ls", "--json"]).contains("PRIVATE"));

    let script = "echo hi; sleep 1000";
    machine.ok(&["run", "-d", "--name", "web", "host", "sh", "-c", script]);
    machine.host.until_phase("web", "running");
    assert_eq!(machine.ok(&["exec", "web", "echo", "there"]), "there");
    let (said, code) = refused(machine.dyno(&["token", "ls"]));
    assert_eq!(code, Some(5), "{said}");
    let mut ps = machine.dyno(&["ps"]);
    ps.env("DYNO_HOST", &other.url)
        .env("DYNO_CA", &other.ca)
        .env("DYNO_CERT", &file);
    assert!(done(ps).contains("web"));

    // It ends as a token does: at once, and whatever goes on over it.
    let mut logs = machine.spawn(&["logs", "-f", "web"]);
    Lines::of(logs.stdout.take().unwrap()).wait_for("hi");
    machine.host.ok(&["token", "rm", "ci"]);
    assert_eq!(wait(&mut logs), Some(1));
    let (said, code) = refused(machine.dyno(&["ps"]));
    assert_eq!(code, Some(10), "{said}");
    assert!(said.contains("certificate"), "{said}");
}

#[test]
fn what_is_no_certificate_with_its_key_is_told() {
    let machine = Machine::start();
    let token = machine.token("ci", "read");
    let file = machine.host.path().join("ci.pem");
    let name = file.to_string_lossy().into_owned();
    let certificate = fs::read_to_string(machine.host.path().join("state/remote/ca.pem")).unwrap();
    for (text, why) in [("", "no certificate"), (&certificate, "no private key")] {
        write_file(&file, text);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let output = machine.add("box", &token, &["--cert", &name], "");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text_of(&output).contains(why), "{output:?}");
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let output = machine.add("box", &token, &["--cert", &name], "");
    assert!(text_of(&output).contains("chmod"), "{output:?}");
    // Without a listener there is nobody who signs.
    let alone = Host::start();
    let made = alone.path().join("x.pem");
    let arguments = [
        "token",
        "create",
        "--scope",
        "read",
        "--cert",
        &made.to_string_lossy(),
        "x",
    ];
    let (said, code) = alone.fails(&arguments);
    assert_eq!(code, 7, "{said}");
    assert!(said.contains("--listen") && !made.exists(), "{said}");
}

fn text_of(output: &Output) -> String {
    text(&output.stderr)
}
