//! Bad input: a clear error with an exit code, and nothing half-made.

use std::process::Command;

use dyno_tests::host::Host;
use dyno_tests::{Folder, programs, until};

/// Runs `dyno run` with these arguments, which must be refused with these words.
#[track_caller]
fn refused(host: &Host, arguments: &[&str], words: &[&str]) {
    let (error, code) = host.fails(&[&["run"], arguments].concat());
    for word in words {
        assert!(
            error.contains(word),
            "{arguments:?} (exit {code}) does not say {word:?}: {error}"
        );
    }
    assert!(host.ids().is_empty(), "{arguments:?} left a dyno");
    let left = std::fs::read_dir(host.path().join("state/dynos"))
        .unwrap()
        .count();
    assert_eq!(left, 0, "{arguments:?} left a folder");
}

#[test]
fn what_cannot_be_done_is_refused_with_the_value_and_a_way_out() {
    let host = Host::with_busybox();
    for (arguments, words) in [
        (&["-m", "0", "busybox", "true"][..], &["memory", "0"][..]),
        (&["-m", "1K", "busybox", "true"], &["memory", "1"]),
        (&["-m", "9999T", "busybox", "true"], &["memory"]),
        (&["--cpu", "0", "busybox", "true"], &["cpu"]),
        (&["--pids", "0", "busybox", "true"], &["pids"]),
        (&["-p", "80:99999", "busybox", "true"], &["99999"]),
        (&["-v", "relative:/x:rx", "busybox", "true"], &["rx"]),
        (
            &["-v", "/nosuchfolder:/x", "busybox", "true"],
            &["/nosuchfolder"],
        ),
        (&["--ulimit", "nosuch=1", "busybox", "true"], &["nosuch"]),
        (
            &["--restart", "sometimes", "busybox", "true"],
            &["sometimes"],
        ),
        (
            &["--device", "/dev/nosuch", "busybox", "true"],
            &["/dev/nosuch"],
        ),
        (
            &["--platform", "plan9/mips", "busybox", "true"],
            &["plan9/mips"],
        ),
        (
            &["--name", "Not_A_Name", "busybox", "true"],
            &["Not_A_Name"],
        ),
        (&["--nosuchflag", "busybox", "true"], &["--nosuchflag"]),
        (&["--rm", "busybox", "nosuchprogram"], &["nosuchprogram"]),
    ] {
        refused(&host, arguments, words);
    }
}

#[test]
fn a_missing_program_exits_127_and_one_that_cannot_be_executed_126() {
    let host = Host::with_busybox();
    assert_eq!(
        host.fails(&["run", "--rm", "busybox", "nosuchprogram"]).1,
        127
    );
    assert_eq!(
        host.fails(&["run", "--rm", "busybox", "/etc/passwd"]).1,
        126
    );
}

#[test]
fn an_unknown_image_is_named() {
    let host = Host::with_busybox();
    let (error, _) = host.fails(&["run", "--rm", "--pull", "never", "nosuchimage", "true"]);
    assert!(error.contains("nosuchimage"), "{error}");
}

#[test]
fn a_broken_archive_is_refused_and_leaves_nothing() {
    let host = Host::with_busybox();
    // The built-in image is made on its first use, or before.
    host.ok(&["run", "--rm", "host", "true"]);
    let images = host.path().join("state/images");
    let blobs = || walk(&images);
    let before = blobs();
    let archive = host.path().join("broken.tar");
    std::io::Write::write_all(&mut std::fs::File::create(&archive).unwrap(), &[42; 5000]).unwrap();
    let path = archive.to_string_lossy();
    for arguments in [&["load", "-i", &path][..], &["import", &path, "broken"]] {
        let (error, _) = host.fails(arguments);
        assert!(!error.is_empty());
    }
    let new: Vec<_> = blobs()
        .into_iter()
        .filter(|file| !before.contains(file))
        .collect();
    assert!(new.is_empty(), "the store grew: {new:?}");
    assert!(!host.ok(&["images"]).contains("broken"));
}

fn walk(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(walk(&entry.path()));
        } else {
            found.push(entry.path().display().to_string());
        }
    }
    found.sort();
    found
}

