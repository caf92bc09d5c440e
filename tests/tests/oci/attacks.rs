//! Roots that were made to lead the runtime out of them (P1, P2, P4).
//!
//! Each attack has a canary on the host that must stay as it is.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dyno_tests::bundle::Bundle;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

/// A folder of the host that a container must neither see nor change.
fn canary(bundle: &Bundle) -> PathBuf {
    let canary = bundle.path().join("canary");
    std::fs::create_dir(&canary).unwrap();
    std::io::Write::write_all(
        &mut std::fs::File::create(canary.join("secret")).unwrap(),
        b"secret",
    )
    .unwrap();
    canary
}

fn assert_untouched(canary: &std::path::Path) {
    let names: Vec<_> = std::fs::read_dir(canary)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["secret"], "the canary changed");
    assert_eq!(std::fs::read(canary.join("secret")).unwrap(), b"secret");
}

#[test]
fn the_kernels_folders_are_not_mounted_through_links() {
    for name in ["proc", "sys", "dev"] {
        let bundle = Bundle::new(&["true"]);
        let canary = canary(&bundle);
        symlink(&canary, bundle.path().join("layer").join(name)).unwrap();
        let run = bundle.run();
        assert!(
            !run.create.status.success(),
            "/{name} was followed: {run:?}"
        );
        assert!(run.stderr.contains(&format!("/{name}")), "{run:?}");
        assert_untouched(&canary);
    }
}

#[test]
fn a_mount_target_behind_a_link_stays_inside() {
    let mut bundle = Bundle::script("ls /outside /data");
    let canary = canary(&bundle);
    symlink(
        "../../../../../../outside",
        bundle.path().join("layer/data"),
    )
    .unwrap();
    let mount = json!({"destination": "/data/deep", "type": "tmpfs", "source": "tmpfs"});
    bundle.config["mounts"].as_array_mut().unwrap().push(mount);
    let run = bundle.run();
    if run.create.status.success() {
        assert!(!run.stdout.contains("secret"), "{run:?}");
    }
    assert_untouched(&canary);
    assert!(!PathBuf::from("/outside").exists());
}

#[test]
fn a_working_folder_behind_a_link_stays_inside() {
    let mut bundle = Bundle::script("ls");
    let canary = canary(&bundle);
    symlink(&canary, bundle.path().join("layer/work")).unwrap();
    bundle.config["process"]["cwd"] = json!("/work");
    let run = bundle.run();
    assert!(!run.stdout.contains("secret"), "{run:?}");
    assert_untouched(&canary);
}

#[test]
fn a_working_folder_among_descriptors_is_refused() {
    // CVE-2024-21626: /proc/self/fd/N of a leaked folder as the working folder.
    for descriptor in 3..12 {
        let mut bundle =
            Bundle::script("cat ../../../../../etc/hostname ../../../../../../../etc/shadow");
        bundle.config["process"]["cwd"] = json!(format!("/proc/self/fd/{descriptor}"));
        let run = bundle.run();
        assert_eq!(run.stdout, "", "descriptor {descriptor}: {run:?}");
    }
}

#[test]
fn a_masked_path_behind_a_link_hides_nothing_of_the_host() {
    let mut bundle = Bundle::new(&["true"]);
    let canary = canary(&bundle);
    symlink(
        canary.join("secret"),
        bundle.path().join("layer/etc/masked"),
    )
    .unwrap();
    bundle.config["linux"]["maskedPaths"] = json!(["/etc/masked"]);
    bundle.config["linux"]["readonlyPaths"] = json!(["/etc/masked"]);
    let run = bundle.run();
    assert!(run.create.status.success(), "{run:?}");
    assert_untouched(&canary);
}

#[test]
fn a_dev_null_that_is_none_masks_nothing() {
    // Bound by the configuration, so that no runtime makes its own there.
    let mut bundle = Bundle::new(&["true"]);
    let dev = bundle.path().join("dev");
    std::fs::create_dir(&dev).unwrap();
    std::fs::File::create(dev.join("null")).unwrap();
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    bundle.mount(json!({"destination": "/dev", "source": dev, "options": ["bind"]}));
    let run = bundle.run();
    assert!(
        !run.create.status.success(),
        "a file stands in for /dev/null: {run:?}"
    );
    assert!(run.stderr.contains("mask"), "{run:?}");
}

#[test]
fn a_file_of_the_image_for_dev_null_is_refused_or_hidden() {
    for user_namespace in [true, false] {
        let mut bundle = Bundle::script("stat -c %F:%t:%T /dev/null; cat /proc/keys");
        if !user_namespace {
            bundle = bundle.as_host_root();
        }
        let mounts = bundle.config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        std::fs::create_dir(bundle.path().join("layer/dev")).unwrap();
        std::fs::File::create(bundle.path().join("layer/dev/null")).unwrap();
        let run = bundle.run();
        if user_namespace {
            assert_eq!(run.stdout, "character special file:1:3\n", "{run:?}");
        } else {
            assert!(run.stderr.contains("make the device /dev/null"), "{run:?}");
        }
    }
}

#[test]
fn an_init_that_waits_to_be_started_keeps_nothing_of_its_creator_open() {
    let bundle = Bundle::new(&["true"]);
    assert!(bundle.create().status.success());
    let fds = format!("/proc/{}/fd", bundle.state()["pid"]);
    let open = std::fs::read_dir(fds).unwrap().count();
    assert!(
        open <= 5,
        "three streams, the FIFO and the channel, not {open}"
    );
}

