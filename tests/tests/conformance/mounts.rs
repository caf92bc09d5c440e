//! config.md, "Mounts" and "Root"; config-linux.md, "Masked Paths", "Readonly
//! Paths", "Rootfs Mount Propagation".

use serde_json::{Value, json};

use crate::rig::Container;

/// A container with a folder of the host bound on `/m`, which holds `file`.
fn bound(script: &str, options: &[&str]) -> Container {
    let mut container = Container::script(script);
    std::fs::create_dir_all(container.path("source/below")).unwrap();
    dyno_tests::write_file(&container.path("source/file"), "content\n");
    let source = container.path("source");
    container.push(
        "/mounts",
        json!({"destination": "/m", "type": "bind", "source": source, "options": options}),
    );
    container
}

/// The options that the kernel shows of the mount on `/m`.
fn shown(options: &[&str]) -> Vec<String> {
    let told = bound("grep ' /m ' /proc/self/mountinfo | cut -d' ' -f6", options).output();
    told.trim().split(',').map(str::to_owned).collect()
}

#[test]
fn a_bind_shows_the_folder_and_can_be_written() {
    let container = bound("cat /m/file; echo new >/m/made", &["rbind"]);
    assert_eq!(container.output(), "content\n");
    assert_eq!(
        std::fs::read_to_string(container.path("source/made")).unwrap(),
        "new\n"
    );
}

#[test]
fn each_attribute_is_set() {
    for option in [
        "ro",
        "nosuid",
        "nodev",
        "noexec",
        "noatime",
        "nodiratime",
        "relatime",
    ] {
        assert!(
            shown(&["rbind", option]).contains(&option.to_owned()),
            "{option}"
        );
    }
    assert!(shown(&["bind", "nosymfollow"]).contains(&"nosymfollow".to_owned()));
}

#[test]
fn recursive_attributes_hold_below() {
    let mut container = Container::script(
        "for m in /m /m/below; do echo x 2>/dev/null >$m/x && echo $m; done; true",
    );
    let source = container.path("source");
    std::fs::create_dir_all(source.join("below")).unwrap();
    container.push(
        "/mounts",
        json!({"destination": "/m", "type": "bind", "source": source, "options": ["rbind", "rro"]}),
    );
    assert_eq!(container.output(), "");
}

#[test]
fn a_file_is_bound_on_a_target_that_is_made() {
    let mut container = Container::script("cat /deep/er/file");
    dyno_tests::write_file(&container.path("file"), "content\n");
    let source = container.path("file");
    container.push("/mounts", json!({"destination": "/deep/er/file", "type": "bind", "source": source, "options": ["bind"]}));
    assert_eq!(container.output(), "content\n");
}

#[test]
fn a_tmpfs_has_its_options() {
    let mut container = Container::script(
        "stat -c %a /t; grep ' /t ' /proc/self/mountinfo | grep -c size=1024k; echo x >/t/x",
    );
    container.push(
        "/mounts",
        json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs",
        "options": ["nosuid", "nodev", "mode=1750", "size=1024k"]}),
    );
    assert_eq!(container.output(), "1750\n1\n");
}

#[test]
fn a_tmpfs_can_begin_with_what_it_hides() {
    let mut container = Container::script("cat /etc/hello; echo new >/etc/hello");
    dyno_tests::write_file(&container.path("rootfs/etc/hello"), "hello\n");
    container.push("/mounts", json!({"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}));
    assert_eq!(container.output(), "hello\n");
    assert_eq!(
        std::fs::read_to_string(container.path("rootfs/etc/hello")).unwrap(),
        "hello\n"
    );
}

#[test]
fn owners_are_mapped_by_a_mounts_own_mappings() {
    let mut container = Container::script("stat -c %u:%g /m/file");
    container.with_user_namespace();
    std::fs::create_dir(container.path("source")).unwrap();
    dyno_tests::write_file(&container.path("source/file"), "x");
    let own: Value = json!([{"containerID": 0, "hostID": 0x5100_0007, "size": 10}]);
    let source = container.path("source");
    container.push(
        "/mounts",
        json!({"destination": "/m", "type": "bind", "source": source,
        "options": ["bind"], "uidMappings": own, "gidMappings": own}),
    );
    assert_eq!(container.output(), "7:7\n");
}

#[test]
fn mounts_are_made_in_their_order() {
    let mut container = Container::script("cat /m/t/file");
    std::fs::create_dir_all(container.path("source")).unwrap();
    dyno_tests::write_file(&container.path("source/file"), "content\n");
    container.push(
        "/mounts",
        json!({"destination": "/m", "type": "tmpfs", "source": "tmpfs"}),
    );
    let source = container.path("source");
    container.push(
        "/mounts",
        json!({"destination": "/m/t", "type": "bind", "source": source, "options": ["bind"]}),
    );
    assert_eq!(container.output(), "content\n");
}

#[test]
fn an_unknown_source_is_named() {
    let mut container = Container::script("true");
    container.push("/mounts", json!({"destination": "/m", "type": "bind", "source": "/no/such/source", "options": ["bind"]}));
    container.refused("/no/such/source");
}

#[test]
fn masked_paths_read_as_empty() {
    let told =
        Container::script("cat /proc/keys /proc/timer_list | wc -c; ls /sys/firmware | wc -l")
            .output();
    assert_eq!(told, "0\n0\n");
}

#[test]
fn read_only_paths_cannot_be_written() {
    let script = "echo 1 2>/dev/null >/proc/sys/kernel/msgmax && echo written; echo h 2>/dev/null >/proc/sysrq-trigger && echo written; true";
    assert_eq!(Container::script(script).output(), "");
}

#[test]
fn a_read_only_root_is() {
    let mut container =
        Container::script("echo x 2>/dev/null >/x && echo written; echo x >/dev/shm/x");
    container.config["root"]["readonly"] = json!(true);
    assert_eq!(container.output(), "");
}

#[test]
fn mounts_of_the_container_stay_in_it() {
    let container = bound("true", &["rbind"]);
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mark = container.id().to_owned();
    container.output();
    let after = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = |text: &str| text.lines().filter(|line| line.contains(&mark)).count();
    assert_eq!(ours(&after), ours(&before));
}

#[test]
fn the_propagation_of_the_root_is_as_asked_for() {
    // Fields 5 to 7 of proc_pid_mountinfo(5): the place, its options, its propagation.
    let script = "while read -r a b c d place options propagation rest; do \
                  [ $place = / ] && root=$propagation; done </proc/self/mountinfo; echo $root";
    for (asked, sign) in [
        ("private", None),
        ("rshared", Some("shared:")),
        ("unbindable", Some("unbindable")),
    ] {
        let mut container = Container::script(script);
        container.config["linux"]["rootfsPropagation"] = json!(asked);
        let told = container.output();
        let found = ["shared:", "master:", "unbindable"].into_iter();
        let found = found.rev().find(|sign| told.starts_with(sign));
        assert_eq!(found, sign, "{asked}: {told}");
    }
}