#[test]
fn a_port_in_use_is_refused_whoever_uses_it() {
    let host = Host::with_busybox();
    let listener = std::net::TcpListener::bind("0.0.0.0:8081").unwrap();
    refused(
        &host,
        &["-d", "-p", "8081:80", "busybox", "true"],
        &["8081"],
    );
    drop(listener);
    host.ok(&[
        "run", "-d", "--name", "first", "-p", "8082:80", "busybox", "sleep", "1000",
    ]);
    let (error, _) = host.fails(&["run", "-d", "-p", "8082:80", "busybox", "true"]);
    assert!(error.contains("8082") && error.contains("first"), "{error}");
}

#[test]
fn a_name_in_use_is_refused() {
    let host = Host::with_busybox();
    host.ok(&["run", "-d", "--name", "one", "busybox", "sleep", "1000"]);
    let (error, _) = host.fails(&["run", "-d", "--name", "one", "busybox", "true"]);
    assert!(error.contains("one"), "{error}");
}

#[test]
fn an_unknown_field_of_a_request_is_refused() {
    let host = Host::with_busybox();
    let answer = Command::new("curl")
        .args(["-s", "--unix-socket"])
        .arg(host.socket())
        .args([
            "-d",
            r#"{"image": "busybox", "memroy": 1}"#,
            "-H",
            "content-type: application/json",
        ])
        .arg("http://hostd/v1/dynos")
        .output()
        .unwrap();
    let answer = String::from_utf8(answer.stdout).unwrap();
    assert!(
        answer.contains("memroy") && answer.contains("invalid"),
        "{answer}"
    );
    assert!(host.ids().is_empty());
}

#[test]
fn a_state_folder_on_a_full_disk_refuses_clearly_and_recovers() {
    dyno_tests::must_be_root();
    let folder = Folder::new();
    let full = folder.path().join("full");
    std::fs::create_dir(&full).unwrap();
    let host = Host::with_busybox();
    let dynos = host.path().join("state/dynos");
    let mount =
        |args: &[&str]| assert!(Command::new("mount").args(args).status().unwrap().success());
    mount(&[
        "-t",
        "tmpfs",
        "-o",
        "size=64k,nr_inodes=8",
        "full",
        &dynos.to_string_lossy(),
    ]);
    std::io::Write::write_all(
        &mut std::fs::File::create(dynos.join("filler")).unwrap(),
        &[0; 60_000],
    )
    .ok();
    for n in 0..8 {
        std::fs::File::create(dynos.join(format!("inode{n}"))).ok();
    }
    let (error, _) = host.fails(&["run", "-d", "busybox", "sleep", "1000"]);
    assert!(
        Command::new("umount")
            .arg(&dynos)
            .status()
            .unwrap()
            .success()
    );
    assert!(error.contains("space") || error.contains("disk"), "{error}");
    assert!(host.ids().is_empty());
    assert_eq!(
        host.ok(&["run", "--rm", "busybox", "echo", "room again"]),
        "room again"
    );
}

#[test]
fn without_root_hostd_says_so() {
    let folder = Folder::new();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(programs().join("hostd"))
        .args(["serve", "--state-dir", "/tmp/nowhere-dyno", "--run-dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(error.contains("root"), "{error}");
}

#[test]
fn without_overlayfs_or_cgroups_a_start_says_what_is_missing() {
    dyno_tests::must_be_root();
    // A private mount namespace without any cgroup mount: nothing to enforce limits with.
    let folder = Folder::new();
    let hostd = programs().join("hostd");
    let script = format!(
        "umount -R /sys/fs/cgroup && exec {} serve --state-dir {}/state --run-dir {}/run",
        hostd.display(),
        folder.path().display(),
        folder.path().display(),
    );
    let mut child = Command::new("unshare")
        .args(["-m", "-n", "sh", "-c", &script])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut status = None;
    until("hostd gives up", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    let mut error = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut error).unwrap();
    assert!(!status.unwrap().success());
    assert!(error.contains("cgroup"), "{error}");
}
