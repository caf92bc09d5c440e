//! What these tests need beyond a host: processes that run on, and their ends.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dyno_tests::host::Host;
use dyno_tests::{DEADLINE, programs};
use rustix::process::{Pid, Signal, kill_process};

/// `dyno` without any of our environment that it reads.
pub(crate) fn bare() -> Command {
    let mut command = Command::new(programs().join("dyno"));
    for variable in [
        "DYNO_SOCKET",
        "DYNO_HOST",
        "DYNO_CTX",
        "DYNO_CA",
        "DYNO_TOKEN",
        "DYNO_CERT",
        "DYNO_RUN_DIR",
        "DYNO_STATE_DIR",
        "DYNO_AUTOSTART",
    ] {
        command.env_remove(variable);
    }
    command
}

/// Starts `dyno` with pipes for what it writes.
pub(crate) fn spawn(host: &Host, arguments: &[&str]) -> Child {
    spawn_with(host, arguments, Stdio::null())
}

/// Runs `dyno` to its end with this on its standard input.
pub(crate) fn run_with_input(host: &Host, arguments: &[&str], input: Vec<u8>) -> Output {
    let mut child = spawn_with(host, arguments, Stdio::piped());
    let mut stdin = child.stdin.take().unwrap();
    // Who does not read it all is no failure of the writer.
    let writer = thread::spawn(move || stdin.write_all(&input).ok());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn spawn_with(host: &Host, arguments: &[&str], stdin: Stdio) -> Child {
    let mut command = host.dyno(arguments);
    command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The lines of a stream, as they come.
pub(crate) struct Lines(BufReader<ChildStdout>);

impl Lines {
    pub(crate) fn of(stdout: ChildStdout) -> Self {
        Self(BufReader::new(stdout))
    }

    pub(crate) fn wait_for(&mut self, wanted: &str) {
        let mut seen = String::new();
        loop {
            let length = self.0.read_line(&mut seen).unwrap();
            assert!(length > 0, "no {wanted:?} in {seen:?}");
            if seen.lines().last() == Some(wanted) {
                return;
            }
        }
    }
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// The exit code of a child that ends before the deadline.
pub(crate) fn wait(child: &mut Child) -> Option<i32> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if begin.elapsed() > DEADLINE {
            child.kill().unwrap();
            panic!("{child:?} does not end");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
