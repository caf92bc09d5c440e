//! What one dyno can do to the host, and to the others (P3, P4, P11, P16, P19).

use std::fs;

use dyno_tests::host::Host;
use dyno_tests::until;
use serde_json::Value;

use super::rig::{Canary, assert_sane, bounded, text};

/// More than an honest request would add.
const MUCH: [&str; 18] = [
    "--cap-add",
    "SYS_ADMIN",
    "--cap-add",
    "NET_ADMIN",
    "--cap-add",
    "SYS_PTRACE",
    "--cap-add",
    "SYS_RAWIO",
    "--cap-add",
    "MKNOD",
    "--cap-add",
    "DAC_READ_SEARCH",
    "--cap-add",
    "SYS_MODULE",
    "--cap-add",
    "SYS_BOOT",
    "--cap-add",
    "SYSLOG",
];

#[test]
fn its_small_files_cannot_be_written_moved_or_remounted() {
    let host = Host::with_busybox();
    let script = "for f in hosts resolv.conf hostname; do
            for act in 'echo x >>' 'rm -f' 'chmod 777' 'ln -sf /tmp'; do
                sh -c \"$act /etc/$f\" 2>/dev/null && echo \"$act $f\"
            done
            mv /etc/$f /etc/other 2>/dev/null && echo mv $f
            mount -o remount,rw,bind /etc/$f 2>/dev/null && echo remount $f
            umount /etc/$f 2>/dev/null && echo umount $f
        done; echo done";
    let id = host.ok(&["run", "-d", "--name", "one", "busybox", "sleep", "1000"]);
    for arguments in [&[][..], &MUCH] {
        let run = [
            &["run", "--rm"],
            arguments,
            &["busybox", "sh", "-c", script],
        ]
        .concat();
        let output = host.run(&run);
        assert!(output.stdout.ends_with(b"done\n"), "{output:?}");
        let lines = text(&output);
        let written = lines
            .lines()
            .filter(|line| line.starts_with("echo"))
            .count();
        assert_eq!(written, 0, "{arguments:?}: {lines}");
    }
    let folder = host.path().join("run/dynos").join(id).join("files");
    for name in ["hosts", "resolv.conf", "hostname"] {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        assert!(!text.lines().any(|line| line == "x"), "{name}: {text}");
    }
}

#[test]
fn the_kernels_own_files_are_closed_even_with_every_capability() {
    let host = Host::with_busybox();
    let pattern = fs::read("/proc/sys/kernel/core_pattern").unwrap();
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/hostname/../panic",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
        "/sys/kernel/uevent_helper",
        "/sys/kernel/mm/ksm/run",
        "/sys/power/state",
        "/sys/fs/cgroup/cgroup.procs",
        "/sys/fs/cgroup/devices/devices.allow",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ] {
        let script = format!("echo 1 > {path}");
        for arguments in [&[][..], &MUCH] {
            let run = [
                &["run", "--rm"],
                arguments,
                &["busybox", "sh", "-c", &script],
            ]
            .concat();
            let output = host.run(&run);
            assert!(!output.status.success(), "{arguments:?} wrote {path}");
            assert!(
                text(&output).contains(path),
                "it did not get so far: {output:?}"
            );
        }
    }
    assert_eq!(fs::read("/proc/sys/kernel/core_pattern").unwrap(), pattern);
    // The control: what is its own can be written.
    let own = "echo 1 > /tmp/x && echo 2 > /proc/self/oom_score_adj && echo written";
    assert_eq!(
        host.ok(&["run", "--rm", "busybox", "sh", "-c", own]),
        "written"
    );
}

#[test]
fn masked_files_read_as_empty() {
    let host = Host::with_busybox();
    let script = "for f in kcore keys latency_stats timer_list sched_debug; do
            [ -e /proc/$f ] && head -c 1 /proc/$f; done; ls /sys/firmware /proc/scsi /proc/acpi";
    let run = ["run", "--rm", "busybox", "sh", "-c", script];
    assert_eq!(
        String::from_utf8_lossy(&host.run(&run).stdout)
            .replace(['\n', ':'], "")
            .replace("/sys/firmware", "")
            .replace("/proc/scsi", "")
            .replace("/proc/acpi", ""),
        ""
    );
}

