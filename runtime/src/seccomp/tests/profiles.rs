//! The profiles that we make.

use oci_spec::runtime::{Arch, Capability, LinuxSyscall};

use super::*;
use crate::seccomp::syscalls::{SYSCALLS, row};

// P12, line by line.
#[test]
fn the_default_profile_refuses_what_containers_have_escaped_by() {
    let filter = compile(&default_profile(&[])).unwrap();
    let never = "
        io_uring_setup io_uring_enter io_uring_register bpf userfaultfd keyctl add_key
        request_key perf_event_open mount umount2 fsopen fsmount fsconfig fspick
        move_mount open_tree open_tree_attr mount_setattr pivot_root unshare setns
        kexec_load kexec_file_load init_module finit_module delete_module reboot swapon
        swapoff open_by_handle_at iopl ioperm settimeofday clock_settime acct quotactl
        syslog vhangup uselib nfsservctl lookup_dcookie
    ";
    for name in never.split_whitespace() {
        assert_eq!(verdict(&filter, name, [0; 6]), errno(libc::EPERM), "{name}");
    }
    assert_eq!(verdict(&filter, "clone3", [0; 6]), errno(libc::ENOSYS));
    for flag in [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWPID,
    ] {
        let flags = word_of(libc::SIGCHLD | flag);
        assert_eq!(
            verdict(&filter, "clone", [flags, 0, 0, 0, 0, 0]),
            errno(libc::EPERM)
        );
    }
    let thread = 0x003d_0f00;
    assert_eq!(verdict(&filter, "clone", [thread, 0, 0, 0, 0, 0]), ALLOW);
    let personality = |value| verdict(&filter, "personality", [value, 0, 0, 0, 0, 0]);
    assert_eq!(personality(0xffff_ffff), ALLOW);
    assert_eq!(
        personality(0x004_0000),
        errno(libc::EPERM),
        "ADDR_NO_RANDOMIZE"
    );
}

#[test]
fn the_default_profile_knows_four_socket_families() {
    let filter = compile(&default_profile(&[])).unwrap();
    let socket = |family: i32, protocol: i32| {
        verdict(
            &filter,
            "socket",
            [word_of(family), 3, word_of(protocol), 0, 0, 0],
        )
    };
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
        assert_eq!(socket(family, 0), ALLOW);
    }
    assert_eq!(socket(libc::AF_NETLINK, libc::NETLINK_ROUTE), ALLOW);
    for protocol in 1..32 {
        assert_eq!(
            socket(libc::AF_NETLINK, protocol),
            errno(libc::EAFNOSUPPORT)
        );
    }
    for family in (0..200).filter(|f| ![1, 2, 10, 16].contains(f)) {
        assert_eq!(socket(family, 0), errno(libc::EAFNOSUPPORT), "{family}");
    }
    let pair = |family: u64| verdict(&filter, "socketpair", [family, 1, 0, 0, 0, 0]);
    assert_eq!((pair(1), pair(30)), (ALLOW, errno(libc::EAFNOSUPPORT)));
}

#[test]
fn a_capability_opens_what_it_is_for_and_nothing_else() {
    let plain = compile(&default_profile(&[])).unwrap();
    let admin = compile(&default_profile(&[Capability::SysAdmin])).unwrap();
    for name in ["mount", "setns", "unshare", "clone3"] {
        assert_eq!(verdict(&admin, name, [0; 6]), ALLOW, "{name}");
    }
    let new_user = word_of(libc::CLONE_NEWUSER | libc::SIGCHLD);
    assert_eq!(verdict(&admin, "clone", [new_user, 0, 0, 0, 0, 0]), ALLOW);
    for name in [
        "init_module",
        "kexec_load",
        "io_uring_setup",
        "keyctl",
        "reboot",
    ] {
        assert_eq!(verdict(&admin, name, [0; 6]), errno(libc::EPERM), "{name}");
    }
    let chroot = compile(&default_profile(&[Capability::SysChroot])).unwrap();
    let native = SYSCALLS
        .iter()
        .filter(|(name, _)| number(name, Abi::X86_64).is_some());
    let opened =
        native.filter(|(name, _)| verdict(&chroot, name, [0; 6]) != verdict(&plain, name, [0; 6]));
    assert_eq!(
        opened.map(|(name, _)| *name).collect::<Vec<_>>(),
        ["chroot"]
    );
}

#[test]
fn profiles_are_written_for_the_native_abi_and_survive_json() {
    for profile in [default_profile(&[Capability::SysAdmin]), jail_profile()] {
        assert_eq!(
            profile.architectures().as_deref(),
            Some([Arch::ScmpArchX86_64].as_slice())
        );
        let text = serde_json::to_string(&profile).unwrap();
        let again: LinuxSeccomp = serde_json::from_str(&text).unwrap();
        assert_eq!(again, profile);
        for name in profile
            .syscalls()
            .iter()
            .flatten()
            .flat_map(LinuxSyscall::names)
        {
            assert!(row(name).is_some(), "{name} is misspelt");
        }
    }
}

// P8
#[test]
fn the_jail_has_no_sockets_no_processes_and_no_way_out() {
    let filter = compile(&jail_profile()).unwrap();
    let refused = "
        socket socketpair connect fork vfork kill ptrace mount unshare setns chroot
        pivot_root ioctl open_by_handle_at process_vm_writev setuid capset bpf
        io_uring_setup memfd_create pidfd_getfd
    ";
    for name in refused.split_whitespace() {
        assert_eq!(verdict(&filter, name, [0; 6]), errno(libc::EPERM), "{name}");
    }
    let clone = |flags: i32| verdict(&filter, "clone", [word_of(flags), 0, 0, 0, 0, 0]);
    assert_eq!(clone(libc::SIGCHLD), errno(libc::EPERM), "a process");
    assert_eq!(clone(0x003d_0f00), ALLOW, "a thread");
    assert_eq!(clone(0x003d_0f00 | libc::CLONE_NEWNS), errno(libc::EPERM));
    assert_eq!(verdict(&filter, "openat2", [0; 6]), ALLOW);
}
