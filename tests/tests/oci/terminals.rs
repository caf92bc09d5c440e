//! A program in a container that pushes words into its caller's terminal, to be
//! taken for typed ones: TIOCSTI of `ioctl_tty(2)` (P4).
//!
//! ```text
//!  a shell on a terminal ── runs ──▶ the runtime ──▶ a program that pushes "evil"
//!        └── then reads a line: what was pushed would be its next command
//! ```
//!
//! What holds is that the program is in a session of its own, of which the
//! caller's terminal is not the controlling one.
#![cfg(target_arch = "x86_64")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::process::Command;

use dyno_tests::bundle::Bundle;
use dyno_tests::{programs, root};
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use serde_json::json;

use super::probes::GIVEN;
use super::reach::{everybody, worked};

/// What the caller's shell does: the command, and then what a line is typed for.
const SHELL: &str = r#""$@"; IFS= read -r -t 1 line && echo "typed $line"; echo end"#;

/// Runs a command of somebody who sits at a terminal; what that shows.
pub(crate) fn at_a_terminal(command: &Command) -> String {
    by_shell(r#""$@"; echo end"#, command)
}

/// The same of somebody who then reads what is typed next.
fn and_typed(command: &Command) -> String {
    by_shell(SHELL, command)
}

fn by_shell(script: &str, command: &Command) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal: OwnedFd = ioctl_tiocgptpeer(&master, flags).unwrap();
    let mut shell = Command::new(root::busybox());
    shell.args(["setsid", "-c", "sh", "-c", script, "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.stdin(terminal.try_clone().unwrap());
    shell.stdout(terminal.try_clone().unwrap());
    shell.stderr(terminal.try_clone().unwrap());
    let status = shell.status().unwrap();
    // What was shown stays to be read while one end is open.
    rustix::fs::fcntl_setfl(&master, OFlags::NONBLOCK).unwrap();
    let mut shown = Vec::new();
    let mut master = File::from(master);
    // It ends with EAGAIN.
    master.read_to_end(&mut shown).ok();
    let shown = String::from_utf8_lossy(&shown).replace('\r', "");
    assert!(status.success() && shown.ends_with("end\n"), "{shown}");
    shown
}

/// The ways to push `evil` and a line end; each is tried by itself.
fn attempts() -> Vec<String> {
    let push = |descriptor: &str| {
        let of = |byte: &u8| format!("16,{descriptor},21522,#{byte:02x}");
        b"evil\n".iter().map(of).collect::<Vec<_>>().join(";")
    };
    // 21518 is TIOCSCTTY, which with 1 takes the terminal from its session.
    vec![
        format!("stdin={}", push("0")),
        format!("stderr={}", push("2")),
        format!("opened=257,-100,@/proc/self/fd/0,2;{}", push("%1")),
        format!("own=257,-100,@/dev/tty,2;{}", push("%1")),
        format!("console=257,-100,@/dev/console,2;{}", push("%1")),
        format!("claimed=16,0,21518,0;{}", push("0")),
        format!("taken=16,0,21518,1;{}", push("0")),
        // A new session first, if it is not one already.
        format!("session=112;16,0,21518,0;{}", push("0")),
    ]
}

fn probe_inside(bundle: &Bundle) {
    let to = bundle.path().join("layer/bin/probe");
    std::fs::copy(programs().join("probe"), to).unwrap();
}

/// The answers among what a terminal has shown.
fn answers(shown: &str) -> BTreeMap<String, i32> {
    let answer = |line: &str| {
        let (name, error) = line.split_once(' ')?;
        Some((name.to_owned(), error.parse().ok()?))
    };
    let answers: BTreeMap<_, _> = shown.lines().filter_map(answer).collect();
    assert_eq!(answers.len(), attempts().len(), "{shown}");
    answers
}

fn assert_nothing_arrived(who: &str, shown: &str) {
    let answers = answers(shown);
    assert!(worked(&answers).is_empty(), "{who}: {answers:?}");
    assert!(!shown.contains("evil"), "{who}: {shown}");
}

/// Whether this kernel lets anybody push at all: the control, the same program
/// without a runtime between.
fn pushing_works() -> bool {
    let mut command = Command::new(programs().join("probe"));
    command.args(attempts());
    let shown = and_typed(&command);
    let answers = answers(&shown);
    let off = std::fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti");
    if off.is_ok_and(|value| value == "0\n") && answers["stdin"] != 0 {
        dyno_tests::skip("dev.tty.legacy_tiocsti is 0: the kernel lets nobody push");
        return false;
    }
    assert_eq!(answers["stdin"], 0, "{shown}");
    assert!(shown.contains("typed evil\n"), "the control: {shown}");
    true
}

/// Bundles of everybody who may be in a container, root of the host among them.
fn attackers() -> Vec<(&'static str, Bundle)> {
    let bundle = |uid, capabilities: &[&str]| super::probes::bundle(uid, capabilities);
    let inside = everybody();
    let inside = inside.map(|(who, uid, capabilities)| (who, bundle(uid, &capabilities)));
    let mut all = Vec::from(inside);
    all.push(("root of the host", bundle(0, GIVEN).as_host_root()));
    for (_, bundle) in &mut all {
        probe_inside(bundle);
    }
    all
}

#[test]
fn what_runs_on_the_callers_terminal_pushes_nothing_into_it() {
    if !pushing_works() {
        return;
    }
    for (who, mut bundle) in attackers() {
        bundle.config["process"]["args"] = json!([&["probe".to_owned()], &attempts()[..]].concat());
        let shown = and_typed(&bundle.command(&["run"]));
        assert_nothing_arrived(who, &shown);
    }
    // What holds is the session, and no more: who may administer the host may push.
    let mut bundle = super::probes::bundle(0, &["CAP_SYS_ADMIN"]).as_host_root();
    probe_inside(&bundle);
    bundle.config["process"]["args"] = json!([&["probe".to_owned()], &attempts()[..]].concat());
    let shown = and_typed(&bundle.command(&["run"]));
    assert!(shown.contains("typed evil\n"), "{shown}");
}

#[test]
fn what_is_executed_on_the_callers_terminal_pushes_nothing_into_it() {
    if !pushing_works() {
        return;
    }
    for (who, mut bundle) in attackers() {
        bundle.config["process"]["args"] = json!(["sleep", "1000"]);
        bundle.run_detached();
        let mut exec = bundle.runtime(&["exec", bundle.id(), "probe"]);
        exec.args(attempts());
        assert_nothing_arrived(who, &and_typed(&exec));
    }
}

#[test]
fn a_terminal_of_its_own_leads_to_no_other() {
    if !pushing_works() {
        return;
    }
    // There it may push, to itself: what it reads then is what it wrote.
    let script =
        |probe: String| format!("{probe}; IFS= read -r -t 1 line; echo \"own ${{line#e}}\"");
    let probe = attempts().into_iter().map(|attempt| format!("'{attempt}'"));
    let probe = ["probe".to_owned()]
        .into_iter()
        .chain(probe)
        .collect::<Vec<_>>();
    for (who, mut bundle) in attackers() {
        let args = ["sh".to_owned(), "-c".to_owned(), script(probe.join(" "))];
        bundle.config["process"]["args"] = json!(args);
        bundle.config["process"]["terminal"] = json!(true);
        let shown = and_typed(&bundle.command(&["run"]));
        assert!(shown.contains("own vil\n"), "the control, {who}: {shown}");
        assert!(!shown.contains("typed"), "{who}: {shown}");

        bundle.config["process"]["args"] = json!(["sleep", "1000"]);
        bundle.config["process"]["terminal"] = json!(false);
        bundle.run_detached();
        let mut exec = bundle.runtime(&["exec", "--tty", bundle.id()]);
        exec.args(args);
        let shown = and_typed(&exec);
        assert!(shown.contains("own vil\n"), "the control, {who}: {shown}");
        assert!(!shown.contains("typed"), "{who}: {shown}");
    }
}
