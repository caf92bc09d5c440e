//! Volumes by themselves: made, counted, copied, packed, limited, removed.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::disk::{Disk, EXT4};
use dyno_tests::host::Host;
use dyno_tests::{skip, until, write_file};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// What a shell in a dyno with this volume at /data says.
#[track_caller]
fn within(host: &Host, volume: &str, script: &str) -> String {
    let mount = format!("{volume}:/data");
    host.ok(&["run", "--rm", "-v", &mount, "busybox", "sh", "-c", script])
}

/// Names, kinds, owners, modes, sizes and link counts.
const LOOK: &str = "cd /data && ls -lanR . | sed 's/ [A-Z][a-z][a-z] .*:[0-9][0-9] / /' | grep -v '^total' | sort; cat deep/file";

const FILL: &str = "cd /data && mkdir -p deep && echo content > deep/file && ln deep/file same \
                    && ln -s /etc/shadow out && mkfifo fifo && chown 1000:2000 deep/file \
                    && chmod 4750 deep/file && chmod 1777 .";

#[test]
fn a_volume_is_made_shown_and_removed_by_name() {
    let mut host = Host::with_busybox();
    host.ok(&["volume", "create", "made"]);
    assert_eq!(host.fails(&["volume", "create", "made"]).1, 4);
    within(&host, "used", "head -c 300000 /dev/zero > /data/file");
    let run = ["run", "-d", "--name", "app", "-v", "used:/data"];
    host.ok(&[&run[..], &["busybox", "sleep", "1000"]].concat());
    host.kill_and_restart();
    assert_eq!(host.ok(&["volume", "ls", "-q"]), "made\nused");
    let info = parsed(&host.ok(&["volume", "info", "used"]));
    assert_eq!(info["used_by"][0], "app");
    assert_eq!(info["usage"]["inodes"], 2);
    assert!(
        info["usage"]["bytes"].as_u64().unwrap() >= 300_000,
        "{info}"
    );
    assert!(info["created"].is_string());
    let (error, code) = host.fails(&["volume", "rm", "used"]);
    assert!(error.contains("app") && code == 4, "{error}");
    host.ok(&["stop", "-t", "0", "app"]);
    assert_eq!(host.fails(&["volume", "rm", "used"]).1, 4);
    host.ok(&["rm", "app"]);
    host.ok(&["volume", "rm", "used", "made"]);
    assert_eq!(host.ok(&["volume", "ls", "-q"]), "");
    assert_eq!(host.fails(&["volume", "rm", "used"]).1, 3);
    assert_eq!(within(&host, "used", "ls /data"), "");
}

#[test]
fn a_snapshot_and_a_clone_have_all_of_a_volumes_files() {
    let host = Host::with_busybox();
    within(&host, "data", FILL);
    let before = within(&host, "data", LOOK);
    assert!(before.contains("-rwsr-x---    2 1000     2000"), "{before}");
    assert_eq!(host.ok(&["volume", "snapshot", "data", "one"]), "data@one");
    assert_eq!(host.fails(&["volume", "snapshot", "data", "one"]).1, 4);
    host.ok(&["volume", "clone", "data", "live"]);
    within(&host, "data", "rm -r /data/deep; echo other > /data/new");
    host.ok(&["volume", "clone", "data@one", "copy"]);
    for copy in ["copy", "live"] {
        assert_eq!(within(&host, copy, LOOK), before);
    }
    let shadow = host
        .path()
        .join("state/volumes/.snapshots/data/one/files/out");
    assert!(fs::symlink_metadata(shadow).unwrap().is_symlink());
    // What is changed in a copy stays there.
    within(&host, "copy", "echo more >> /data/same");
    host.ok(&["volume", "rollback", "data@one"]);
    assert_eq!(within(&host, "data", LOOK), before);
    let (error, code) = host.fails(&["volume", "rm", "data"]);
    assert!(error.contains("1 snapshots") && code == 4, "{error}");
    assert_eq!(host.fails(&["volume", "rollback", "data@none"]).1, 3);
    host.ok(&["volume", "rm", "data@one"]);
    host.ok(&["volume", "rm", "data"]);
}

