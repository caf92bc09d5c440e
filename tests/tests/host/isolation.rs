//! What a dyno sees and may do, read from inside (P3, P11, P12, P16, P18).

use dyno_tests::host::Host;

#[test]
fn a_dyno_has_the_safe_defaults() {
    let host = Host::with_busybox();
    let script = "grep -E '^(CapInh|CapPrm|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'; \
                  tr -s ' ' < /proc/self/uid_map; cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
    let output = host.ok(&["run", "--rm", "busybox", "sh", "-c", script]);
    let lines: Vec<&str> = output.lines().collect();
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP
    let caps = "00000000800405fb";
    assert_eq!(lines[0], "CapInh:0000000000000000");
    assert_eq!(lines[1], format!("CapPrm:{caps}"));
    assert_eq!(lines[2], format!("CapBnd:{caps}"));
    assert_eq!(lines[3], "CapAmb:0000000000000000");
    assert_eq!(lines[4], "NoNewPrivs:1");
    assert_eq!(lines[5], "Seccomp:2");
    let map: Vec<&str> = lines[6].split_whitespace().collect();
    assert_eq!(map[0], "0");
    assert!(
        map[1].parse::<u32>().unwrap() >= 1 << 28,
        "host root is mapped: {map:?}"
    );
    assert_eq!(lines[7], "0");
}

#[test]
fn two_dynos_have_different_ids_on_the_host() {
    let host = Host::with_busybox();
    let base = || {
        host.ok(&[
            "run",
            "-d",
            "busybox",
            "sh",
            "-c",
            "cat /proc/self/uid_map; sleep 1000",
        ])
    };
    let (one, two) = (base(), base());
    let maps: Vec<String> = [one, two]
        .iter()
        .map(|id| {
            dyno_tests::until("its map", || !host.ok(&["logs", id]).is_empty());
            host.ok(&["logs", id])
        })
        .collect();
    assert_ne!(maps[0], maps[1]);
}

#[test]
fn dangerous_calls_are_refused() {
    let host = Host::with_busybox();
    for (what, script) in [
        ("a mount", "mount -t tmpfs none /tmp"),
        ("a user namespace", "unshare -U true"),
        ("a device node", "mknod /tmp/sda b 8 0"),
        ("the host's sysctls", "echo 1 > /proc/sys/kernel/panic"),
        ("its cgroup", "mkdir /sys/fs/cgroup/x"),
        ("its files below /sys", "echo 1 > /sys/kernel/mm/ksm/run"),
    ] {
        let output = host.run(&["run", "--rm", "busybox", "sh", "-c", script]);
        assert!(!output.status.success(), "{what} was allowed: {output:?}");
    }
}

#[test]
fn users_groups_and_folders_are_as_asked() {
    let host = Host::with_busybox();
    let id = |args: &[&str]| host.ok(&[&["run", "--rm"], args, &["busybox", "id"]].concat());
    assert_eq!(
        id(&["--user", "user"]),
        "uid=1000(user) gid=1000(user) groups=2000(extra)"
    );
    assert_eq!(id(&["--user", "1234:5"]), "uid=1234 gid=5");
    let (error, _) = host.fails(&["run", "--rm", "--user", "nosuchuser", "busybox", "id"]);
    assert!(error.contains("nosuchuser"), "{error}");
    assert_eq!(
        host.ok(&["run", "--rm", "--workdir", "/srv/deep", "busybox", "pwd"]),
        "/srv/deep"
    );
    assert_eq!(
        host.ok(&["run", "--rm", "--hostname", "boxed", "busybox", "hostname"]),
        "boxed"
    );
    assert_eq!(
        host.ok(&[
            "run", "--rm", "-e", "A=b c", "busybox", "sh", "-c", "echo $A"
        ]),
        "b c"
    );
}

#[test]
fn capabilities_are_added_and_dropped_by_name() {
    let host = Host::with_busybox();
    let bounding = |args: &[&str]| {
        let script = "grep CapBnd /proc/self/status | cut -f2";
        host.ok(&[&["run", "--rm"], args, &["busybox", "sh", "-c", script]].concat())
    };
    assert_eq!(bounding(&["--cap-drop", "ALL"]), "0000000000000000");
    assert_eq!(
        bounding(&["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"]),
        "0000000000001000"
    );
    let (error, _) = host.fails(&["run", "--rm", "--cap-add", "FLY", "busybox", "true"]);
    assert!(error.contains("FLY"), "{error}");
}

#[test]
fn a_read_only_dyno_writes_only_where_it_was_given_room() {
    let host = Host::with_busybox();
    let script = "touch /x 2>/dev/null && echo root; touch /data/x && echo data; touch /tmp/x && echo tmp; df -k /tmp | tail -1 | tr -s ' ' | cut -d' ' -f2";
    let output = host.run(&[
        "run",
        "--rm",
        "--read-only",
        "-v",
        "data:/data",
        "--tmpfs",
        "/tmp:size=1m",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    let output = String::from_utf8(output.stdout).unwrap();
    assert!(output.starts_with("data\ntmp\n"), "{output}");
}

#[test]
fn a_volume_outlives_its_dyno_and_belongs_to_whoever_mounts_it() {
    let host = Host::with_busybox();
    host.ok(&[
        "run",
        "--rm",
        "-v",
        "keep:/data",
        "busybox",
        "sh",
        "-c",
        "echo kept > /data/file",
    ]);
    let read = "cat /data/file; stat -c %u:%g /data/file";
    assert_eq!(
        host.ok(&[
            "run",
            "--rm",
            "-v",
            "keep:/data",
            "busybox",
            "sh",
            "-c",
            read
        ]),
        "kept\n0:0"
    );
}

#[test]
fn a_folder_of_the_host_is_shared_as_asked() {
    let host = Host::with_busybox();
    let folder = host.path().join("shared");
    std::fs::create_dir(&folder).unwrap();
    std::io::Write::write_all(
        &mut std::fs::File::create(folder.join("file")).unwrap(),
        b"from the host\n",
    )
    .unwrap();
    let volume = format!("{}:/shared:ro", folder.display());
    let script = "cat /shared/file; touch /shared/x 2>/dev/null || echo refused";
    assert_eq!(
        host.ok(&["run", "--rm", "-v", &volume, "busybox", "sh", "-c", script]),
        "from the host\nrefused"
    );
}

#[test]
fn ulimits_and_shared_memory_are_as_asked() {
    let host = Host::with_busybox();
    let script = "ulimit -Sn; ulimit -Hn; df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2";
    let output = host.ok(&[
        "run",
        "--rm",
        "--ulimit",
        "nofile=100:200",
        "--shm-size",
        "8M",
        "host",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(output, "100\n200\n8192");
}

#[test]
fn the_built_in_image_shows_programs_and_no_secrets() {
    let host = Host::start();
    let script = "ls /root /home /var | sort | tr '\\n' ' '; cat /etc/shadow 2>&1 | head -1; touch /usr/x 2>&1";
    let output = host.run(&["run", "--rm", "host", "sh", "-c", script]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("No such file") && text.contains("Read-only"),
        "{text}"
    );
    for secret in [".ssh", ".cargo", "lib/dyno"] {
        assert!(!text.contains(secret), "{text}");
    }
}
