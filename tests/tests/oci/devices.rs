//! Devices of the configuration and the default ones, whatever `/dev` is.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use dyno_tests::bundle::Bundle;
use dyno_tests::{root, write_file};
use serde_json::{Value, json};

const LIST: &str = "cd /dev; stat -c '%n %F %t:%T %a %u:%g' null zero full random urandom tty; \
    for l in fd stdin stdout stderr ptmx; do readlink $l; done; echo gone > null; head -c 2 zero | od -An -c";

const LISTED: &str = "null character special file 1:3 666 0:0\n\
    zero character special file 1:5 666 0:0\nfull character special file 1:7 666 0:0\n\
    random character special file 1:8 666 0:0\nurandom character special file 1:9 666 0:0\n\
    tty character special file 5:0 666 0:0\n/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n\
    /proc/self/fd/2\npts/ptmx\n  \\0  \\0\n";

/// A bundle where nothing is mounted on `/dev`.
fn without_dev(script: &str, user_namespace: bool) -> Bundle {
    let mut bundle = Bundle::script(script);
    if !user_namespace {
        bundle = bundle.as_host_root();
    }
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    bundle
}

fn device(path: &str, minor: i64) -> Value {
    json!({"path": path, "type": "c", "major": 1, "minor": minor, "fileMode": 0o640,
        "uid": 1000, "gid": 2000})
}

#[test]
fn without_a_mount_on_dev_its_devices_are_in_the_root() {
    for user_namespace in [true, false] {
        let bundle = without_dev(LIST, user_namespace);
        assert_eq!(bundle.output(), LISTED, "{user_namespace}");
    }
}

#[test]
fn a_plain_root_gets_its_devices_and_keeps_them() {
    let mut bundle = without_dev(LIST, false);
    bundle.config["mounts"].as_array_mut().unwrap().remove(0);
    root::fill(&bundle.path().join("rootfs"));
    for _ in 0..2 {
        assert_eq!(bundle.output(), LISTED);
    }
    let null = std::fs::metadata(bundle.path().join("rootfs/dev/null")).unwrap();
    assert!(null.file_type().is_char_device() && null.rdev() == rustix::fs::makedev(1, 3));
}

#[test]
fn a_device_may_lie_anywhere() {
    let script = "stat -c '%n %F %t:%T %a %u:%g' /dev/deep/zero /srv/deep/full /srv/pipe; \
                  head -c 1 /dev/deep/zero | od -An -c";
    let expected = "/dev/deep/zero character special file 1:5 640 1000:2000\n\
                    /srv/deep/full character special file 1:7 640 1000:2000\n\
                    /srv/pipe fifo 0:0 600 0:0\n  \\0\n";
    for user_namespace in [true, false] {
        for tmpfs in [true, false] {
            let mut bundle = without_dev(script, user_namespace);
            if tmpfs {
                bundle.mount(json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}));
            }
            let pipe = json!({"path": "/srv/pipe", "type": "p", "fileMode": 0o600});
            bundle.config["linux"]["devices"] = json!([
                device("/dev/deep/zero", 5),
                device("/srv/deep/full", 7),
                pipe
            ]);
            assert_eq!(bundle.output(), expected, "{user_namespace} {tmpfs}");
        }
    }
}

#[test]
fn a_device_of_the_configuration_takes_a_default_ones_place() {
    for user_namespace in [true, false] {
        let mut bundle = without_dev("stat -c '%t:%T %a' /dev/tty", user_namespace);
        bundle.config["linux"]["devices"] = json!([device("/dev/tty", 5)]);
        assert_eq!(bundle.output(), "1:5 640\n", "{user_namespace}");
    }
}

#[test]
fn a_folder_that_is_bound_on_dev_stays_as_it_is_but_for_what_is_asked_for() {
    for user_namespace in [true, false] {
        let mut bundle = without_dev("ls /dev; stat -c %t:%T /dev/null /dev/own", user_namespace);
        let dev = bundle.path().join("dev");
        std::fs::create_dir(&dev).unwrap();
        let node = rustix::fs::FileType::CharacterDevice;
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        let number = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(rustix::fs::CWD, dev.join("null"), node, mode, number).unwrap();
        let option = if user_namespace { "idmap" } else { "rw" };
        bundle.mount(json!({"destination": "/dev", "source": dev, "options": ["bind", option]}));
        bundle.config["linux"]["devices"] = json!([device("/dev/own", 5)]);
        assert_eq!(bundle.output(), "null\nown\n1:3\n1:5\n", "{user_namespace}");
    }
}

#[test]
fn another_file_in_a_devices_place_is_not_taken_for_it() {
    let bundle = without_dev("true", false);
    std::fs::create_dir(bundle.path().join("layer/dev")).unwrap();
    write_file(&bundle.path().join("layer/dev/full"), "");
    let run = bundle.run();
    assert!(run.stderr.contains("make the device /dev/full"), "{run:?}");
    // In a user namespace the device is mounted over it.
    let mut bundle = without_dev("stat -c %t:%T /dev/full", true);
    std::fs::create_dir(bundle.path().join("layer/dev")).unwrap();
    write_file(&bundle.path().join("layer/dev/full"), "");
    assert_eq!(bundle.output(), "1:7\n");
    bundle.config["linux"]["devices"] = json!([device("/etc", 5)]);
    let run = bundle.run();
    assert!(run.stderr.contains("mount /etc"), "{run:?}");
}

#[test]
fn a_link_in_a_devices_place_leads_nowhere_outside() {
    for user_namespace in [true, false] {
        let bundle = without_dev("true", user_namespace);
        let canary = bundle.path().join("canary");
        std::fs::create_dir(&canary).unwrap();
        std::os::unix::fs::symlink(&canary, bundle.path().join("layer/dev")).unwrap();
        let run = bundle.run();
        assert!(!run.create.status.success(), "{run:?}");
        assert!(std::fs::read_dir(&canary).unwrap().next().is_none());
    }
}

#[test]
fn devices_that_cannot_be_are_refused_by_their_values() {
    let with = |key: &str, value: Value| {
        let mut device = device("/dev/own", 5);
        device[key] = value;
        device
    };
    for (device, expected) in [
        (with("path", json!("dev/own")), "linux.devices.path"),
        (with("path", json!("/dev/../../own")), "linux.devices.path"),
        (with("path", json!("/")), "linux.devices.path"),
        (with("path", json!("/dev/a\0b")), "NUL"),
        (with("type", json!("a")), "linux.devices.type"),
        (with("major", json!(-1)), "linux.devices.major"),
        (with("major", json!(4096)), "linux.devices.major"),
        (with("minor", json!(1_048_576)), "linux.devices.minor"),
        (with("uid", json!(65536)), "linux.devices.uid"),
        (with("gid", json!(70000)), "linux.devices.gid"),
    ] {
        for tmpfs in [true, false] {
            let mut bundle = without_dev("true", true);
            if tmpfs {
                bundle.mount(json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}));
            }
            bundle.config["linux"]["devices"] = json!([device]);
            let run = bundle.run();
            assert!(run.stderr.contains(expected), "{expected}: {run:?}");
        }
    }
}
