//! The filter of system calls, called from inside (P12, P18).

use dyno_tests::host::Host;

/// Calls each `name number arg…` line of its input and prints `name errno`.
const CALLER: &str = "while (<STDIN>) { my ($name, @call) = split; @call = map { 0 + $_ } @call; \
    push @call, 0 while @call < 6; $! = 0; my $got = syscall($call[0], @call[1..5]); \
    print \"$name \", ($got == -1 ? $! + 0 : 0), \"\\n\" }";

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;
const EAFNOSUPPORT: i32 = 97;

/// Name, number on x86-64, arguments, and what must come of it.
#[cfg(target_arch = "x86_64")]
const CALLS: &[(&str, &str, i32)] = &[
    // The control: these are let through, and the kernel answers.
    ("getpid", "39", 0),
    ("socket-inet", "41 2 1 0", 0),
    ("socket-inet6", "41 10 2 0", 0),
    ("socket-unix", "41 1 1 0", 0),
    ("socket-route", "41 16 3 0", 0),
    ("socketpair-inet", "53 2 1 0 0", EAFNOSUPPORT),
    // New namespaces, by all three calls.
    ("unshare-user", "272 268435456", EPERM),
    ("unshare-none", "272 0", EPERM),
    ("setns", "308 0 0", EPERM),
    ("clone-user", "56 268435473 0 0 0 0", EPERM),
    ("clone-net", "56 1073741841 0 0 0 0", EPERM),
    ("clone3", "435 0 0", ENOSYS),
    // Large parts of the kernel that no service needs.
    ("io_uring_setup", "425 1 0", EPERM),
    ("io_uring_enter", "426 0 0 0 0", EPERM),
    ("io_uring_register", "427 0 0 0 0", EPERM),
    ("bpf", "321 0 0 0", EPERM),
    ("userfaultfd", "323 0", EPERM),
    ("perf_event_open", "298 0 0 -1 -1 0", EPERM),
    ("add_key", "248 0 0 0 0 0", EPERM),
    ("request_key", "249 0 0 0 0", EPERM),
    ("keyctl", "250 0 0 0", EPERM),
    // Mounts, old and new.
    ("mount", "165 0 0 0 0 0", EPERM),
    ("umount2", "166 0 0", EPERM),
    ("pivot_root", "155 0 0", EPERM),
    ("open_tree", "428 -100 0 0", EPERM),
    ("move_mount", "429 0 0 0 0 0", EPERM),
    ("fsopen", "430 0 0", EPERM),
    ("fsconfig", "431 0 0 0 0 0", EPERM),
    ("fsmount", "432 0 0 0", EPERM),
    ("fspick", "433 0 0 0", EPERM),
    ("mount_setattr", "442 0 0 0 0 0", EPERM),
    // The machine itself.
    ("init_module", "175 0 0 0", EPERM),
    ("finit_module", "313 0 0 0", EPERM),
    ("delete_module", "176 0 0", EPERM),
    ("kexec_load", "246 0 0 0 0", EPERM),
    ("kexec_file_load", "320 0 0 0 0 0", EPERM),
    ("reboot", "169 0 0 0 0", EPERM),
    ("swapon", "167 0 0", EPERM),
    ("settimeofday", "164 0 0", EPERM),
    ("clock_settime", "227 0 0", EPERM),
    ("sethostname", "170 0 0", EPERM),
    ("acct", "163 0", EPERM),
    ("quotactl", "179 0 0 0 0", EPERM),
    ("syslog", "103 3 0 0", EPERM),
    ("iopl", "172 3", EPERM),
    ("ioperm", "173 0 1 1", EPERM),
    ("open_by_handle_at", "304 0 0 0", EPERM),
    ("personality-no-aslr", "135 262144", EPERM),
    // Families of sockets: as where the kernel has none of them.
    ("socket-packet", "41 17 3 0", EAFNOSUPPORT),
    ("socket-alg", "41 38 5 0", EAFNOSUPPORT),
    ("socket-vsock", "41 40 1 0", EAFNOSUPPORT),
    ("socket-bluetooth", "41 31 3 0", EAFNOSUPPORT),
    ("socket-xdp", "41 44 3 0", EAFNOSUPPORT),
    ("socket-tipc", "41 30 1 0", EAFNOSUPPORT),
    ("socket-audit", "41 16 3 9", EAFNOSUPPORT),
    ("socket-netfilter", "41 16 3 12", EAFNOSUPPORT),
    ("socket-uevent", "41 16 3 15", EAFNOSUPPORT),
    // Numbers of the future, and those of the other ABI of this machine.
    ("unknown", "600", ENOSYS),
    ("x32-getpid", "1073741863", ENOSYS),
];

#[cfg(target_arch = "x86_64")]
#[test]
fn each_call_has_the_answer_that_it_shall_have() {
    let host = Host::start();
    let mut lines = String::new();
    for (name, call, _) in CALLS {
        lines += &format!("{name} {call}\n");
    }
    let script = format!("printf '{lines}' | perl -e '{CALLER}'");
    for arguments in [&[][..], &["--user", "65534"], &["--cap-drop", "ALL"]] {
        let run = [&["run", "--rm"], arguments, &["host", "sh", "-c", &script]].concat();
        let output = host.ok(&run);
        let seen: Vec<&str> = output.lines().collect();
        let expected: Vec<String> = CALLS
            .iter()
            .map(|(name, _, errno)| format!("{name} {errno}"))
            .collect();
        assert_eq!(seen, expected, "{arguments:?}");
    }
}

#[test]
fn threads_and_children_of_an_executed_program_are_filtered_too() {
    let host = Host::start();
    let id = host.ok(&["run", "-d", "host", "sleep", "1000"]);
    for script in [
        "unshare -U true",
        "(unshare -n true)",
        "perl -e 'fork or exec qw(unshare -m true); wait; exit($? >> 8)'",
        "perl -e 'exec qw(setpriv --no-new-privs unshare -p true)'",
    ] {
        let output = host.run(&["exec", &id, "sh", "-c", script]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && error.contains("Operation not permitted"),
            "{script}: {output:?}"
        );
    }
}
