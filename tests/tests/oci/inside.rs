//! What a container sees.

use dyno_tests::bundle::{Bundle, ID_BASE};
use serde_json::json;

#[test]
fn its_namespaces_are_all_its_own() {
    let bundle = Bundle::script(
        "for n in user pid mnt net uts ipc cgroup; do readlink /proc/self/ns/$n; done",
    );
    for namespace in bundle.output().lines() {
        let (kind, _) = namespace.split_once(':').unwrap();
        let ours = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(ours.to_string_lossy(), namespace);
    }
}

#[test]
fn a_network_of_its_own_has_its_loopback_up() {
    let told = Bundle::script("ifconfig lo").output();
    assert!(told.contains("UP LOOPBACK RUNNING"), "{told}");
    assert!(told.contains("inet addr:127.0.0.1"), "{told}");
}

#[test]
fn its_root_is_nobody_on_the_host() {
    let bundle = Bundle::script("cat /proc/self/uid_map; touch /made; stat -c %u:%g /made");
    let output = bundle.output();
    let words: Vec<&str> = output.split_whitespace().collect();
    assert_eq!(words, ["0", &ID_BASE.to_string(), "65536", "0:0"]);
    let made = std::fs::metadata(bundle.path().join("upper/made")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), ID_BASE);
}

#[test]
fn layers_show_their_plain_owners_and_stay_as_they_are() {
    let bundle =
        Bundle::script("stat -c %u:%g:%a /owned; echo x > /owned; stat -c %u:%g:%a /owned");
    let owned = bundle.path().join("layer/owned");
    std::fs::File::create(&owned).unwrap();
    std::os::unix::fs::chown(&owned, Some(1000), Some(2000)).unwrap();
    assert_eq!(bundle.output(), "1000:2000:644\n1000:2000:644\n");
    assert_eq!(
        std::fs::metadata(&owned).unwrap().len(),
        0,
        "the layer was written to"
    );
}

#[test]
fn it_has_the_capabilities_it_was_given_and_no_other() {
    let bundle = Bundle::script("grep -E '^(Cap|NoNewPrivs)' /proc/self/status | tr -d '\\t'");
    let expected = "CapInh:0000000000000000\nCapPrm:0000000000000023\nCapEff:0000000000000023\n\
                    CapBnd:0000000000000023\nCapAmb:0000000000000000\nNoNewPrivs:1\n";
    assert_eq!(bundle.output(), expected);
}

#[test]
fn a_user_other_than_root_has_exactly_its_groups_and_no_capability() {
    let mut bundle =
        Bundle::script("id; grep -E '^Cap(Prm|Eff|Amb)' /proc/self/status | tr -d '\\t'");
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [2000]});
    bundle.config["process"]["capabilities"] = json!({"bounding": ["CAP_CHOWN"]});
    let expected = "uid=1000(user) gid=1000(user) groups=2000(extra)\n\
                    CapPrm:0000000000000000\nCapEff:0000000000000000\nCapAmb:0000000000000000\n";
    assert_eq!(bundle.output(), expected);
}

#[test]
fn ambient_capabilities_reach_a_user_other_than_root() {
    let mut bundle = Bundle::script("grep CapEff /proc/self/status | tr -d '\\t'");
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let sets = [
        "bounding",
        "effective",
        "permitted",
        "inheritable",
        "ambient",
    ];
    let set = json!(["CAP_NET_BIND_SERVICE"]);
    bundle.config["process"]["capabilities"] = sets
        .iter()
        .map(|name| (name.to_string(), set.clone()))
        .collect();
    assert_eq!(bundle.output(), "CapEff:0000000000000400\n");
}

#[test]
fn no_descriptor_of_the_runtime_leaks_into_it() {
    let bundle = Bundle::script("ls /proc/$$/fd; true");
    assert_eq!(bundle.output(), "0\n1\n2\n");
}

#[test]
fn its_dev_is_small_and_cannot_grow() {
    let bundle = Bundle::script(
        "ls /dev | tr '\\n' ' '; echo; echo gone > /dev/null; mknod /dev/sda b 8 0 2>/dev/null || echo refused",
    );
    let expected =
        "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero \nrefused\n";
    assert_eq!(bundle.output(), expected);
}

