//! Known ways out of a container, tried from inside by everybody there can be in
//! one (P1, P2, P3, P4, P11, P16, P18).
//!
//! ```text
//!  identities: uid 1000 · uid 0 · uid 0 with each further capability · with all
//!       ×
//!  attempts:   what a shell does (ATTEMPTS) · what a system call does (CALLS)
//! ```
//!
//! No attempt changes anything where it works: files are opened for appending
//! and nothing is appended, calls have arguments that are refused after the
//! right to call was looked at. So the control can be the same table in a
//! container without the barriers: root of the host, nothing masked. An attempt
//! on what a kernel does not have proves nothing there; the control asks that
//! most of them work.

use dyno_tests::bundle::Bundle;
use serde_json::json;

/// The capabilities that a container may be given and that hostd gives to none.
pub(crate) const OPTIONAL: &[&str] = &[
    "CAP_AUDIT_CONTROL",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_DAC_READ_SEARCH",
    "CAP_IPC_LOCK",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

/// What its own root has without asking.
pub(crate) const GIVEN: &[&str] = &["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETUID"];

/// Files of the kernel that change the machine, or tell of it: `(name, how, path)`.
const FILES: &[(&str, char, &str)] = &[
    ("core-pattern", 'w', "/proc/sys/kernel/core_pattern"),
    ("modprobe", 'w', "/proc/sys/kernel/modprobe"),
    ("hotplug", 'w', "/proc/sys/kernel/hotplug"),
    ("panic", 'w', "/proc/sys/kernel/panic"),
    ("panic-on-oops", 'w', "/proc/sys/kernel/panic_on_oops"),
    ("sysrq", 'w', "/proc/sys/kernel/sysrq"),
    ("pid-max", 'w', "/proc/sys/kernel/pid_max"),
    ("threads-max", 'w', "/proc/sys/kernel/threads-max"),
    ("kptr-restrict", 'w', "/proc/sys/kernel/kptr_restrict"),
    ("dmesg-restrict", 'w', "/proc/sys/kernel/dmesg_restrict"),
    ("randomize", 'w', "/proc/sys/kernel/randomize_va_space"),
    ("perf-paranoid", 'w', "/proc/sys/kernel/perf_event_paranoid"),
    ("modules-disabled", 'w', "/proc/sys/kernel/modules_disabled"),
    ("printk", 'w', "/proc/sys/kernel/printk"),
    ("drop-caches", 'w', "/proc/sys/vm/drop_caches"),
    ("overcommit", 'w', "/proc/sys/vm/overcommit_memory"),
    ("mmap-min-addr", 'w', "/proc/sys/vm/mmap_min_addr"),
    ("file-max", 'w', "/proc/sys/fs/file-max"),
    ("suid-dumpable", 'w', "/proc/sys/fs/suid_dumpable"),
    ("protected-links", 'w', "/proc/sys/fs/protected_symlinks"),
    ("binfmt", 'w', "/proc/sys/fs/binfmt_misc/register"),
    ("bpf-jit", 'w', "/proc/sys/net/core/bpf_jit_enable"),
    ("sysrq-trigger", 'w', "/proc/sysrq-trigger"),
    ("irq", 'w', "/proc/irq/default_smp_affinity"),
    ("uevent-helper", 'w', "/sys/kernel/uevent_helper"),
    ("ksm", 'w', "/sys/kernel/mm/ksm/run"),
    (
        "hugepages",
        'w',
        "/sys/kernel/mm/transparent_hugepage/enabled",
    ),
    ("power", 'w', "/sys/power/state"),
    ("profiling", 'w', "/sys/kernel/profiling"),
    (
        "module-parameter",
        'w',
        "/sys/module/printk/parameters/time",
    ),
    ("cpu-online", 'w', "/sys/devices/system/cpu/cpu1/online"),
    ("cgroup-procs", 'w', "/sys/fs/cgroup/cgroup.procs"),
    ("cgroup-kill", 'w', "/sys/fs/cgroup/cgroup.kill"),
    (
        "cgroup-subtree",
        'w',
        "/sys/fs/cgroup/cgroup.subtree_control",
    ),
    ("memory-max", 'w', "/sys/fs/cgroup/memory.max"),
    ("pids-max", 'w', "/sys/fs/cgroup/pids.max"),
    ("release-agent", 'w', "/sys/fs/cgroup/memory/release_agent"),
    ("devices-allow", 'w', "/sys/fs/cgroup/devices/devices.allow"),
    ("kcore", 'r', "/proc/kcore"),
    ("kmsg", 'r', "/proc/kmsg"),
    ("keys", 'r', "/proc/keys"),
    ("interrupts", 'r', "/proc/interrupts"),
    ("timer-list", 'r', "/proc/timer_list"),
    ("kpagecount", 'r', "/proc/kpagecount"),
    ("slabinfo", 'r', "/proc/slabinfo"),
    ("vmallocinfo", 'r', "/proc/vmallocinfo"),
    ("kpageflags", 'r', "/proc/kpageflags"),
    ("firmware", 'r', "/sys/firmware/memmap/0/start"),
    ("dev-mem", 'r', "/dev/mem"),
    ("dev-port", 'r', "/dev/port"),
    ("dev-kmsg", 'r', "/dev/kmsg"),
    ("debugfs", 'r', "/sys/kernel/debug/sched/debug"),
    ("tracefs", 'r', "/sys/kernel/tracing/trace"),
    ("pstore", 'r', "/sys/fs/pstore/dmesg"),
];

/// What else a shell can try; each is one command that fails where it is held.
const ATTEMPTS: &[(&str, &str)] = &[
    (
        "kernel-addresses",
        "grep -qv '^0000000000000000' /proc/kallsyms",
    ),
    ("parent-of-root", "ls $canary/secret"),
    ("root-of-init", "ls /proc/1/root$canary/secret"),
    ("cwd-of-init", "ls /proc/1/cwd$canary/secret"),
    ("cwd-dots", "cd ../../../../../../..; ls .$canary/secret"),
    (
        "leaked-descriptor",
        "ls -l /proc/self/fd | grep -v -e /dev/ -e pipe -e /proc/ -e std | grep -q /",
    ),
    (
        "descriptor-dots",
        "for f in 3 4 5 6 7 8 9; do ls /proc/self/fd/$f/../../../../..$canary/secret && exit 0; done; exit 1",
    ),
    ("exe-of-runtime", "readlink /proc/*/exe | grep -q runtime"),
    (
        "processes-of-others",
        "ls -d /proc/[0-9]* | grep -qv -e '/1$' -e '/[0-9][0-9]\\{0,3\\}$'",
    ),
    (
        "disk-device",
        "mknod /tmp/d b 8 0 && dd if=/tmp/d bs=1 count=1",
    ),
    (
        "memory-device",
        "mknod /tmp/m c 1 1 && dd if=/tmp/m bs=1 count=1",
    ),
    (
        "message-device",
        "mknod /tmp/k c 1 11 && dd if=/tmp/k bs=1 count=1",
    ),
    (
        "port-device",
        "mknod /tmp/p c 1 4 && dd if=/tmp/p bs=1 count=1",
    ),
    ("null-device", "mknod /tmp/n c 1 3 && : > /tmp/n"),
    ("loop-device", "mknod /tmp/l b 7 0 && : < /tmp/l"),
    ("fuse-device", "mknod /tmp/f c 10 229 && : < /tmp/f"),
    ("tun-device", "mknod /tmp/t c 10 200 && : < /tmp/t"),
    ("mount-disk", "mount -t ext4 /dev/sda /srv"),
    ("mount-debugfs", "mount -t debugfs none /srv"),
    ("mount-tracefs", "mount -t tracefs none /srv"),
    ("mount-securityfs", "mount -t securityfs none /srv"),
    ("mount-pstore", "mount -t pstore none /srv"),
    ("mount-devtmpfs", "mount -t devtmpfs none /srv"),
    (
        "limit-of-v1",
        "mount -t cgroup -o memory none /srv && : >> /srv/memory.limit_in_bytes",
    ),
    (
        "agent-of-v1",
        "mount -t cgroup -o memory none /srv && test -e /srv/release_agent",
    ),
    (
        "limit-of-v2",
        "mount -t cgroup2 none /srv && : >> /srv/cgroup.procs",
    ),
    (
        "remount-layer",
        "mount -o remount,rw,bind /sys && : >> /sys/kernel/profiling",
    ),
    ("set-host-time", "test -w /dev/rtc0"),
    ("host-name-of-host", "test \"$(hostname)\" = \"$host\""),
];

/// System calls on the machine or on processes outside: x86-64's numbers.
#[cfg(target_arch = "x86_64")]
const CALLS: &[(&str, &str)] = &[
    ("settimeofday", "164,0,0"),
    ("init-module", "175,0,0,0"),
    ("finit-module", "313,-1,0,0"),
    ("delete-module", "176,0,0"),
    ("kexec-load", "246,0,0,0,65535"),
    ("kexec-file-load", "320,-1,-1,0,0,65535"),
    ("acct", "163,@/none"),
    ("swapon", "167,@/none,0"),
    ("swapoff", "168,@/none"),
    ("syslog-read-all", "103,3,0,0"),
    ("syslog-read", "103,2,0,0"),
    ("iopl", "172,3"),
    ("ioperm", "173,128,1,1"),
];

/// Answers that mean that it was not let do it: `EPERM`, `EACCES`, `ENODEV`,
/// `ENOSYS`, `EOPNOTSUPP`.
const HELD: [i32; 5] = [1, 13, 19, 38, 95];

/// What works, of all attempts, in this bundle.
fn working(mut bundle: Bundle) -> Vec<String> {
    let canary = bundle.path().join("canary");
    std::fs::create_dir(&canary).unwrap();
    dyno_tests::write_file(&canary.join("secret"), "secret");
    let probe = dyno_tests::programs().join("probe");
    std::fs::copy(probe, bundle.path().join("layer/bin/probe")).unwrap();
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let mut script = format!(
        "canary={}; host={host}; export canary host\neval \"$FIRST\"\n",
        canary.display()
    );
    let quoted = |command: &str| command.replace('\'', r"'\''");
    let mut attempt = |name: &str, command: &str| {
        let command = quoted(command);
        script +=
            &format!("timeout 10 sh -c '{command}' >/dev/null 2>&1 </dev/null && echo {name}\n");
    };
    for (name, how, path) in FILES {
        match how {
            'w' => attempt(name, &format!("test -e {path} && : >> {path}")),
            _ => attempt(name, &format!("test \"$(head -c 1 {path} | wc -c)\" = 1")),
        }
    }
    for (name, command) in ATTEMPTS {
        attempt(name, command);
    }
    script += "probe";
    for (name, call) in CALLS {
        script += &format!(" {name}={call}");
    }
    script += "\necho end\n";
    bundle.config["process"]["args"] = json!(["sh", "-c", script]);
    let run = bundle.run();
    assert!(run.create.status.success(), "{run:?}");
    assert!(run.stdout.ends_with("end\n"), "not to its end: {run:?}");
    let secret = std::fs::read(canary.join("secret")).unwrap();
    assert_eq!(secret, b"secret", "the canary changed");
    let calls = |line: &str| {
        CALLS
            .iter()
            .any(|(name, _)| line.starts_with(&format!("{name} ")))
    };
    let answered = run.stdout.lines().filter(|line| calls(line)).count();
    assert_eq!(answered, CALLS.len(), "a call without an answer: {run:?}");
    let mut worked = Vec::new();
    for line in run.stdout.lines().filter(|line| *line != "end") {
        match line.split_once(' ') {
            Some((_, errno)) if HELD.contains(&errno.parse().unwrap()) => {}
            _ => worked.push(line.to_owned()),
        }
    }
    worked
}

pub(crate) fn bundle(uid: u32, capabilities: &[&str]) -> Bundle {
    let mut bundle = Bundle::new(&[]);
    bundle.config["process"]["user"] = json!({"uid": uid, "gid": uid});
    bundle.config["process"]["capabilities"] = json!({"bounding": capabilities,
        "effective": capabilities, "permitted": capabilities});
    bundle
}

fn assert_held(who: &str, bundle: Bundle) {
    let worked = working(bundle);
    assert!(worked.is_empty(), "{who}: {worked:?}");
}

#[test]
fn a_user_other_than_root_gets_nowhere() {
    assert_held("uid 1000", bundle(1000, &[]));
}

#[test]
fn root_of_the_user_namespace_gets_nowhere() {
    assert_held("uid 0", bundle(0, GIVEN));
}

#[test]
fn no_single_capability_leads_out() {
    for capability in OPTIONAL {
        let capabilities = [GIVEN, &[capability]].concat();
        assert_held(capability, bundle(0, &capabilities));
    }
}

#[test]
fn all_capabilities_together_lead_nowhere() {
    let capabilities = [GIVEN, OPTIONAL].concat();
    assert_held("all capabilities", bundle(0, &capabilities));
}

#[test]
fn who_takes_the_masks_off_changes_nothing_of_the_host() {
    let mut bundle = bundle(0, &[GIVEN, OPTIONAL].concat());
    let masks = "for m in /proc/sys /proc/sysrq-trigger /proc/keys /proc/interrupts; do
        umount $m 2>/dev/null; done; mount -o remount,rw,bind /sys/fs/cgroup";
    bundle.config["process"]["env"] = json!(["PATH=/bin", format!("FIRST={masks}")]);
    let worked = working(bundle);
    // To read: counters of the machine, and its own keys. To write: what has
    // belonged to the process namespace since Linux 6.14.
    let allowed = ["interrupts", "keys", "pid-max"];
    assert!(
        worked.contains(&"interrupts".to_owned()),
        "still masked: {worked:?}"
    );
    assert!(
        worked.iter().all(|name| allowed.contains(&name.as_str())),
        "{worked:?}"
    );
}

#[test]
fn where_the_barriers_are_not_the_attempts_work() {
    // Not all of them: a host may be confined itself.
    let capabilities = [
        "CAP_SYS_ADMIN",
        "CAP_MKNOD",
        "CAP_SYSLOG",
        "CAP_NET_ADMIN",
        "CAP_SYS_PTRACE",
        "CAP_DAC_READ_SEARCH",
        "CAP_SYS_TIME",
        "CAP_SYS_MODULE",
        "CAP_SYS_RAWIO",
        "CAP_SYS_BOOT",
        "CAP_SYS_PACCT",
    ];
    let mut bundle = bundle(0, &[GIVEN, &capabilities].concat()).as_host_root();
    bundle.config["linux"]["maskedPaths"] = json!([]);
    bundle.config["linux"]["readonlyPaths"] = json!([]);
    for mount in bundle.config["mounts"].as_array_mut().unwrap() {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "ro");
        }
    }
    let worked = working(bundle);
    // One of each kind, and most of all: what is there differs between kernels.
    for name in [
        "core-pattern",
        "pid-max",
        "drop-caches",
        "interrupts",
        "keys",
        "kernel-addresses",
        "null-device",
        "mount-securityfs",
        "remount-layer",
        "limit-of-v2",
        "settimeofday",
        "acct",
        "swapon",
        "syslog-read",
    ] {
        let found = worked
            .iter()
            .any(|line| line.split(' ').next() == Some(name));
        assert!(found, "{name} is held by something else: {worked:?}");
    }
    assert!(worked.len() >= 40, "{} only: {worked:?}", worked.len());
}
