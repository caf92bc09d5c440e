//! Mounts and their options (OCI config.md, "Mounts"), as the container sees them.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use dyno_tests::bundle::{Bundle, ID_BASE};
use dyno_tests::write_file;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use serde_json::{Value, json};

/// A folder of the host's in the bundle.
fn folder(bundle: &Bundle, name: &str) -> PathBuf {
    let folder = bundle.path().join(name);
    std::fs::create_dir(&folder).unwrap();
    folder
}

fn bind(source: &Path, target: &str, options: &[&str]) -> Value {
    let options = [&["bind"], options].concat();
    json!({"destination": target, "type": "none", "source": source, "options": options})
}

fn tmpfs(target: &str, options: &[&str]) -> Value {
    json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options})
}

/// What is refused, and in which words.
fn refusal(bundle: &Bundle) -> String {
    let run = bundle.run();
    assert!(!run.create.status.success(), "{run:?}");
    let state = bundle.call(&["state", bundle.id()]);
    assert!(!state.status.success(), "something is left: {state:?}");
    run.stderr
}

/// A mount of the host's that others see, taken away when dropped.
struct Shared(PathBuf);

impl Shared {
    fn new(at: &Path) -> Self {
        mount_bind(at, at).unwrap();
        mount_change(at, MountPropagationFlags::SHARED).unwrap();
        Self(at.to_owned())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_mount_has_mappings_of_its_own() {
    let script = "stat -c %u:%g /data/file; touch /data/made; stat -c %u:%g /data/made";
    for (user_namespace, host) in [(true, ID_BASE), (false, 0)] {
        for option in [&["idmap"][..], &["ridmap"], &[]] {
            let mut bundle = Bundle::script(script);
            if !user_namespace {
                bundle = bundle.as_host_root();
            }
            let source = folder(&bundle, "source");
            write_file(&source.join("file"), "");
            chown(source.join("file"), Some(7000), Some(7001)).unwrap();
            chown(&source, Some(5000), Some(6000)).unwrap();
            let mut mount = bind(&source, "/data", option);
            // Owners on disk are shown as others of the host's.
            mount["uidMappings"] = json!([
                {"containerID": 5000, "hostID": host, "size": 1},
                {"containerID": 7000, "hostID": host + 70, "size": 1},
            ]);
            mount["gidMappings"] = json!([
                {"containerID": 6000, "hostID": host, "size": 1},
                {"containerID": 7001, "hostID": host + 71, "size": 1},
            ]);
            bundle.mount(mount);
            assert_eq!(
                bundle.output(),
                "70:71\n0:0\n",
                "{user_namespace} {option:?}"
            );
            let made = std::fs::metadata(source.join("made")).unwrap();
            assert_eq!((made.uid(), made.gid()), (5000, 6000));
        }
    }
}

#[test]
fn idmap_is_for_one_mount_and_ridmap_for_those_below() {
    for (option, below) in [("idmap", "65534"), ("ridmap", "0")] {
        let mut bundle = Bundle::script("stat -c %u /data /data/inner");
        let source = folder(&bundle, "source");
        let inner = folder(&bundle, "source/inner");
        mount("tmpfs", &inner, "tmpfs", MountFlags::empty(), None).unwrap();
        bundle.mount(bind(&source, "/data", &["rbind", option]));
        let run = bundle.run();
        unmount(&inner, UnmountFlags::DETACH).unwrap();
        assert_eq!(run.stdout, format!("0\n{below}\n"), "{option}: {run:?}");
    }
}

#[test]
fn a_mapping_without_a_user_namespace_or_half_of_one_is_refused() {
    let mapping = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    for (option, uids, gids, expected) in [
        ("idmap", json!(null), json!(null), "idmap without mappings"),
        ("idmap", mapping.clone(), json!(null), "gidMappings"),
        ("rw", json!(null), mapping.clone(), "uidMappings"),
    ] {
        let mut bundle = Bundle::new(&["true"]).as_host_root();
        let source = folder(&bundle, "source");
        let mut mount = bind(&source, "/data", &[option]);
        (mount["uidMappings"], mount["gidMappings"]) = (uids, gids);
        bundle.mount(mount);
        let message = refusal(&bundle);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_tmpfs_is_filled_with_what_it_hides() {
    for user_namespace in [true, false] {
        let mut bundle = Bundle::script(
            "cd /data; stat -c '%n %u:%g %a %s %Y' . a deep deep/b; readlink link; readlink deep/gone; \
             cat a deep/b; stat -c %F fifo; touch made; ls; grep -c ' /data ' /proc/self/mountinfo",
        );
        if !user_namespace {
            bundle = bundle.as_host_root();
        }
        let data = folder(&bundle, "layer/data");
        folder(&bundle, "layer/data/deep");
        write_file(&data.join("a"), "first\n");
        write_file(&data.join("deep/b"), "second\n");
        symlink("/etc/passwd", data.join("link")).unwrap();
        symlink("nowhere", data.join("deep/gone")).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, data.join("fifo"), fifo, mode, 0).unwrap();
        chown(data.join("a"), Some(1000), Some(2000)).unwrap();
        for (name, mode) in [("a", 0o4711), ("deep", 0o2750), (".", 0o751)] {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(data.join(name), mode).unwrap();
        }
        let past = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        for name in ["a", "deep/b", "deep"] {
            File::open(data.join(name))
                .unwrap()
                .set_modified(past)
                .unwrap();
        }
        bundle.mount(tmpfs("/data", &["tmpcopyup", "nosuid"]));
        let output = bundle.output();
        let (root, rest) = output.split_once('\n').unwrap();
        assert!(root.starts_with(". 0:0 751 "), "{output}");
        let (a, rest) = rest.split_once('\n').unwrap();
        assert_eq!(a, "a 1000:2000 4711 6 1000000");
        let (deep, rest) = rest.split_once('\n').unwrap();
        assert!(deep.starts_with("deep 0:0 2750 ") && deep.ends_with(" 1000000"));
        let expected = "deep/b 0:0 644 7 1000000\n/etc/passwd\nnowhere\nfirst\nsecond\nfifo\n\
                        a\ndeep\nfifo\nlink\nmade\n1\n";
        assert_eq!(rest, expected);
        assert!(!data.join("made").exists(), "written through to the layer");
    }
}

#[test]
fn a_tmpfs_that_is_filled_is_read_only_afterwards_and_never_leaves_its_folder() {
    let mut bundle = Bundle::script("cat /data/a /data/link/secret; touch /data/x || echo refused");
    let data = folder(&bundle, "layer/data");
    let canary = folder(&bundle, "canary");
    write_file(&canary.join("secret"), "secret");
    write_file(&data.join("a"), "first\n");
    symlink(&canary, data.join("link")).unwrap();
    bundle.mount(tmpfs("/data", &["tmpcopyup", "ro"]));
    let run = bundle.run();
    assert_eq!(run.stdout, "first\nrefused\n", "{run:?}");
}

#[test]
fn folders_as_deep_as_the_stack_are_refused() {
    let mut bundle = Bundle::new(&["true"]);
    let deep = bundle.path().join("layer/data").join("d/".repeat(200));
    std::fs::create_dir_all(deep).unwrap();
    bundle.mount(tmpfs("/data", &["tmpcopyup"]));
    let message = refusal(&bundle);
    assert!(message.contains("mount tmpfs on /data"), "{message}");
}

#[test]
fn a_tmpfs_has_the_mode_of_the_folder_that_it_hides() {
    // runc's rule; without it every tmpfs would be open to everybody.
    for (options, expected) in [(&[][..], "711\n755\n"), (&["mode=1777"], "1777\n1777\n")] {
        let mut bundle = Bundle::script("stat -c %a /there /absent");
        let there = folder(&bundle, "layer/there");
        std::fs::set_permissions(there, std::fs::Permissions::from_mode(0o711)).unwrap();
        bundle.mount(tmpfs("/there", options));
        bundle.mount(tmpfs("/absent", options));
        assert_eq!(bundle.output(), expected);
    }
}

#[test]
fn a_read_only_tmpfs_holds_the_mounts_below_it() {
    let mut bundle = Bundle::script(
        "cat /data/deep/file; touch /data/x || echo refused; touch /dev/x || echo refused; \
         ls -d /dev/pts /dev/shm; touch /dev/shm/x && echo fine",
    );
    let source = folder(&bundle, "source");
    write_file(&source.join("file"), "hello\n");
    bundle.mount(tmpfs("/data", &["ro", "size=1m"]));
    bundle.mount(bind(&source.join("file"), "/data/deep/file", &[]));
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    let dev = mounts
        .iter_mut()
        .find(|mount| mount["destination"] == "/dev");
    dev.unwrap()["options"]
        .as_array_mut()
        .unwrap()
        .push(json!("ro"));
    let expected = "hello\nrefused\nrefused\n/dev/pts\n/dev/shm\nfine\n";
    let run = bundle.run();
    assert_eq!(run.stdout, expected, "{run:?}");
}

#[test]
fn options_of_a_new_mount_reach_mount_and_superblock() {
    let mut bundle = Bundle::script("grep -E ' /new' /proc/self/mountinfo | cut -d' ' -f5-");
    for (index, options) in [
        &["sync", "dirsync", "lazytime", "size=1m"][..],
        &[
            "sync",
            "async",
            "lazytime",
            "nolazytime",
            "iversion",
            "silent",
        ],
        &[
            "nosymfollow",
            "nodiratime",
            "noexec",
            "nosuid",
            "nodev",
            "ro",
        ],
        &["rnosymfollow", "rnosuid", "rro", "rnoatime"],
        &["shared"],
        &["runbindable"],
        &["rslave"],
    ]
    .into_iter()
    .enumerate()
    {
        bundle.mount(tmpfs(&format!("/new{index}"), options));
    }
    let output = bundle.output();
    let lines: Vec<&str> = output.lines().collect();
    let has = |line: usize, words: &[&str], not: &[&str]| {
        let found = lines[line].split([' ', ',']).collect::<Vec<_>>();
        assert!(
            words.iter().all(|word| found.contains(word)),
            "{}",
            lines[line]
        );
        assert!(
            !not.iter().any(|word| found.contains(word)),
            "{}",
            lines[line]
        );
    };
    has(0, &["sync", "dirsync", "lazytime", "size=1024k"], &[]);
    has(1, &[], &["sync", "lazytime"]);
    has(
        2,
        &[
            "nosymfollow",
            "nodiratime",
            "noexec",
            "nosuid",
            "nodev",
            "ro",
        ],
        &[],
    );
    has(3, &["nosymfollow", "nosuid", "ro", "noatime"], &[]);
    assert!(lines[4].contains("shared:"), "{output}");
    has(5, &["unbindable"], &[]);
    assert!(!lines[6].contains("master:"), "{output}");
}

#[test]
fn links_are_not_followed_where_the_mount_says_so() {
    let mut bundle = Bundle::script(
        "for f in /plain /closed; do cat $f/link 2>/dev/null || echo refused; cat $f/file; done",
    );
    let source = folder(&bundle, "source");
    write_file(&source.join("file"), "hello\n");
    symlink("file", source.join("link")).unwrap();
    bundle.mount(bind(&source, "/plain", &[]));
    bundle.mount(bind(&source, "/closed", &["nosymfollow"]));
    assert_eq!(bundle.output(), "hello\nhello\nrefused\nhello\n");
}

#[test]
fn attributes_of_a_bind_hold_for_one_mount_or_for_the_tree() {
    let mut bundle = Bundle::script(
        "for f in /one /tree; do for g in $f $f/inner; do touch $g/x 2>/dev/null && echo $g; done; done; true",
    );
    let source = folder(&bundle, "source");
    let inner = folder(&bundle, "source/inner");
    for folder in [&source, &inner] {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    mount("tmpfs", &inner, "tmpfs", MountFlags::empty(), None).unwrap();
    bundle.mount(bind(&source, "/one", &["rbind", "ro"]));
    bundle.mount(bind(&source, "/tree", &["rbind", "rro"]));
    let run = bundle.run();
    unmount(&inner, UnmountFlags::DETACH).unwrap();
    assert_eq!(run.stdout, "/one/inner\n", "{run:?}");
}

#[test]
fn a_mount_that_is_there_is_changed() {
    let mut bundle = Bundle::script(
        "touch /data/x 2>/dev/null || echo refused; touch /tmp/x && echo fine; \
         grep -E ' (/data|/tmp) ' /proc/self/mountinfo | cut -d' ' -f5-6,10-; stat -fc %b /tmp",
    );
    let source = folder(&bundle, "source");
    bundle.mount(bind(&source, "/data", &["nosuid"]));
    bundle.mount(json!({"destination": "/data", "options": ["remount", "bind", "ro", "nodev"]}));
    bundle.mount(tmpfs("/tmp", &["size=1m", "noexec"]));
    bundle
        .mount(json!({"destination": "/tmp", "type": "tmpfs", "options": ["remount", "size=64k"]}));
    let output = bundle.output();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..2], ["refused", "fine"]);
    assert!(lines[2].starts_with("/data ro,nosuid,nodev"), "{output}");
    assert!(
        lines[3].contains("noexec") && lines[3].contains("size=64k"),
        "{output}"
    );
    assert_eq!(lines[4], "16");
}

#[test]
fn what_is_no_mount_cannot_be_changed() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.mount(json!({"destination": "/etc", "options": ["remount", "bind", "ro"]}));
    let message = refusal(&bundle);
    assert!(message.contains("change the mount on /etc"), "{message}");
}

#[test]
fn a_file_or_folder_is_bound_where_nothing_was() {
    let mut bundle = Bundle::script("cat /a/b/file; ls /c/d/folder; stat -c %F /a/b/file");
    let source = folder(&bundle, "source");
    write_file(&source.join("file"), "hello\n");
    bundle.mount(bind(&source.join("file"), "/a/b/file", &[]));
    bundle.mount(bind(&source, "c/d/folder", &["ro"]));
    assert_eq!(bundle.output(), "hello\nfile\nregular file\n");
}

#[test]
fn options_that_a_mount_cannot_have_are_named() {
    for (mount, expected) in [
        (
            json!({"destination": "/x", "source": "/tmp", "options": ["bind", "sync"]}),
            "sync",
        ),
        (
            json!({"destination": "/x", "source": "/tmp", "options": ["bind", "size=1"]}),
            "size",
        ),
        (
            json!({"destination": "/x", "type": "tmpfs", "options": ["idmap"]}),
            "idmap",
        ),
        (
            json!({"destination": "/x", "type": "proc", "options": ["tmpcopyup"]}),
            "tmpcopyup",
        ),
        (
            json!({"destination": "/x", "type": "tmpfs", "options": ["nosuch"]}),
            "/x",
        ),
        (
            json!({"destination": "/x", "options": ["bind"]}),
            "mounts.source",
        ),
        (json!({"destination": "/x"}), "mounts.type"),
        (
            json!({"destination": "/x", "type": "nosuch"}),
            "nosuch on /x",
        ),
        (
            json!({"destination": "/x", "source": "/nosuch", "options": ["bind"]}),
            "/nosuch",
        ),
        (json!({"destination": "/x\0y", "type": "tmpfs"}), "NUL"),
        (
            json!({"destination": "/x", "type": "tmpfs", "options": ["a\0b"]}),
            "a\\0b",
        ),
    ] {
        let mut bundle = Bundle::new(&["true"]);
        bundle.mount(mount);
        let message = refusal(&bundle);
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn few_files_may_hide_those_of_procfs() {
    let mut bundle = Bundle::script("cat /proc/uptime; cat /sys/kernel/notes");
    let file = bundle.path().join("file");
    write_file(&file, "forged\n");
    bundle.mount(bind(&file, "/proc/uptime", &["ro"]));
    bundle.mount(bind(&file, "/sys/kernel/notes", &[]));
    assert_eq!(bundle.output(), "forged\nforged\n");
}

#[test]
fn nothing_else_is_mounted_over_procfs() {
    let own = |target: &str| json!({"destination": target, "type": "tmpfs", "source": "tmpfs"});
    for target in [
        "/proc",
        "/proc/self",
        "/proc/sys/net",
        "/proc/1/attr",
        "/x/../proc/tty",
    ] {
        let mut bundle = Bundle::new(&["true"]);
        let source = folder(&bundle, "source");
        for mount in [own(target), bind(&source, target, &[])] {
            bundle.mount(mount);
            let message = refusal(&bundle);
            assert!(
                message.contains("mounts.destination"),
                "{target}: {message}"
            );
        }
    }
    // A link of the image, where the path says nothing of procfs.
    let mut bundle = Bundle::new(&["true"]);
    symlink("/proc/self/attr", bundle.path().join("layer/link")).unwrap();
    bundle.mount(own("/link"));
    let message = refusal(&bundle);
    assert!(message.contains("mount tmpfs on /link"), "{message}");
}

#[test]
fn a_message_queue_file_system_is_of_its_own_namespace() {
    let mut bundle =
        Bundle::script("ls /dev/mqueue; touch /dev/mqueue/queue && cat /dev/mqueue/queue");
    bundle.mount(
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
        "options": ["nosuid", "noexec", "nodev"]}),
    );
    let output = bundle.output();
    assert!(output.starts_with("QSIZE:0 "), "{output}");
}

/// The container mounts on `/data/in`, the host on `source/out`.
fn propagates(root: &str, options: &[&str], user_namespace: bool) -> (bool, bool) {
    let mut bundle = Bundle::script(
        "mount -t tmpfs inside /data/in; touch /data/in/x /tmp/done; while ! test -e /tmp/go; do sleep 0.01; done; \
         ls /data/out",
    );
    if !user_namespace {
        bundle = bundle.as_host_root();
    }
    let caps = json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set] = caps.clone();
    }
    if !root.is_empty() {
        bundle.config["linux"]["rootfsPropagation"] = json!(root);
    }
    let source = folder(&bundle, "source");
    let shared = Shared::new(&source);
    for name in ["source/in", "source/out"] {
        let folder = folder(&bundle, name);
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let go = folder(&bundle, "go");
    std::fs::set_permissions(&go, std::fs::Permissions::from_mode(0o777)).unwrap();
    bundle.mount(bind(&source, "/data", &[&["rbind"], options].concat()));
    bundle.mount(bind(&go, "/tmp", &[]));
    let create = bundle.create();
    assert!(create.status.success(), "{create:?}");
    bundle.start();
    dyno_tests::until("it mounts", || go.join("done").exists());
    let to_host = source.join("in/x").exists();
    let out = source.join("out");
    mount("tmpfs", &out, "tmpfs", MountFlags::empty(), None).unwrap();
    File::create(out.join("y")).unwrap();
    write_file(&go.join("go"), "");
    dyno_tests::until("it ends", || bundle.state()["status"] == "stopped");
    let output = std::fs::read_to_string(bundle.path().join("stdout")).unwrap();
    unmount(&out, UnmountFlags::DETACH).unwrap();
    assert!(bundle.call(&["delete", bundle.id()]).status.success());
    if to_host {
        unmount(source.join("in"), UnmountFlags::DETACH).unwrap();
    }
    drop(shared);
    (to_host, output == "y\n")
}

