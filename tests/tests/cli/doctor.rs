//! `dyno doctor`, with a hostd and without one.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use dyno_tests::host::Host;
use dyno_tests::{Folder, programs};
use serde_json::Value;

use crate::rig::{bare, text};

/// Each check by its name: its state, and what was found.
fn checks(output: &[u8]) -> Vec<(String, String, String)> {
    let checks: Vec<Value> = serde_json::from_slice(output).unwrap();
    let word = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
    checks
        .iter()
        .map(|check| {
            (
                word(check, "name"),
                word(check, "state"),
                word(check, "found"),
            )
        })
        .collect()
}

fn state<'a>(checks: &'a [(String, String, String)], name: &str) -> Option<&'a str> {
    let check = checks.iter().find(|(found, ..)| found == name);
    check.map(|(_, state, _)| state.as_str())
}

#[test]
fn a_host_that_runs_dynos_lacks_nothing() {
    let host = Host::start();
    let output = host.run(&["doctor", "--json"]);
    let found = checks(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{found:?}");
    for name in [
        "hostd",
        "kernel",
        "namespaces",
        "seccomp",
        "overlayfs",
        "DNS",
        "programs",
    ] {
        assert_eq!(state(&found, name), Some("ok"), "{name}: {found:?}");
    }
    assert!(found.iter().all(|(_, state, _)| state != "failure"));
    let table = host.ok(&["doctor"]);
    assert!(
        table
            .lines()
            .any(|line| line.starts_with("ok") && line.contains("kernel"))
    );
}

#[test]
fn without_hostd_it_says_what_would_keep_one_from_running() {
    let folder = Folder::new();
    let run = folder.path().join("run");
    let doctor = |mut command: Command| {
        command.env("DYNO_RUN_DIR", &run);
        let output = command.output().unwrap();
        (output.status.code(), checks(&output.stdout))
    };
    let mut plain = bare();
    plain.args(["doctor", "--json"]);
    plain.env("DYNO_STATE_DIR", folder.path());
    let (code, found) = doctor(plain);
    assert_eq!(code, Some(0), "{found:?}");
    assert_eq!(state(&found, "hostd"), Some("warning"));
    assert_eq!(state(&found, "DNS"), None, "only a hostd knows");
    assert!(!run.exists(), "to look starts and makes nothing");

    // No layer of an overlay can lie on an overlay.
    let mut layered = Command::new("unshare");
    layered.args(["-m", "sh", "-c"]).arg(
        "mkdir lower upper work merged && \
         mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work o merged && \
         DYNO_STATE_DIR=$PWD/merged/state exec \"$0\" doctor --json",
    );
    layered.arg(programs().join("dyno"));
    layered.env_remove("DYNO_SOCKET").current_dir(folder.path());
    let (code, found) = doctor(layered);
    assert_eq!(code, Some(7), "{found:?}");
    assert_eq!(state(&found, "file system"), Some("failure"));
}

#[test]
fn programs_of_another_release_are_named() {
    let folder = Folder::new();
    let script = "#!/bin/sh\necho \"$0 version 0.0.1\"\n";
    for program in ["dyno-runtime", "dyno-unpack"] {
        symlink(programs().join(program), folder.path().join(program)).unwrap();
    }
    let edge = folder.path().join("dyno-edge");
    dyno_tests::write_file(&edge, script);
    std::fs::set_permissions(&edge, Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(programs().join("hostd"))
        .args(["doctor", "--programs"])
        .arg(folder.path())
        .output()
        .unwrap();
    let said = text(&output.stdout);
    let line = said
        .lines()
        .find(|line| line.contains(" programs: hostd is"));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    assert!(line.starts_with("warning"), "{line}");
    assert!(line.contains("dyno-edge is 0.0.1"), "{line}");
    assert!(!line.contains("dyno-runtime"), "{line}");
}
