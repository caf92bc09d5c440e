//! What needs no hostd: arguments, help, completion, and its absence.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use dyno_tests::Folder;

use crate::rig::{bare, text};

#[test]
fn a_wrong_value_is_named_with_what_is_accepted_and_exit_code_2() {
    for (arguments, value, accepted) in [
        (&["run", "-m", "0", "host"][..], "'0'", "4 MiB"),
        (&["run", "-m", "1KB", "host"], "'1KB'", "64M"),
        (&["run", "--cpu", "half", "host"], "'half'", "0.5"),
        (&["run", "-p", "70000", "host"], "70000", "1 to 65535"),
        (
            &["run", "-v", "data", "host"],
            "'data'",
            "volume:/path[:ro]",
        ),
        (
            &["run", "--restart", "often", "host"],
            "'often'",
            "on-failure",
        ),
        (
            &["run", "--name", "My_App", "host"],
            "'My_App'",
            "a-z, 0-9 and -",
        ),
        (&["run", "--net", "wifi", "host"], "'wifi'", "none"),
        (
            &["logs", "--since", "yesterday", "x"],
            "'yesterday'",
            "RFC 3339",
        ),
        (
            &["run", "--no-such-flag", "host"],
            "'--no-such-flag'",
            "try:",
        ),
        (&["frobnicate"], "'frobnicate'", "try:"),
    ] {
        let output = bare().args(arguments).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("error: "), "{arguments:?}: {stderr}");
        assert!(stderr.contains("\n  try: "), "{arguments:?}: {stderr}");
        assert!(
            stderr.contains(value) && stderr.contains(accepted),
            "{arguments:?}: {stderr}"
        );
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn no_arguments_at_all_show_the_help() {
    let output = bare().output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("Usage: dyno") && !stderr.contains("error:"),
        "{stderr}"
    );
    let help = bare().arg("--help").output().unwrap();
    assert!(
        help.status.success() && text(&help.stdout) == stderr,
        "{help:?}"
    );
}

#[test]
fn a_missing_hostd_is_told_with_its_socket_and_what_to_try() {
    let folder = Folder::new();
    let output = bare()
        .env("DYNO_RUN_DIR", folder.path())
        .env("DYNO_AUTOSTART", "0")
        .arg("ps")
        .output()
        .unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(9), "{stderr}");
    let socket = folder.path().join("hostd.sock");
    assert!(stderr.contains(socket.to_str().unwrap()), "{stderr}");
    assert!(stderr.contains("try: sudo hostd serve"), "{stderr}");
}

#[test]
fn asking_for_the_version_starts_nothing() {
    let folder = Folder::new();
    let output = bare()
        .env("DYNO_RUN_DIR", folder.path())
        .args(["--json", "version"])
        .output()
        .unwrap();
    let versions: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        versions["dyno"].is_string() && versions["hostd"].is_null(),
        "{versions}"
    );
    assert_eq!(
        output.status.code(),
        Some(9),
        "only one of the two versions is known"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let mut child = bare()
        .args(["completion", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
    // Whether the script fits the pipe's buffer is the kernel's affair; the
    // reader was gone before the first byte nearly always.
    assert!(
        matches!(output.status.code(), Some(0 | 141)),
        "{:?}",
        output.status
    );
}

#[test]
fn the_completion_script_is_one_that_bash_accepts() {
    let script = bare().args(["completion", "bash"]).output().unwrap().stdout;
    let mut bash = Command::new("bash")
        .arg("-n")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    bash.stdin.take().unwrap().write_all(&script).unwrap();
    let checked = bash.wait_with_output().unwrap();
    assert!(
        checked.status.success() && script.len() > 1000,
        "{}",
        text(&checked.stderr)
    );
}
