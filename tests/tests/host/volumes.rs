//! Volumes by themselves: made, counted, copied, packed, limited, removed.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

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
