//! Roots that were made to lead the runtime out of them (P1, P2, P5).
//!
//! Each attack has a canary on the host that must stay as it is.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use dyno_tests::bundle::Bundle;
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
    let mut bundle = Bundle::new(&["true"]);
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    std::fs::create_dir(bundle.path().join("layer/dev")).unwrap();
    std::fs::File::create(bundle.path().join("layer/dev/null")).unwrap();
    let run = bundle.run();
    assert!(
        !run.create.status.success(),
        "a file stands in for /dev/null: {run:?}"
    );
    assert!(run.stderr.contains("mask"), "{run:?}");
}

#[test]
fn the_runtimes_own_program_cannot_be_opened_from_inside() {
    // CVE-2019-5736: a container overwrites the program that executes it.
    let runtime = dyno_tests::programs().join("dyno-runtime");
    let before = std::fs::metadata(&runtime).unwrap();
    let bundle = Bundle::new(&["/proc/self/exe"]);
    bundle.run();
    let bundle = Bundle::script("for p in /proc/[0-9]*; do echo > $p/exe; done 2>/dev/null; true");
    bundle.run();
    let after = std::fs::metadata(&runtime).unwrap();
    assert_eq!(before.len(), after.len());
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
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