#[test]
fn mounts_propagate_as_the_configuration_says() {
    for (root, options, to_host, to_container) in [
        ("", &[][..], false, false),
        ("", &["rprivate"], false, false),
        ("", &["rslave"], false, true),
        // Only where the whole container may: as runc has it.
        ("", &["rshared"], false, true),
        ("rslave", &[], false, true),
        ("rslave", &["rshared"], false, true),
        ("slave", &["private"], false, false),
        ("private", &["rslave"], false, false),
        ("rshared", &[], true, true),
        ("shared", &["rshared"], true, true),
        ("shared", &["rslave"], false, true),
        ("shared", &["rprivate"], false, false),
        ("unbindable", &["runbindable"], false, false),
    ] {
        let found = propagates(root, options, false);
        assert_eq!(found, (to_host, to_container), "{root:?} {options:?}");
    }
}

#[test]
fn a_user_namespace_never_mounts_on_the_host() {
    for (root, options) in [("shared", &["rshared"][..]), ("rshared", &[])] {
        assert_eq!(
            propagates(root, options, true),
            (false, true),
            "{root} {options:?}"
        );
    }
}

#[test]
fn the_root_propagates_as_the_configuration_says() {
    let script = "cut -d' ' -f5- /proc/self/mountinfo | grep '^/ '; \
                  mount -o bind / /srv 2>/dev/null && echo bound";
    for (value, expected, bound) in [
        ("private", "", true),
        ("rslave", "", true),
        ("shared", "shared:", true),
        ("rshared", "shared:", true),
        ("unbindable", "unbindable", false),
        ("runbindable", "unbindable", false),
    ] {
        let mut bundle = Bundle::script(script);
        bundle.config["process"]["capabilities"] = json!({"bounding": ["CAP_SYS_ADMIN"], "effective": ["CAP_SYS_ADMIN"],
                "permitted": ["CAP_SYS_ADMIN"]});
        bundle.config["linux"]["rootfsPropagation"] = json!(value);
        let run = bundle.run();
        assert!(run.create.status.success(), "{run:?}");
        assert!(run.stdout.contains(expected), "{value}: {run:?}");
        assert_eq!(run.stdout.contains("bound\n"), bound, "{value}: {run:?}");
    }
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["linux"]["rootfsPropagation"] = json!("everywhere");
    let message = refusal(&bundle);
    assert!(message.contains("linux.rootfsPropagation") && message.contains("everywhere"));
}

