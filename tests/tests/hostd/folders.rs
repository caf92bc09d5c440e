//! hostd and its folders: one hostd for each, and nothing half-made in them.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use dyno_tests::host::{Host, own_network};
use dyno_tests::{Folder, must_be_root, programs, until};

use crate::rig::{assert_nothing_left, dyno_cgroups};

/// Runs `hostd serve`, which must give up.
fn refused(state: &Path, run: &Path) -> String {
    let output: Output = Command::new("timeout")
        .args(["-k", "1", "30"])
        .arg(programs().join("hostd"))
        .arg("serve")
        .arg("--state-dir")
        .arg(state)
        .arg("--run-dir")
        .arg(run)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_second_hostd_on_either_folder_is_refused_and_the_first_goes_on() {
    let host = Host::with_busybox();
    let id = host.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    host.until_phase(&id, "running");
    let pid = host.inspect(&id)["status"]["pid"].clone();
    let other = Folder::new();
    let (state, run) = (host.path().join("state"), host.path().join("run"));
    for (state, run, named) in [
        (state.clone(), run.clone(), &state),
        (state.clone(), other.path().join("run"), &state),
        (other.path().join("state"), run.clone(), &run),
    ] {
        let error = refused(&state, &run);
        let named = named.display().to_string();
        assert!(
            error.contains("another hostd") && error.contains(&named),
            "{error}"
        );
    }
    assert_eq!(host.inspect(&id)["status"]["pid"], pid);
    assert_eq!(host.ok(&["exec", &id, "echo", "still here"]), "still here");
}

#[test]
fn what_cannot_be_swept_keeps_no_hostd_from_starting() {
    let mut host = Host::with_busybox();
    let id = host.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    host.until_phase(&id, "running");
    // Half a creation, in which something cannot be removed: a mount.
    let half = host.path().join("state/dynos/0123456789ab/upper");
    std::fs::create_dir_all(&half).unwrap();
    let mount = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        let done = command.args(arguments).arg(&half).status().unwrap();
        assert!(done.success());
    };
    mount("mount", &["-t", "tmpfs", "busy"]);
    host.kill_and_restart();
    let running = host.inspect(&id)["status"]["phase"] == "running";
    mount("umount", &[]);
    assert!(running);
    host.kill_and_restart();
    assert!(!half.exists(), "it is swept once it can be");
}

#[test]
fn a_start_that_fails_leaves_no_cgroup_and_can_be_tried_again() {
    let host = Host::with_busybox();
    host.fails(&["run", "-d", "busybox", "nosuchprogram"]);
    host.fails(&["run", "-d", "--workdir", "/etc/passwd", "busybox", "true"]);
    assert_nothing_left(&host);
    let shared = host.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let volume = format!("{}:/srv", shared.display());
    let id = host.ok(&["run", "-d", "-v", &volume, "busybox", "sleep", "1000"]);
    host.ok(&["stop", "-t", "0s", &id]);
    std::fs::remove_dir(&shared).unwrap();
    let (error, _) = host.fails(&["start", &id]);
    assert!(error.contains("shared"), "{error}");
    assert_eq!(host.inspect(&id)["status"]["phase"], "failed");
    assert_eq!(dyno_cgroups(&host), std::collections::BTreeSet::new());
    std::fs::create_dir(&shared).unwrap();
    host.ok(&["start", &id]);
    host.until_phase(&id, "running");
    host.ok(&["rm", "-f", &id]);
    assert_nothing_left(&host);
}

#[test]
fn claims_of_user_ids_are_kept_where_only_root_writes() {
    must_be_root();
    own_network();
    // The canary: a link in a folder for everybody, as a user may plant it.
    let folder = Folder::new();
    let canary = folder.path().join("canary");
    std::fs::copy("/etc/hostname", &canary).unwrap();
    let before = std::fs::read(&canary).unwrap();
    let planted = folder.path().join("planted");
    std::fs::create_dir(&planted).unwrap();
    symlink(&canary, planted.join("lock")).unwrap();
    let script = "mount -t tmpfs -o mode=1777 lock /run/lock && \
         cp -a $0 /run/lock/dyno-uids && chown -h -R 65534:65534 /run/lock/dyno-uids && \
         exec $1 serve --state-dir $2/state --run-dir $2/run";
    let mut hostd = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .arg(&planted)
        .arg(programs().join("hostd"))
        .arg(folder.path())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let socket = folder.path().join("run/hostd.sock");
    let mut ended = false;
    until("hostd listens or gives up", || {
        ended = hostd.try_wait().unwrap().is_some();
        ended || socket.exists()
    });
    if !ended {
        hostd.kill().unwrap();
        hostd.wait().unwrap();
    }
    let teardown = Command::new(programs().join("hostd"))
        .arg("teardown")
        .arg("--state-dir")
        .arg(folder.path().join("state"))
        .arg("--run-dir")
        .arg(folder.path().join("run"))
        .output()
        .unwrap();
    assert_eq!(std::fs::read(&canary).unwrap(), before);
    assert!(!ended && teardown.status.success(), "{teardown:?}");
}