#[test]
fn a_mount_target_that_is_swapped_for_a_link_meanwhile_stays_inside() {
    // CVE-2021-30465: a folder shared with another container, which exchanges
    // the target for a link out of the root while it is being resolved.
    let source = Bundle::new(&["true"]);
    let canary = canary(&source);
    let shared = source.path().join("shared");
    std::fs::create_dir_all(shared.join("target")).unwrap();
    symlink(
        format!("../../../../../../..{}", canary.display()),
        shared.join("swap"),
    )
    .unwrap();
    let (stop, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut outcomes = [0, 0];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (target, swap) = (shared.join("target"), shared.join("swap"));
            while !stop.load(Ordering::Relaxed) {
                let exchange = RenameFlags::EXCHANGE;
                renameat_with(CWD, &target, CWD, &swap, exchange).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..dyno_tests::rounds(30) {
            // The positive control: who resolves the path as a string is led out.
            dyno_tests::until("the swap leads out", || {
                shared.join("target/secret").exists()
            });
            let mut bundle = Bundle::script("grep -c ' - tmpfs evil' /proc/self/mountinfo");
            bundle.mount(json!({"destination": "/shared", "source": shared,
                "options": ["bind"]}));
            bundle.mount(json!({"destination": "/shared/target", "type": "tmpfs",
                "source": "evil"}));
            let run = bundle.run();
            outcomes[usize::from(run.create.status.success())] += 1;
            let host = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert!(!host.contains("evil"), "mounted on the host: {host}");
            assert_untouched(&canary);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(
        swaps.load(Ordering::Relaxed) > 1000 && outcomes[1] > 0,
        "no race was run: {outcomes:?}"
    );
}

/// What an attacker inside tries on a process: each prints a line if it works.
const PRYING: &str = "\
    ls $p/fd >/dev/null 2>&1 && echo fd; \
    readlink $p/exe >/dev/null 2>&1 && echo exe; \
    ls $p/root/ >/dev/null 2>&1 && echo root; \
    ls $p/cwd/ >/dev/null 2>&1 && echo cwd; \
    cat $p/environ >/dev/null 2>&1 && echo environ; \
    cat $p/maps 2>/dev/null | grep -q . && echo maps; \
    dd if=$p/mem bs=1 count=0 2>/dev/null && echo mem; true";

#[test]
fn a_process_of_ours_in_the_container_cannot_be_looked_into() {
    // P4: between clone3 and execve it still has the runtime's memory. Against
    // root of the user namespace, with all of its capabilities.
    let bundle = Bundle::new(&["sleep", "1000"]);
    assert!(bundle.create().status.success());
    let pry = || {
        let script = format!("p=/proc/1; {PRYING}");
        let output = bundle.inside(&["/bin/sh", "-c", &script]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(pry(), "", "before its execve");
    bundle.start();
    // The positive control: the container's own program may be looked into.
    dyno_tests::until("it executes its program", || {
        pry() == "fd\nexe\nroot\ncwd\nenviron\nmaps\nmem\n"
    });
}

#[test]
fn a_sysctl_goes_to_the_container_wherever_its_proc_leads() {
    let mut bundle = Bundle::script("cat /proc/sys/net/ipv4/ip_unprivileged_port_start");
    let host = std::fs::read("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "77"});
    assert_eq!(bundle.output(), "77\n");
    assert_eq!(
        std::fs::read("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap(),
        host
    );
}

#[test]
fn a_masked_path_stays_masked_below_a_bind_mount() {
    let mut bundle = Bundle::script("cat /data/secret; echo x 2>/dev/null > /data/secret; true");
    let canary = canary(&bundle);
    bundle.mount(json!({"destination": "/data", "source": canary, "options": ["bind", "idmap"]}));
    bundle.config["linux"]["maskedPaths"] = json!(["/data/secret"]);
    assert_eq!(bundle.output(), "");
    assert_untouched(&canary);
}

#[test]
fn a_working_folder_in_another_processes_root_is_refused() {
    // P6: an image names the host's root by way of a process of the host's.
    let mut bundle = Bundle::script("ls");
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid" && namespace["type"] != "user");
    let linux = bundle.config["linux"].as_object_mut().unwrap();
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    bundle.config["process"]["cwd"] = json!("/proc/1/root/etc");
    let create = bundle.create();
    let message = String::from_utf8_lossy(&create.stderr).into_owned();
    if create.status.success() {
        let run = bundle.finish(create);
        assert_eq!(run.stdout, "", "{run:?}");
    } else {
        assert!(message.contains("/proc/1/root/etc"), "{message}");
    }
}

#[test]
fn a_limit_that_nobody_would_enforce_is_refused() {
    // P18: on v1 the kernel does not kill a whole group that is out of memory,
    // and `create` does not stay to do it.
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["linux"]["resources"] =
        json!({"memory": {"limit": 67_108_864}, "unified": {"memory.oom.group": "1"}});
    let run = bundle.run();
    let v2 = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    if v2.contains("memory") {
        assert!(run.create.status.success(), "{run:?}");
    } else {
        assert!(!run.create.status.success(), "{run:?}");
        assert!(run.stderr.contains("runs out of memory"), "{run:?}");
    }
}