/// A copy is of one moment: whoever writes is paused, and goes on, whatever happens.
#[test]
fn a_dyno_is_paused_for_a_copy_and_goes_on() {
    let mut host = Host::with_busybox();
    // Two files that are the same whenever nobody is between the two writes.
    let script = "i=0; while true; do i=$((i+1)); echo $i > /data/a; echo $i > /data/b; done";
    let run = ["run", "-d", "--name", "app", "-v", "data:/data"];
    host.ok(&[&run[..], &["busybox", "sh", "-c", script]].concat());
    let count = |host: &Host| host.ok(&["exec", "app", "cat", "/data/b"]);
    until("it writes", || {
        host.run(&["exec", "app", "cat", "/data/b"])
            .status
            .success()
    });
    for name in ["one", "two"] {
        host.ok(&["volume", "snapshot", "data", name]);
        let folder = host.path().join("state/volumes/.snapshots/data").join(name);
        let number = |file: &str| {
            let text = fs::read_to_string(folder.join("files").join(file)).unwrap();
            // It may have been between opening, which empties a file, and writing.
            text.trim().parse::<i64>().ok()
        };
        if let (Some(a), Some(b)) = (number("a"), number("b")) {
            assert!(a == b || a == b + 1, "{a} {b}");
        }
        assert_ne!(host.inspect("app")["status"]["paused"], true);
    }
    let list = parsed(&host.ok(&["volume", "snapshots", "data", "--json"]));
    assert_eq!(
        (&list[0]["name"], &list[1]["live"]),
        (&"one".into(), &false.into())
    );
    let (error, code) = host.fails(&["volume", "rollback", "data@one"]);
    assert!(error.contains("app") && code == 4, "{error}");
    // hostd is killed while it has paused it.
    let id = host.inspect("app")["id"].as_str().unwrap().to_owned();
    host.ok(&["pause", "app"]);
    host.kill();
    let held = host.path().join("state/volumes/.held");
    fs::create_dir_all(&held).unwrap();
    write_file(&held.join(&id), "");
    let half = host.path().join("state/volumes/.new/1-0/files");
    fs::create_dir_all(&half).unwrap();
    host.spawn_again();
    host.until_it_answers();
    until("it goes on", || !is_paused(&host, "app"));
    let before = count(&host);
    until("it writes on", || count(&host) != before);
    until("the note goes", || !held.join(&id).exists());
    until("half a copy goes", || !half.exists());
    assert_eq!(host.ok(&["volume", "ls", "-q"]), "data");
}

fn is_paused(host: &Host, dyno: &str) -> bool {
    host.inspect(dyno)["status"]["paused"] == true
}

/// A dyno that runs with the volume `data`, and its log of commands.
fn begin(host: &Host, name: &str, mount: &str) {
    let run = ["run", "-d", "--name", name, "-v", mount];
    host.ok(&[&run[..], &["busybox", "sleep", "1000"]].concat());
    host.ok(&["exec", name, "touch", "/tmp/log"]);
}

fn log(host: &Host, dyno: &str) -> String {
    host.ok(&["exec", dyno, "cat", "/tmp/log"])
        .replace('\n', " ")
}

/// Has the volume `data` say what is done before and after a copy.
fn ask_for(host: &Host, before: &str, after: &str) {
    let (before, after) = (format!("sh -c '{before}'"), format!("sh -c '{after}'"));
    let before = ["volume", "set", "--before-backup", &before];
    host.ok(&[&before[..], &["--after-backup", &after, "data"]].concat());
}

