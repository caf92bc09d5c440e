//! Containers in a user namespace: what they were, what they could do and what they
//! could not comes back, and their images stay the host's.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Output;

use dyno_tests::bundle::{Bundle, ID_BASE};
use dyno_tests::until;
use serde_json::json;

use super::{checkpoint, skipped, stderr, succeeded};

/// It counts in its memory, and shows the count in a volume and in a tmpfs.
const SCRIPT: &str = "echo kept >/tmp/file; [ -w / ] && echo own >/own; n=0; \
     while :; do n=$((n+1)); echo $n >/volume/new; mv /volume/new /volume/count; \
     echo $n >/dev/null; sleep 0.1; done";

/// As a dyno is: an overlay, a volume that shows its owner as the container's, limits.
fn counting() -> Bundle {
    let mut bundle = Bundle::script(SCRIPT);
    for name in ["volume", "shown"] {
        std::fs::create_dir(bundle.path().join(name)).unwrap();
    }
    let source = |name| bundle.path().join(name).to_string_lossy().into_owned();
    let volume = json!({
        "destination": "/volume", "type": "bind", "source": source("volume"),
        "options": ["bind", "rprivate", "nosuid", "nodev", "idmap", "rw"],
    });
    let shown = json!({
        "destination": "/shown", "type": "bind", "source": source("shown"),
        "options": ["bind", "rprivate", "nosuid", "noexec", "nodev", "ro"],
    });
    let tmpfs = json!({
        "destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
        "options": ["nosuid", "nodev", "mode=1777", "size=65536k"],
    });
    for mount in [volume, shown, tmpfs] {
        bundle.mount(mount);
    }
    bundle.config["linux"]["resources"] = json!({"pids": {"limit": 77}});
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["unshare", "setns"], "action": "SCMP_ACT_ERRNO"}],
    });
    bundle
}

fn count(bundle: &Bundle) -> u64 {
    let text = std::fs::read_to_string(bundle.path().join("volume/count"));
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// A file that the container's root may write to: CRIU has him open it again.
fn open_to_all(bundle: &Bundle, name: &str) -> File {
    let file = File::create(bundle.path().join(name)).unwrap();
    file.set_permissions(Permissions::from_mode(0o666)).unwrap();
    file
}

fn run(bundle: &Bundle) {
    let mut run = bundle.command(&["run", "--detach"]);
    run.stdout(open_to_all(bundle, "stdout"));
    run.stderr(open_to_all(bundle, "stderr"));
    assert!(run.status().unwrap().success());
}

fn restore(bundle: &Bundle) -> Output {
    let image = super::image(bundle);
    let words = [
        "restore",
        "--detach",
        "--image-path",
        &image,
        "--empty-ns",
        "network",
    ];
    let mut restore = bundle.command(&words);
    restore.stdout(open_to_all(bundle, "stdout"));
    restore.stderr(open_to_all(bundle, "stderr"));
    let status = restore.status().unwrap();
    let stderr = std::fs::read(bundle.path().join("stderr")).unwrap();
    Output {
        status,
        stdout: Vec::new(),
        stderr,
    }
}

/// What the kernel says of the first process that must not have changed.
fn promises(bundle: &Bundle) -> String {
    let pid = bundle.state()["pid"].to_string();
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    let kept = [
        "Name",
        "Umask",
        "Uid",
        "Gid",
        "Groups",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
    ];
    let is_kept = |line: &&str| {
        let name = line.split(':').next();
        name.is_some_and(|name| kept.contains(&name))
    };
    let status = read("status");
    let mut lines: Vec<&str> = status.lines().filter(is_kept).collect();
    let files = ["uid_map", "gid_map", "limits", "oom_score_adj", "cgroup"].map(read);
    lines.extend(files.iter().map(String::as_str));
    lines.join("\n")
}

/// Where something is mounted, how, and what.
fn mounts(bundle: &Bundle) -> BTreeMap<String, String> {
    let pid = bundle.state()["pid"].to_string();
    let info = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let line = |line: &str| {
        let (before, after) = line.split_once(" - ").unwrap();
        let fields: Vec<&str> = before.split(' ').collect();
        let kind = after.split(' ').next().unwrap();
        // `shared:`, `master:` and the like follow.
        let more = fields[6..].join(" ");
        (
            fields[4].to_owned(),
            format!("{} {} {kind} {more}", fields[3], fields[5]),
        )
    };
    info.lines().map(line).collect()
}

fn is_closed(folder: &Path) {
    let mode = |path: &Path| {
        let stat = std::fs::metadata(path).unwrap();
        (stat.uid(), stat.gid(), stat.permissions().mode() & 0o777)
    };
    assert_eq!(mode(folder), (0, 0, 0o700));
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), (0, 0, 0o600), "{}", path.display());
    }
}

