//! Runs at a terminal: size, raw mode, detaching and coming back.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use dyno_tests::host::Host;
use dyno_tests::{DEADLINE, until};

use crate::rig::{signal, wait};

#[test]
fn a_terminal_has_our_size_and_follows_it() {
    let host = Host::start();
    let terminal = Terminal::new(33, 99);
    let mut child = terminal.spawn(host.dyno(&["run", "--rm", "-it", "host", "sh"]));
    terminal.enter("stty size");
    terminal.wait_for("33 99");
    terminal.resize(44, 88);
    signal(&child, Signal::WINCH);
    until("the new size arrives", || {
        terminal.enter("stty size");
        thread::sleep(Duration::from_millis(50));
        terminal.shown().contains("44 88")
    });
    terminal.enter("exit 5");
    assert_eq!(wait(&mut child), Some(5));
}

#[test]
fn the_terminal_is_restored_after_an_exit_and_after_a_signal() {
    let host = Host::start();
    for ending in [
        "exit 0",
        "kill -9 $$ # sent to init from inside: ignored\nexit 0",
    ] {
        let terminal = Terminal::new(24, 80);
        let before = terminal.mode();
        let mut child = terminal.spawn(host.dyno(&["run", "--rm", "-it", "host", "sh"]));
        until("the terminal is raw", || terminal.mode() != before);
        terminal.enter(ending);
        wait(&mut child);
        assert_eq!(terminal.mode(), before, "after {ending}");
    }
    let terminal = Terminal::new(24, 80);
    let before = terminal.mode();
    let mut child = terminal.spawn(host.dyno(&["run", "--rm", "-it", "host", "sleep", "1000"]));
    until("the terminal is raw", || terminal.mode() != before);
    // init ignores what it does not handle; the third request kills the dyno.
    for _ in 0..3 {
        signal(&child, Signal::TERM);
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(wait(&mut child), Some(137));
    assert_eq!(terminal.mode(), before);
}

#[test]
fn a_terminal_is_the_commands_own_under_an_init_too() {
    let host = Host::start();
    let run = ["run", "--rm", "-it", "--init", "host"];
    let terminal = Terminal::new(33, 99);
    let mut child = terminal.spawn(host.dyno(&[&run[..], &["sh"]].concat()));
    terminal.enter("stty size; echo at-$(tty)");
    terminal.wait_for("33 99");
    terminal.wait_for("at-/dev/pts/0");
    terminal.enter("echo begun-$((40 + 1)); sleep 1000; echo interrupted");
    terminal.wait_for("begun-41");
    // In the foreground is what the shell has started, once it has.
    until("it is interrupted and the shell goes on", || {
        terminal.send(&[3]);
        terminal.enter("echo on-$((40 + 2))");
        thread::sleep(Duration::from_millis(50));
        terminal.shown().contains("on-42")
    });
    assert!(
        !terminal.shown().contains("job control"),
        "{}",
        terminal.shown()
    );
    terminal.enter("exit 5");
    assert_eq!(wait(&mut child), Some(5));

    let terminal = Terminal::new(24, 80);
    let sleep = ["sh", "-c", "echo begun-$((40 + 1)); exec sleep 1000"];
    let mut child = terminal.spawn(host.dyno(&[&run[..], &sleep].concat()));
    terminal.wait_for("begun-41");
    terminal.send(&[3]);
    assert_eq!(wait(&mut child), Some(130));
}

#[test]
fn the_detach_keys_leave_the_dyno_running() {
    let host = Host::start();
    let terminal = Terminal::new(24, 80);
    let before = terminal.mode();
    let mut child = terminal.spawn(host.dyno(&["run", "-it", "--name", "shell", "host", "sh"]));
    terminal.enter("echo ready-$((40 + 2))");
    terminal.wait_for("ready-42");
    terminal.send(&[16, 17]);
    assert_eq!(wait(&mut child), Some(0));
    assert_eq!(terminal.mode(), before);
    assert_eq!(host.inspect("shell")["status"]["phase"], "running");

    let terminal = Terminal::new(24, 80);
    let mut child = terminal.spawn(host.dyno(&["attach", "shell"]));
    until("it answers the one who came back", || {
        terminal.enter("echo back-$((40 + 3))");
        thread::sleep(Duration::from_millis(50));
        terminal.shown().contains("back-43")
    });
    terminal.enter("exit 6");
    assert_eq!(wait(&mut child), Some(6));
}

#[test]
fn top_fills_the_terminal_and_gives_it_back() {
    let host = Host::start();
    host.ok(&["run", "-d", "--name", "busy", "host", "sleep", "1000"]);
    for (end, code) in [(Some(b"q"), 0), (None, 0)] {
        let terminal = Terminal::new(24, 80);
        let before = terminal.mode();
        let mut child = terminal.spawn(host.dyno(&["top"]));
        terminal.wait_for("busy");
        assert_ne!(terminal.mode(), before);
        terminal.send(b"m");
        terminal.wait_for("MEMORY▼");
        terminal.resize(10, 160);
        signal(&child, Signal::WINCH);
        // Wide enough for graphs, whose blocks are in nothing else.
        terminal.wait_for("█");
        match end {
            Some(keys) => terminal.send(keys),
            None => signal(&child, Signal::TERM),
        }
        assert_eq!(wait(&mut child), Some(code));
        assert_eq!(terminal.mode(), before);
        until("the screen of before is back", || {
            terminal.shown().trim_end().ends_with("\u{1b}[?1049l")
        });
    }
    let table = host.ok(&["top"]);
    assert!(
        table.contains("PRESSURE") && table.contains("busy"),
        "{table}"
    );
    assert!(!table.contains('\u{1b}'), "{table}");
}

/// A terminal that a person would sit at.
pub(crate) struct Terminal {
    master: OwnedFd,
    slave: OwnedFd,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    pub(crate) fn new(rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let mut options = std::fs::OpenOptions::new();
        let slave = options
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap()
            .into();
        let shown = Arc::new(Mutex::new(String::new()));
        let mut reader = std::fs::File::from(master.try_clone().unwrap());
        let seen = Arc::clone(&shown);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A pty whose last user is gone says EIO.
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                seen.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        let terminal = Self {
            master,
            slave,
            shown,
        };
        terminal.resize(rows, columns);
        terminal
    }

    pub(crate) fn spawn(&self, mut command: Command) -> Child {
        let stdio = || Stdio::from(self.slave.try_clone().unwrap());
        command
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap()
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.master, size).unwrap();
    }

    fn mode(&self) -> String {
        let mode = tcgetattr(&self.slave).unwrap();
        format!(
            "{:?} {:?} {:?}",
            mode.input_modes, mode.output_modes, mode.local_modes
        )
    }

    fn send(&self, bytes: &[u8]) {
        let mut master = std::fs::File::from(self.master.try_clone().unwrap());
        master.write_all(bytes).unwrap();
    }

    pub(crate) fn enter(&self, line: &str) {
        self.send(format!("{line}\n").as_bytes());
    }

    fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    pub(crate) fn wait_for(&self, text: &str) {
        let begin = Instant::now();
        while !self.shown().contains(text) {
            assert!(
                begin.elapsed() < DEADLINE,
                "no {text:?} in {:?}",
                self.shown()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }
}