#[test]
fn each_dyno_that_writes_runs_its_commands_around_a_copy() {
    let mut host = Host::with_busybox();
    for name in ["one", "two"] {
        begin(&host, name, "data:/data");
    }
    begin(&host, "reader", "data:/data:ro");
    ask_for(
        &host,
        "echo before >> /tmp/log; hostname >> /data/order",
        "echo after >> /tmp/log",
    );
    // They are kept, and shown.
    host.kill_and_restart();
    let info = parsed(&host.ok(&["volume", "info", "data"]));
    assert_eq!(info["backup"]["after"][0], "sh", "{info}");
    host.ok(&["volume", "snapshot", "data", "first"]);
    host.ok(&["volume", "snapshot", "--live", "data", "second"]);
    host.ok(&["volume", "clone", "data", "copy"]);
    let archive = |name: &str| host.path().join(name).to_string_lossy().into_owned();
    host.ok(&["volume", "export", "-o", &archive("1.tar"), "data"]);
    host.ok(&[
        "volume",
        "export",
        "--live",
        "-o",
        &archive("2.tar"),
        "data",
    ]);
    let expected = ["before after"; 5].join(" ");
    for name in ["one", "two"] {
        until("the archive's end is heard of", || {
            log(&host, name) == expected
        });
    }
    assert_eq!(log(&host, "reader"), "");
    // By their names, before anything is copied.
    let first = host
        .path()
        .join("state/volumes/.snapshots/data/first/files/order");
    assert_eq!(fs::read_to_string(first).unwrap(), "one\ntwo\n");
    // What is copied of a snapshot, or of a clone, disturbs nobody.
    host.ok(&["volume", "clone", "data@first", "again"]);
    host.ok(&["volume", "clone", "copy", "third"]);
    assert_eq!(log(&host, "one"), expected);
    host.ok(&["volume", "set", "--before-backup", "none", "data"]);
    host.ok(&["volume", "snapshot", "data", "third"]);
    assert_eq!(log(&host, "two"), format!("{expected} after"));
    let notes = fs::read_dir(host.path().join("state/volumes/.backups")).unwrap();
    assert_eq!(notes.count(), 0, "a note is left");
}

#[test]
fn a_command_that_fails_before_a_copy_has_it_fail_and_what_was_begun_ends() {
    let host = Host::with_busybox();
    for name in ["one", "two", "zero"] {
        begin(&host, name, "data:/data");
    }
    let snapshots = || host.ok(&["volume", "snapshots", "data", "--json"]);
    let snapshot = ["volume", "snapshot", "data", "then"];
    ask_for(
        &host,
        "echo before >> /tmp/log; echo not now >&2; test $(hostname) != two",
        "echo after >> /tmp/log",
    );
    let (error, code) = host.fails(&snapshot);
    let says = |error: &str, words: &[&str]| words.iter().all(|word| error.contains(word));
    assert!(
        says(&error, &["dyno two", "exit code 1", "not now"]) && code == 4,
        "{error}"
    );
    assert_eq!(
        ["one", "two", "zero"].map(|name| log(&host, name)),
        ["before after", "before after", ""]
    );
    assert_eq!(parsed(&snapshots()), json!([]));
    // One that does not end is killed, and one that is missing is told.
    ask_for(
        &host,
        "echo $$ > /tmp/pid; exec sleep 1000",
        "echo after >> /tmp/log",
    );
    host.ok(&["volume", "set", "--backup-timeout", "300ms", "data"]);
    let (error, code) = host.fails(&snapshot);
    assert!(says(&error, &["dyno one", "300ms"]) && code == 4, "{error}");
    assert_eq!(log(&host, "one"), "before after after");
    until("it is killed", || {
        let script = "test -d /proc/$(cat /tmp/pid)";
        let lives = host.run(&["exec", "one", "sh", "-c", script]);
        !lives.status.success()
    });
    let missing = ["--backup-timeout", "none", "--before-backup", "/nosuch"];
    host.ok(&[&["volume", "set"], &missing[..], &["data"]].concat());
    let (error, code) = host.fails(&snapshot);
    assert!(
        says(&error, &["dyno one", "/nosuch"]) && code == 4,
        "{error}"
    );
    assert_eq!(parsed(&snapshots()), json!([]));
    assert!(!is_paused(&host, "one"));
}