fn exec(bundle: &Bundle, words: &[&str]) -> String {
    let output = bundle.call(&[&["exec", bundle.id()], words].concat());
    assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn it_comes_back_with_its_identity_its_mounts_and_its_limits() {
    if skipped() {
        return;
    }
    let bundle = counting();
    run(&bundle);
    until("it counts", || count(&bundle) > 5);
    let (promised, mounted) = (promises(&bundle), mounts(&bundle));
    succeeded(&checkpoint(&bundle, &[]), &bundle, "dump.log");
    let images = bundle.path().join("image");
    is_closed(&images);
    let before = count(&bundle);
    succeeded(&restore(&bundle), &bundle, "restore.log");
    is_closed(&images);
    until("it goes on", || count(&bundle) > before);
    assert!(count(&bundle) < before + 1000);
    assert_eq!(promises(&bundle), promised);
    assert_eq!(mounts(&bundle), mounted);
    assert!(promised.contains("NoNewPrivs:\t1"), "{promised}");
    assert!(promised.contains("Seccomp_filters:\t1"), "{promised}");
    let owner = |name: &str| std::fs::metadata(bundle.path().join(name)).unwrap().uid();
    assert_eq!(owner("volume/count"), 0, "a volume shows its owner");
    assert_eq!(owner("upper/own"), ID_BASE);
    // It joins all its namespaces.
    assert_eq!(exec(&bundle, &["cat", "/tmp/file", "/own"]), "kept\nown\n");
    assert_eq!(exec(&bundle, &["cat", "/proc/self/cgroup"]), "0::/\n");
    assert_eq!(exec(&bundle, &["cat", "/proc/interrupts"]), "");
    let mine = exec(&bundle, &["readlink", "/proc/self/ns/user"]);
    let its = std::fs::read_link(format!("/proc/{}/ns/user", bundle.state()["pid"]));
    assert_eq!(mine.trim(), its.unwrap().to_string_lossy());
    assert!(bundle.call(&["kill", bundle.id(), "KILL"]).status.success());
    until("it stops", || bundle.state()["status"] == "stopped");
    assert!(bundle.call(&["delete", bundle.id()]).status.success());
}

#[test]
fn an_ordinary_user_of_it_in_a_read_only_root_comes_back_too() {
    if skipped() {
        return;
    }
    let mut bundle = counting();
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    bundle.config["root"]["readonly"] = json!(true);
    let volume = bundle.path().join("volume");
    std::os::unix::fs::chown(&volume, Some(1000), Some(1000)).unwrap();
    run(&bundle);
    until("it counts", || count(&bundle) > 5);
    let (promised, mounted) = (promises(&bundle), mounts(&bundle));
    assert!(mounted["/"].contains("ro,"), "{mounted:?}");
    // Twice: what was restored can be saved.
    for _ in 0..2 {
        let images = bundle.path().join("image");
        if images.exists() {
            std::fs::remove_dir_all(&images).unwrap();
        }
        succeeded(&checkpoint(&bundle, &[]), &bundle, "dump.log");
        let before = count(&bundle);
        succeeded(&restore(&bundle), &bundle, "restore.log");
        until("it goes on", || count(&bundle) > before);
        assert_eq!(promises(&bundle), promised);
        assert_eq!(mounts(&bundle), mounted);
    }
}

#[test]
fn what_its_root_would_have_to_walk_to_or_write_is_refused() {
    let bundle = counting();
    run(&bundle);
    until("it counts", || count(&bundle) > 2);
    for words in [&["--pre-dump"][..], &["--parent-path", "../older"]] {
        let output = checkpoint(&bundle, words);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(stderr(&output).contains(words[0]), "{output:?}");
    }
    let before = count(&bundle);
    until("it goes on", || count(&bundle) > before);
    let output = super::restore_with(&bundle, &["--auto-dedup"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("--auto-dedup"), "{output:?}");
    assert_eq!(bundle.state()["status"], "running");
}