#[test]
fn what_the_host_mounts_in_a_slave_root_later_shows_up() {
    // The one case where that is asked for; `plain` has the other.
    let mut bundle =
        Bundle::script("ls /srv; while ! test -e /srv/file; do sleep 0.01; done; echo seen")
            .as_host_root();
    let rootfs = bundle.path().join("rootfs");
    dyno_tests::root::fill(&rootfs);
    bundle.config["mounts"].as_array_mut().unwrap().remove(0);
    bundle.config["linux"]["rootfsPropagation"] = json!("rslave");
    let shared = Shared::new(&rootfs);
    assert!(bundle.create().status.success());
    let srv = rootfs.join("srv");
    mount("tmpfs", &srv, "tmpfs", MountFlags::empty(), None).unwrap();
    File::create(srv.join("file"))
        .unwrap()
        .write_all(b"x")
        .unwrap();
    bundle.start();
    dyno_tests::until("it ends", || bundle.state()["status"] == "stopped");
    unmount(&srv, UnmountFlags::DETACH).unwrap();
    assert!(bundle.call(&["delete", bundle.id()]).status.success());
    drop(shared);
    let output = std::fs::read_to_string(bundle.path().join("stdout")).unwrap();
    assert!(output.ends_with("seen\n"), "{output}");
}