#[test]
fn a_command_that_fails_after_a_copy_is_told_and_the_copy_is_there() {
    let host = Host::with_busybox();
    begin(&host, "one", "data:/data");
    ask_for(&host, "true", "echo still frozen; exit 3");
    let (error, code) = host.fails(&["volume", "snapshot", "data", "then"]);
    assert!(
        error.contains("still frozen") && error.contains("exit code 3") && code == 4,
        "{error}"
    );
    let list = parsed(&host.ok(&["volume", "snapshots", "data", "--json"]));
    assert_eq!(list[0]["name"], "then");
    assert!(!is_paused(&host, "one"));
    // One that its user has paused can run nothing.
    host.ok(&["pause", "one"]);
    let (error, code) = host.fails(&["volume", "snapshot", "data", "next"]);
    assert!(error.contains("one is paused") && code == 4, "{error}");
    assert!(is_paused(&host, "one"));
    for wrong in [
        ["--backup-timeout", "2h"],
        ["--before-backup", "''"],
        ["--before-backup", "a 'b"],
    ] {
        let set = [&["volume", "set"], &wrong[..], &["data"]].concat();
        assert_eq!(host.fails(&set).1, 2, "{wrong:?}");
    }
}

/// Takes a snapshot in the background; its dyno is paused when this returns.
fn begin_snapshot(host: &Host, volume: &str, name: &str, dyno: &str) -> Child {
    let mut command = host.dyno(&["volume", "snapshot", volume, name]);
    let piped = command.stdout(Stdio::null()).stderr(Stdio::piped());
    let child = piped.spawn().unwrap();
    until("the dyno is paused", || is_paused(host, dyno));
    child
}