#[test]
fn a_device_of_the_configuration_is_there() {
    let mut bundle = Bundle::script(
        "stat -c '%F %t:%T %a %u' /dev/deep/zero; head -c 3 /dev/deep/zero | od -An -c",
    );
    bundle.config["linux"]["devices"] = json!([
        {"path": "/dev/deep/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 1000},
    ]);
    let expected = "character special file 1:5 640 1000\n  \\0  \\0  \\0\n";
    assert_eq!(bundle.output(), expected);
}

#[test]
fn masked_paths_read_as_empty() {
    let bundle =
        Bundle::script("cat /proc/keys /proc/interrupts | wc -c; ls /sys/firmware | wc -l");
    assert_eq!(bundle.output(), "0\n0\n");
}

#[test]
fn read_only_paths_cannot_be_written() {
    let bundle = Bundle::script("echo 1 2>/dev/null > /proc/sys/vm/swappiness || echo refused");
    let run = bundle.run();
    assert_eq!(run.stdout, "refused\n", "{run:?}");
}

#[test]
fn a_read_only_root_cannot_be_written_but_its_tmpfs_can() {
    let mut bundle =
        Bundle::script("touch /x 2>/dev/null || echo refused; touch /dev/shm/x && echo fine");
    bundle.config["root"]["readonly"] = json!(true);
    assert_eq!(bundle.output(), "refused\nfine\n");
}

#[test]
fn a_sysctl_of_its_namespaces_is_set() {
    let mut bundle = Bundle::script("cat /proc/sys/net/ipv4/ip_unprivileged_port_start");
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "80"});
    assert_eq!(bundle.output(), "80\n");
}

#[test]
fn resource_limits_and_host_name_are_its_own() {
    let mut bundle = Bundle::script("ulimit -Sn; ulimit -Hn; hostname; umask");
    bundle.config["process"]["rlimits"] =
        json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
    assert_eq!(bundle.output(), "100\n200\nbox\n0022\n");
}

#[test]
fn it_sees_its_own_limits_in_its_cgroup() {
    let mut bundle = Bundle::script(
        "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; \
         cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null; \
         cut -d: -f3 /proc/self/cgroup | sort -u; \
         mkdir /sys/fs/cgroup/sub /sys/fs/cgroup/memory/sub 2>/dev/null || echo refused",
    );
    bundle.config["linux"]["resources"] =
        json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 50}});
    assert_eq!(bundle.output(), "67108864\n50\n/\nrefused\n");
}

#[test]
fn a_bind_mount_shows_the_folder_as_asked() {
    let mut bundle = Bundle::script(
        "cat /data/file; touch /data/x 2>/dev/null || echo refused; stat -c %u /data/file",
    );
    let source = bundle.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::io::Write::write_all(
        &mut std::fs::File::create(source.join("file")).unwrap(),
        b"hello\n",
    )
    .unwrap();
    let mount =
        json!({"destination": "/data", "source": source, "options": ["bind", "ro", "idmap"]});
    bundle.config["mounts"].as_array_mut().unwrap().push(mount);
    assert_eq!(bundle.output(), "hello\nrefused\n0\n");
}

#[test]
fn what_is_below_a_bind_mount_comes_along_only_when_asked_for() {
    for (option, expected) in [("bind", "0\n"), ("rbind", "1\n")] {
        let mut bundle = Bundle::script("ls /data/inner | wc -l");
        let source = bundle.path().join("source");
        std::fs::create_dir_all(source.join("inner")).unwrap();
        let inner = source.join("inner");
        rustix::mount::mount(
            "tmpfs",
            &inner,
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            None,
        )
        .unwrap();
        std::fs::File::create(inner.join("file")).unwrap();
        let mount = json!({"destination": "/data", "source": source, "options": [option]});
        bundle.config["mounts"].as_array_mut().unwrap().push(mount);
        let output = bundle.run();
        rustix::mount::unmount(&inner, rustix::mount::UnmountFlags::DETACH).unwrap();
        assert_eq!(output.stdout, expected, "{option}: {output:?}");
    }
}

#[test]
fn the_working_folder_is_made_when_it_is_missing() {
    let mut bundle = Bundle::script("pwd");
    bundle.config["process"]["cwd"] = json!("/deep/er");
    assert_eq!(bundle.output(), "/deep/er\n");
}

#[test]
fn the_seccomp_filter_holds() {
    let mut bundle = Bundle::script(
        "mkdir /x 2>&1 | sed 's/.*: //'; grep Seccomp: /proc/self/status | tr -d '\\t'",
    );
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    });
    assert_eq!(bundle.output(), "No space left on device\nSeccomp:2\n");
}

#[test]
fn the_seccomp_filter_holds_where_privileges_may_be_gained() {
    for uid in [0, 1000] {
        let mut bundle = Bundle::script(
            "mkdir /tmp/x 2>&1 | sed 's/.*: //'; \
             grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | tr -d '\\t'; id -u",
        );
        bundle.config["process"]["noNewPrivileges"] = json!(false);
        bundle.config["process"]["user"] = json!({"uid": uid, "gid": uid});
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
                // What an old profile does not know must not be needed after it.
                {"names": ["close_range"], "action": "SCMP_ACT_ERRNO"},
            ],
        });
        let expected = format!("No space left on device\nNoNewPrivs:0\nSeccomp:2\n{uid}\n");
        assert_eq!(bundle.output(), expected);
    }
}