#[test]
fn its_devices_are_these_and_no_others() {
    let host = Host::with_busybox();
    let list = host.ok(&[
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "ls /dev | tr '\\n' ' '",
    ]);
    assert_eq!(
        list.trim(),
        "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    );
    let script =
        "mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg; mknod /dev/sda b 8 0 && head -c 1 /dev/sda";
    let run = [
        &["run", "--rm"],
        &MUCH[..],
        &["busybox", "sh", "-c", script],
    ]
    .concat();
    let output = host.run(&run);
    assert!(
        !output.status.success() && output.stdout.is_empty(),
        "{output:?}"
    );
}

#[test]
fn processes_of_others_are_neither_seen_nor_read() {
    let host = Host::with_busybox();
    host.ok(&[
        "run",
        "-d",
        "-e",
        "SECRET=hunter2",
        "busybox",
        "sleep",
        "1000",
    ]);
    let script = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'; ls -d /proc/[0-9]* | wc -l";
    for arguments in [&[][..], &MUCH] {
        let run = [
            &["run", "--rm"],
            arguments,
            &["busybox", "sh", "-c", script],
        ]
        .concat();
        let output = host.run(&run);
        let seen = text(&output);
        assert!(
            !seen.contains("hunter2") && !seen.contains("hostd"),
            "{seen}"
        );
        let count: u32 = seen.lines().last().unwrap().trim().parse().unwrap();
        assert!(count < 10, "{seen}");
    }
}

#[test]
fn the_ways_to_hostd_cannot_be_given_away() {
    let host = Host::with_busybox();
    let canary = Canary::new(&host);
    let link = host.path().join("link");
    std::os::unix::fs::symlink(host.path().join("run"), &link).unwrap();
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    for source in [
        text(&host.socket()),
        text(&host.path().join("run")),
        text(&host.path().join("state/images")),
        text(host.path()),
        text(&link),
        format!("{}/../run", text(canary.path())),
        "/".to_owned(),
        "/proc".to_owned(),
        "/proc/self/root".to_owned(),
        "/proc/1/root/".to_owned(),
        "//".to_owned(),
        "/./".to_owned(),
    ] {
        let volume = format!("{source}:/x");
        let output = bounded(
            &host,
            &["run", "--rm", "-v", &volume, "busybox", "ls", "/x"],
        );
        assert!(!output.status.success(), "{source}: {output:?}");
        assert!(host.ids().is_empty());
    }
    // The control: another folder can be.
    let volume = format!("{}:/x", text(canary.path()));
    let listed = host.ok(&["run", "--rm", "-v", &volume, "busybox", "ls", "/x"]);
    assert_eq!(listed, "hosts\npasswd\nsecret");
}

/// What a process is, as it sees it itself.
const SELF: &str = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:)' /proc/self/status;
    cat /proc/self/cgroup /proc/self/uid_map /proc/self/oom_score_adj; ulimit -a;
    for n in user pid mnt net ipc uts cgroup; do readlink /proc/self/ns/$n; done;
    ls /proc/self/fd | wc -l";

#[test]
fn who_is_executed_later_is_no_more_than_the_first() {
    let host = Host::with_busybox();
    for arguments in [
        &[][..],
        &["--user", "user"],
        &["--cap-drop", "ALL"],
        &["--cap-add", "NET_ADMIN"],
        &["--ulimit", "nofile=77:99"],
    ] {
        let script = format!("{SELF}; echo ready; sleep 1000");
        let run = [&["run", "-d"], arguments, &["busybox", "sh", "-c", &script]].concat();
        let id = host.ok(&run);
        until("it has looked at itself", || {
            host.ok(&["logs", &id]).ends_with("ready")
        });
        let first = host.ok(&["logs", &id]);
        let first = first.strip_suffix("\nready").unwrap();
        let later = host.ok(&["exec", &id, "sh", "-c", SELF]);
        assert_eq!(first, later, "{arguments:?}");
        assert!(first.contains("Seccomp:\t2"), "{first}");
        host.ok(&["rm", "-f", &id]);
    }
}

#[test]
fn what_runs_for_a_dyno_is_out_of_its_reach() {
    let host = Host::with_busybox();
    let id = host.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    let dyno: Value = host.inspect(&id);
    let pid = dyno["status"]["pid"].as_u64().unwrap();
    // Its init is not root of the host, by any of its ids.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in status
        .lines()
        .filter(|line| line.starts_with("Uid:") || line.starts_with("Gid:"))
    {
        let ids: Vec<u32> = line
            .split_whitespace()
            .skip(1)
            .map(|id| id.parse().unwrap())
            .collect();
        assert!(ids.iter().all(|id| *id >= 1 << 16), "{line}");
    }
    // Three streams, none of them a file of the host.
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let target = fs::read_link(entry.unwrap().path()).unwrap();
        let target = target.to_string_lossy();
        assert!(
            target.starts_with("pipe:") || target == "/dev/null",
            "{target}"
        );
    }
    // Nor can it open the programs of those who come to execute something.
    let runtime = dyno_tests::programs().join("dyno-runtime");
    let before = fs::metadata(&runtime).unwrap();
    let script = "n=0; while [ $n -lt 2000 ]; do n=$((n+1)); \
        for p in /proc/[0-9]*; do [ -e $p/exe ] && echo x >> $p/exe; done; done; echo tried";
    host.ok(&[
        "exec",
        &id,
        "sh",
        "-c",
        &format!("({script}) > /tmp/out 2>/dev/null &"),
    ]);
    let tried = || host.run(&["exec", &id, "cat", "/tmp/out"]).stdout == b"tried\n";
    until("it has tried while others came", tried);
    let after = fs::metadata(&runtime).unwrap();
    assert_eq!(
        (after.len(), after.modified().unwrap()),
        (before.len(), before.modified().unwrap())
    );
    host.run(&["exec", &id, "sh", "-c", "kill -9 -1; kill -9 0"]);
    assert_sane(&host);
    assert_eq!(host.inspect(&id)["status"]["phase"], "running");
}