/// Makes a dyno with a volume at /data that waits to be started.
fn prepare(host: &Host, name: &str, volume: &str) {
    let mount = json!({"type": "volume", "name": volume, "target": "/data"});
    let spec = json!({"name": name, "image": "busybox", "mounts": [mount]}).to_string();
    let mut stream = UnixStream::connect(host.socket()).unwrap();
    let request = format!(
        "POST /v1/dynos HTTP/1.1\r\nHost: hostd\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{spec}",
        spec.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

/// Copies side by side, their user's wishes, and the end of hostd.
#[test]
fn a_dyno_stays_still_for_all_copies_unless_its_user_or_hostd_ends_them() {
    let mut host = Host::with_busybox();
    // What takes a while to copy.
    let fill = "i=0; while [ $i -lt 30000 ]; do : > /data/$i; i=$((i+1)); done";
    within(&host, "big", fill);
    let run = [
        "run",
        "-d",
        "--name",
        "app",
        "-v",
        "big:/big",
        "-v",
        "small:/small",
    ];
    host.ok(&[&run[..], &["busybox", "sleep", "1000"]].concat());
    // One copy ends while the other one goes on.
    let mut long = begin_snapshot(&host, "big", "one", "app");
    host.ok(&["volume", "snapshot", "small", "one"]);
    let was_paused = is_paused(&host, "app");
    assert!(was_paused || long.try_wait().unwrap().is_some());
    assert!(long.wait().unwrap().success());
    assert!(!is_paused(&host, "app"));
    // Its user has it go on: it is no copy of one moment.
    let long = begin_snapshot(&host, "big", "two", "app");
    host.ok(&["resume", "app"]);
    let output = long.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(!is_paused(&host, "app"));
    // Its user pauses it: it stays so.
    let long = begin_snapshot(&host, "big", "three", "app");
    host.ok(&["pause", "app"]);
    assert!(long.wait_with_output().unwrap().status.success());
    assert!(is_paused(&host, "app"));
    host.ok(&["resume", "app"]);
    // One that is prepared could begin in the middle of it.
    prepare(&host, "next", "big");
    let (error, code) = host.fails(&["volume", "snapshot", "big", "four"]);
    assert!(error.contains("next") && code == 4, "{error}");
    host.ok(&["rm", "-f", "next"]);
    // hostd is told to end.
    let mut long = begin_snapshot(&host, "big", "four", "app");
    let pid = Pid::from_raw(i32::try_from(host.pid()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(!long.wait().unwrap().success());
    let held = host.path().join("state/volumes/.held");
    until("the note goes", || {
        fs::read_dir(&held).unwrap().count() == 0
    });
    host.kill();
    host.spawn_again();
    host.until_it_answers();
    assert!(!is_paused(&host, "app"));
    let list = parsed(&host.ok(&["volume", "snapshots", "big", "--json"]));
    let names = list.as_array().unwrap().iter().map(|one| &one["name"]);
    assert_eq!(names.collect::<Vec<_>>(), ["one", "three"]);
}

#[test]
fn an_archive_of_a_volume_makes_the_same_volume() {
    let host = Host::with_busybox();
    within(&host, "data", FILL);
    let before = within(&host, "data", LOOK);
    let archive = host.path().join("data.tar").to_string_lossy().into_owned();
    host.ok(&["volume", "export", "-o", &archive, "data"]);
    assert_eq!(
        host.fails(&["volume", "export", "-o", &archive, "data"]).1,
        1
    );
    assert_eq!(host.ok(&["volume", "import", "back", &archive]), "back");
    assert_eq!(within(&host, "back", LOOK), before);
    assert_eq!(host.fails(&["volume", "import", "back", &archive]).1, 4);
    host.ok(&["volume", "snapshot", "data", "one"]);
    let again = host.path().join("one.tar").to_string_lossy().into_owned();
    host.ok(&["volume", "export", "-o", &again, "data@one"]);
    host.ok(&["volume", "import", "again", &again]);
    assert_eq!(within(&host, "again", LOOK), before);
    let left = fs::read_dir(host.path().join("state/volumes/.new")).unwrap();
    assert_eq!(left.count(), 0, "the copy that was packed is left");
}

/// Begins to take an archive, and takes no more of it than its head.
fn begin_export(host: &Host, query: &str) -> UnixStream {
    let mut stream = UnixStream::connect(host.socket()).unwrap();
    let request = format!("GET /v1/volumes/data/archive?{query} HTTP/1.1\r\nHost: h\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    stream
}

#[test]
fn an_archive_that_nobody_takes_holds_nothing_for_good() {
    let host = Host::with_busybox();
    begin(&host, "one", "data:/data");
    host.ok(&[
        "exec",
        "one",
        "sh",
        "-c",
        "head -c 20000000 /dev/zero > /data/big",
    ]);
    host.ok(&["volume", "snapshot", "data", "then"]);
    let stalled = begin_export(&host, "snapshot=then");
    let (error, code) = host.fails(&["volume", "rm", "data@then"]);
    assert!(error.contains("exported") && code == 4, "{error}");
    // Nobody else is held up: a dyno goes on, and another copy is taken.
    host.ok(&["volume", "snapshot", "data", "next"]);
    ask_for(&host, "echo before >> /tmp/log", "echo after >> /tmp/log");
    let live = begin_export(&host, "live=true");
    assert_eq!(log(&host, "one"), "before");
    let copied = begin_export(&host, "");
    assert_eq!(log(&host, "one"), "before before after");
    assert!(!is_paused(&host, "one"));
    drop((stalled, live, copied));
    until("the snapshot is free", || {
        host.run(&["volume", "rm", "data@then"]).status.success()
    });
    until("the backup has ended", || {
        log(&host, "one") == "before before after after"
    });
    until("the copy goes", || {
        fs::read_dir(host.path().join("state/volumes/.new"))
            .unwrap()
            .count()
            == 0
    });
    until("the audit log says so", || {
        let told = host.ok(&["audit", "--json", "--operation", "volume.export"]);
        told.matches("upstream").count() == 3
    });
}

/// P8: an archive is a stranger's.
#[test]
fn a_hostile_archive_stays_in_its_volume_or_is_none() {
    let host = Host::with_busybox();
    let canary = host.path().join("canary");
    write_file(&canary, "alive");
    let make = |name: &str, build: &dyn Fn(&Path)| {
        let folder = host.path().join(format!("{name}.d"));
        fs::create_dir(&folder).unwrap();
        build(&folder);
        let archive = host.path().join(format!("{name}.tar"));
        let mut tar = Command::new("tar");
        tar.args([
            "-C",
            &folder.to_string_lossy(),
            "-cf",
            &archive.to_string_lossy(),
        ]);
        (tar, archive.to_string_lossy().into_owned())
    };
    // A link that leads out, and a file behind it.
    let out = host.path().to_string_lossy().into_owned();
    let (mut tar, archive) = make("link", &|folder| {
        std::os::unix::fs::symlink(&out, folder.join("out")).unwrap();
    });
    assert!(tar.arg("out").status().unwrap().success());
    let (mut more, second) = make("file", &|folder| {
        fs::create_dir(folder.join("out")).unwrap();
        write_file(&folder.join("out/canary"), "dead");
    });
    assert!(more.arg("out/canary").status().unwrap().success());
    // One after the other, without the end of the first in between.
    let (first, second) = (fs::read(&archive).unwrap(), fs::read(&second).unwrap());
    let both = [&first[..512], &second[..]].concat();
    let path = host.path().join("both.tar");
    let mut file = fs::File::create(&path).unwrap();
    std::io::Write::write_all(&mut file, &both).unwrap();
    let output = host.run(&["volume", "import", "hostile", &path.to_string_lossy()]);
    assert_eq!(fs::read_to_string(&canary).unwrap(), "alive", "{output:?}");
    // The control: what is not hostile is there.
    if output.status.success() {
        let found = host.path().join("state/volumes/hostile/out");
        assert!(fs::symlink_metadata(found).is_ok());
    }
    // Cut short, or no archive at all: no volume.
    for (name, bytes) in [("cut", &second[..700]), ("no", &b"no archive"[..])] {
        let path = host.path().join(name);
        let mut file = fs::File::create(&path).unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        let (error, code) = host.fails(&["volume", "import", name, &path.to_string_lossy()]);
        assert_eq!(code, 2, "{error}");
        assert_eq!(host.fails(&["volume", "info", name]).1, 3);
    }
    for name in ["../x", ".snapshots", "a/b", "A"] {
        assert_eq!(host.fails(&["volume", "info", name]).1, 2, "{name}");
    }
}

#[test]
fn a_quota_holds_or_is_refused() {
    let host = Host::with_busybox();
    let asked = [
        "volume", "create", "--quota", "8M", "--inodes", "20", "small",
    ];
    let Some(_disk) = Disk::mount(&host, "volumes", &EXT4, "loop,prjquota") else {
        let (error, code) = host.fails(&asked);
        assert!(error.contains("no project quotas") && code == 7, "{error}");
        assert_eq!(host.fails(&["volume", "info", "small"]).1, 3);
        host.ok(&["volume", "create", "plain"]);
        let (error, code) = host.fails(&["volume", "set", "--quota", "8M", "plain"]);
        assert!(error.contains("no project quotas") && code == 7, "{error}");
        let info = parsed(&host.ok(&["volume", "info", "plain"]));
        assert!(info["quota"]["bytes"].is_null(), "{info}");
        // There was none to take away.
        host.ok(&["volume", "set", "--quota", "none", "plain"]);
        skip("this kernel has no quotas on ext4; that they are refused was tested");
        return;
    };
    host.ok(&asked);
    let fill = "cd /data; head -c 20000000 /dev/zero > big 2>/dev/null && echo unlimited; \
                stat -c %s big; rm big; for i in $(seq 50); do touch $i 2>/dev/null || break; done; ls | wc -l";
    let said = within(&host, "small", fill);
    let numbers: Vec<u64> = said.lines().map(|line| line.parse().unwrap()).collect();
    assert!((4 << 20..=8 << 20).contains(&numbers[0]), "{said}");
    assert!((10..20).contains(&numbers[1]), "{said}");
    let info = parsed(&host.ok(&["volume", "info", "small"]));
    assert_eq!(info["quota"]["bytes"], 8 << 20);
    assert!(info["usage"]["inodes"].as_u64().unwrap() <= 20, "{info}");
    // The dyno's root does not lift it, and another volume is not limited by it.
    within(&host, "large", "head -c 20000000 /dev/zero > /data/big");
    let clone = ["volume", "clone", "--quota", "8M", "large", "copy"];
    assert_eq!(host.fails(&clone).1, 6);
    host.ok(&["volume", "snapshot", "small", "one"]);
    host.ok(&["volume", "rollback", "small@one"]);
    let said = within(
        &host,
        "small",
        "head -c 20000000 /dev/zero > /data/big || echo full",
    );
    assert!(said.ends_with("full"), "{said}");
    host.ok(&["volume", "rm", "-f", "small"]);
}

/// What `head` and `cat` say of a file that is to have 4 MiB, in a dyno that runs.
fn write_more(host: &Host, file: &str) -> bool {
    let script = format!("head -c 4194304 /dev/zero > /data/{file}");
    host.run(&["exec", "app", "sh", "-c", &script])
        .status
        .success()
}

/// One that was made without gets one, and it changes, under a dyno that goes on.
#[test]
fn a_quota_changes_while_a_dyno_writes() {
    let mut host = Host::with_busybox();
    let Some(_disk) = Disk::mount(&host, "volumes", &EXT4, "loop,prjquota") else {
        skip("this kernel has no quotas on ext4; see a_quota_holds_or_is_refused");
        return;
    };
    let run = ["run", "-d", "--name", "app", "-v", "data:/data"];
    host.ok(&[&run[..], &["busybox", "sleep", "1000"]].concat());
    host.ok(&[
        "exec",
        "app",
        "sh",
        "-c",
        "mkdir -p /data/a/b && ln -s a /data/link && mkfifo /data/fifo",
    ]);
    assert!(write_more(&host, "a/b/before"));
    let set =
        |host: &Host, words: &[&str]| host.run(&[&["volume", "set"], words, &["data"]].concat());
    let info = |host: &Host| parsed(&host.ok(&["volume", "info", "data"]));
    // What is there already counts.
    assert!(set(&host, &["--quota", "10M"]).status.success());
    let counted = info(&host)["usage"]["bytes"].as_u64().unwrap();
    assert!((4 << 20..5 << 20).contains(&counted), "{counted}");
    assert!(write_more(&host, "a/b/second"));
    assert!(!write_more(&host, "a/third"));
    host.ok(&["exec", "app", "rm", "/data/a/third"]);
    // Less than what is taken up: it stays, and nothing more is written.
    let output = set(&host, &["--quota", "6M"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && said.contains("more than its quota"),
        "{said}"
    );
    assert!(!write_more(&host, "a/third"));
    let sizes = "stat -c %s /data/a/b/before /data/a/b/second";
    let sizes = host.ok(&["exec", "app", "sh", "-c", sizes]);
    assert_eq!(sizes, "4194304\n4194304");
    let listed = host.ok(&["volume", "ls"]);
    assert!(
        listed.contains("8 MiB") && listed.contains("6 MiB"),
        "{listed}"
    );
    host.ok(&["exec", "app", "rm", "/data/a/b/second", "/data/a/third"]);
    assert!(
        set(&host, &["--inodes", "100000", "--quota", "64M"])
            .status
            .success()
    );
    assert!(write_more(&host, "a/b/second") && write_more(&host, "a/third"));
    // A start enforces what is recorded, and so does a rollback.
    assert!(set(&host, &["--quota", "13M"]).status.success());
    host.kill_and_restart();
    assert_eq!(info(&host)["quota"]["bytes"], 13 << 20);
    assert!(!write_more(&host, "fourth"));
    assert!(
        set(&host, &["--quota", "none", "--inodes", "none"])
            .status
            .success()
    );
    assert!(write_more(&host, "fourth") && write_more(&host, "fifth"));
    host.ok(&["rm", "-f", "app"]);
    host.ok(&["volume", "rm", "data"]);
}

/// P15: whoever else writes to the disk never finds it full.
#[test]
fn a_copy_and_an_import_leave_room_on_the_disk_to_others() {
    let host = Host::with_busybox();
    let ext4 = ["mkfs.ext4", "-q", "-F"];
    let Some(disk) = Disk::mount(&host, "volumes", &ext4, "loop") else {
        skip("mkfs.ext4 is missing, or this kernel cannot mount what it makes");
        return;
    };
    let witness = disk.folder.join(".witness");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let mut file = fs::File::create(&witness).unwrap();
                file.write_all(&[1; 4096]).unwrap();
                file.sync_all().unwrap();
            }
        });
        // Whatever happens, the other one ends.
        let _over = Over(&over);
        within(&host, "data", "head -c 150000000 /dev/urandom > /data/big");
        host.ok(&["volume", "clone", "data", "one"]);
        let (error, code) = host.fails(&["volume", "clone", "data", "two"]);
        assert!(error.contains("reserve") && code == 6, "{error}");
        host.ok(&["volume", "rm", "one"]);
        let zeros = host.path().join("zeros");
        fs::File::create(&zeros)
            .unwrap()
            .set_len(400 << 20)
            .unwrap();
        let archive = host.path().join("zeros.tar.gz");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(host.path()).arg("-czf").arg(&archive);
        assert!(tar.arg("zeros").status().unwrap().success());
        let archive = archive.to_string_lossy();
        let (error, code) = host.fails(&["volume", "import", "three", &archive]);
        assert!(error.contains("reserve") && code == 6, "{error}");
        assert_eq!(host.ok(&["volume", "ls", "-q"]), "data");
        until("what was brought in is gone", || {
            let found = rustix::fs::statvfs(&disk.folder).unwrap();
            found.f_bavail * found.f_frsize > 150 << 20
        });
        // The control: what fits is let in.
        host.ok(&["volume", "clone", "data", "one"]);
    });
}

/// Says that something is over when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn where_there_are_reflinks_a_snapshot_takes_no_room() {
    let host = Host::with_busybox();
    let xfs = ["mkfs.xfs", "-q", "-f", "-m", "reflink=1"];
    let Some(disk) = Disk::mount(&host, "volumes", &xfs, "loop") else {
        skip("mkfs.xfs is missing, or this kernel has no XFS");
        return;
    };
    within(&host, "data", "head -c 100000000 /dev/urandom > /data/big");
    host.ok(&["volume", "snapshot", "data", "one"]);
    let list = parsed(&host.ok(&["volume", "snapshots", "data", "--json"]));
    assert_eq!(list[0]["reflinked"], true, "{list}");
    let free = rustix::fs::statvfs(&disk.folder).unwrap();
    let free = free.f_bavail * free.f_frsize;
    assert!(free > 150 << 20, "{free} bytes are free");
    within(&host, "data", "echo x > /data/big");
    let kept = disk.folder.join(".snapshots/data/one/files/big");
    assert_eq!(fs::metadata(kept).unwrap().size(), 100_000_000);
    host.ok(&["volume", "rollback", "data@one"]);
    assert_eq!(within(&host, "data", "stat -c %s /data/big"), "100000000");
}