#[test]
fn many_layers_make_one_root() {
    // fsconfig(2) takes 255 bytes, which end at 90 layers; Docker ends at 128.
    for count in [90, 128, 400] {
        let mut bundle = Bundle::script("cat /layer-* | sort -n | tail -1; ls / | grep -c layer");
        let mut lower = Vec::new();
        for number in 0..count {
            let layer = bundle.path().join(format!("layer-{number}"));
            std::fs::create_dir(&layer).unwrap();
            let mut file = std::fs::File::create(layer.join(format!("layer-{number}"))).unwrap();
            std::io::Write::write_all(&mut file, format!("{number}\n").as_bytes()).unwrap();
            lower.push(layer.display().to_string());
        }
        lower.push(bundle.path().join("layer").display().to_string());
        bundle.config["mounts"][0]["options"][0] = json!(format!("lowerdir={}", lower.join(":")));
        assert_eq!(bundle.output(), format!("{}\n{count}\n", count - 1));
    }
}

#[test]
fn more_layers_than_the_kernel_takes_are_refused_by_number() {
    let mut bundle = Bundle::new(&["true"]);
    let layer = bundle.path().join("layer").display().to_string();
    let lower = vec![layer; 501].join(":");
    bundle.config["mounts"][0]["options"][0] = json!(format!("lowerdir={lower}"));
    let run = bundle.run();
    assert!(run.stderr.contains("501 folders"), "{run:?}");
}

#[test]
fn a_root_behind_a_link_is_the_folder_that_it_leads_to() {
    let mut bundle = Bundle::script("echo ran");
    std::os::unix::fs::symlink("rootfs", bundle.path().join("link")).unwrap();
    bundle.config["root"]["path"] = json!("link");
    assert_eq!(bundle.output(), "ran\n");
}

#[test]
fn options_that_mean_what_is_so_anyway_are_taken() {
    let mut bundle =
        Bundle::script("grep -E ' /(new|old) ' /proc/self/mountinfo | cut -d' ' -f5-6 | sort");
    bundle.mount(
        json!({"destination": "/new", "type": "tmpfs", "source": "x",
        "options": ["rprivate", "rro", "noatime"]}),
    );
    let source = bundle.path().join("layer");
    bundle.mount(json!({"destination": "/old", "source": source,
        "options": ["rbind", "noatime", "rslave", "rnosuid"]}));
    let output = bundle.output();
    assert!(
        output.starts_with("/new ro,noatime\n/old rw,nosuid,noatime"),
        "{output}"
    );
}

#[test]
fn a_network_of_the_hosts_is_joined_by_its_path() {
    // It belongs to the host, who may not be asked any more from inside.
    let mut holder = std::process::Command::new("unshare")
        .args(["--net", "sleep", "1000"])
        .spawn()
        .unwrap();
    let path = format!("/proc/{}/ns/net", holder.id());
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    dyno_tests::until("it has its own", || {
        std::fs::read_link(&path).is_ok_and(|link| link != own)
    });
    let mut bundle = Bundle::script("readlink /proc/self/ns/net; readlink /proc/self/ns/user");
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    let network = namespaces
        .iter_mut()
        .find(|namespace| namespace["type"] == "network");
    network.unwrap()["path"] = json!(path);
    // A sysfs can be mounted by the owner of the network namespace only.
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/sys"));
    let expected = std::fs::read_link(&path).unwrap();
    let run = bundle.run();
    holder.kill().unwrap();
    holder.wait().unwrap();
    let mut lines = run.stdout.lines();
    assert_eq!(lines.next(), expected.to_str(), "{run:?}");
    let user = std::fs::read_link("/proc/self/ns/user").unwrap();
    assert_ne!(lines.next(), user.to_str());
}

#[test]
fn its_mounts_say_nothing_of_the_host_and_share_nothing_with_it() {
    let bundle = Bundle::script("cat /proc/self/mountinfo");
    let output = bundle.output();
    assert!(output.contains(" / / "), "{output}");
    for word in [bundle.id(), "shared:", "master:", "/tmp"] {
        assert!(!output.contains(word), "{word}: {output}");
    }
}

#[test]
fn one_container_after_the_other_leaves_its_layers_as_they_were() {
    // Who owns the top of the upper folder is set each time, and stays.
    let bundle = Bundle::script("touch /made; ls /made; stat -c %u:%g:%a /");
    for _ in 0..3 {
        let run = bundle.run();
        assert_eq!(run.stdout, "/made\n0:0:755\n", "{run:?}");
    }
}
