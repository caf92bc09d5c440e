//! The compiler against a plain reading of the profile, and the profiles we make.

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};
use proptest::prelude::*;
use serde_json::json;

use super::program::{ARCH, X32_BIT};
use super::syscalls::{LAST, SYSCALLS, number};
use super::*;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

fn errno(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()
}

/// An `int` as it arrives in a register.
fn word_of(int: i32) -> u64 {
    u64::from(int.cast_unsigned())
}

/// What the kernel would return, and how many instructions it takes.
fn run(filter: &Filter, arch: u32, number: u32, arguments: [u64; 6]) -> (u32, usize) {
    let mut data = vec![number, arch, 0, 0];
    for argument in arguments {
        data.push((argument & 0xffff_ffff) as u32);
        data.push((argument >> 32) as u32);
    }
    let (mut at, mut steps, mut accumulator) = (0, 0, 0_u32);
    loop {
        let step = filter.program()[at];
        at += 1;
        steps += 1;
        let holds = match step.code {
            0x20 => {
                accumulator = data[step.k as usize / 4];
                continue;
            }
            0x54 => {
                accumulator &= step.k;
                continue;
            }
            0x05 => {
                at += step.k as usize;
                continue;
            }
            0x06 => return (step.k, steps),
            0x15 => accumulator == step.k,
            0x25 => accumulator > step.k,
            0x35 => accumulator >= step.k,
            other => panic!("instruction {other:#x}"),
        };
        at += usize::from(if holds { step.jt } else { step.jf });
    }
}

/// The verdict of a filter for a call by name.
fn verdict(filter: &Filter, name: &str, arguments: [u64; 6]) -> u32 {
    run(filter, ARCH, number(name).unwrap(), arguments).0
}

/// A profile read as its documentation says, without any of the compiler's steps.
fn by_definition(profile: &LinuxSeccomp, name: &str, arguments: [u64; 6]) -> u32 {
    let holds = |argument: &LinuxSeccompArg| {
        let actual = arguments[argument.index()];
        match argument.op() {
            LinuxSeccompOperator::ScmpCmpEq => actual == argument.value(),
            LinuxSeccompOperator::ScmpCmpNe => actual != argument.value(),
            LinuxSeccompOperator::ScmpCmpLt => actual < argument.value(),
            LinuxSeccompOperator::ScmpCmpLe => actual <= argument.value(),
            LinuxSeccompOperator::ScmpCmpGt => actual > argument.value(),
            LinuxSeccompOperator::ScmpCmpGe => actual >= argument.value(),
            LinuxSeccompOperator::ScmpCmpMaskedEq => {
                actual & argument.value() == argument.value_two().unwrap_or(0)
            }
        }
    };
    let matches = |rule: &&LinuxSyscall| {
        let arguments = rule.args().as_deref().unwrap_or_default();
        let mut indices: Vec<usize> = arguments.iter().map(LinuxSeccompArg::index).collect();
        indices.sort_unstable();
        let doubled = indices.windows(2).any(|pair| pair[0] == pair[1]);
        rule.names().iter().any(|n| n == name)
            && if doubled {
                arguments.iter().any(holds)
            } else {
                arguments.iter().all(holds)
            }
    };
    let rule = profile.syscalls().iter().flatten().find(matches);
    rule.map_or_else(
        || profile.default_action().as_u32(profile.default_errno_ret()),
        |rule| rule.action().as_u32(rule.errno_ret()),
    )
}

const NAMES: [&str; 6] = ["read", "write", "open", "socket", "clone", "openat2"];

/// Around the boundary of the halves, where a compiler goes wrong.
fn word() -> impl Strategy<Value = u64> {
    let half = || {
        prop_oneof![
            0_u64..3,
            Just(0x7fff_ffff),
            Just(0x8000_0000),
            0xffff_fffe_u64..=0xffff_ffff
        ]
    };
    (half(), half()).prop_map(|(high, low)| high << 32 | low)
}

fn rule() -> impl Strategy<Value = LinuxSyscall> {
    use LinuxSeccompOperator as Op;
    let operator = prop::sample::select(vec![
        Op::ScmpCmpEq,
        Op::ScmpCmpNe,
        Op::ScmpCmpLt,
        Op::ScmpCmpLe,
        Op::ScmpCmpGt,
        Op::ScmpCmpGe,
        Op::ScmpCmpMaskedEq,
    ]);
    let argument = (0_usize..6, operator, word(), word()).prop_map(|(index, op, value, two)| {
        let builder = LinuxSeccompArgBuilder::default()
            .index(index)
            .op(op)
            .value(value);
        builder.value_two(two & value).build().unwrap()
    });
    let action = prop_oneof![
        Just((LinuxSeccompAction::ScmpActAllow, None)),
        Just((LinuxSeccompAction::ScmpActKillProcess, None)),
        Just((LinuxSeccompAction::ScmpActLog, None)),
        Just((LinuxSeccompAction::ScmpActTrap, None)),
        (1_u32..4096).prop_map(|errno| (LinuxSeccompAction::ScmpActErrno, Some(errno))),
        (0_u32..65536).prop_map(|data| (LinuxSeccompAction::ScmpActTrace, Some(data))),
    ];
    let names = prop::sample::subsequence(NAMES.to_vec(), 1..NAMES.len());
    let arguments = prop::option::of(prop::collection::vec(argument, 1..5));
    (names, action, arguments).prop_map(|(names, (action, errno), arguments)| {
        let mut rule = LinuxSyscall::default();
        rule.set_names(names.into_iter().map(str::to_owned).collect());
        rule.set_action(action)
            .set_errno_ret(errno)
            .set_args(arguments);
        rule
    })
}

fn profile() -> impl Strategy<Value = LinuxSeccomp> {
    let action = prop_oneof![
        Just((LinuxSeccompAction::ScmpActAllow, None)),
        Just((LinuxSeccompAction::ScmpActKill, None)),
        (1_u32..4096).prop_map(|errno| (LinuxSeccompAction::ScmpActErrno, Some(errno))),
    ];
    let rules = prop::collection::vec(rule(), 0..10);
    (action, rules).prop_map(|((action, errno), rules)| {
        let mut profile = LinuxSeccomp::default();
        profile
            .set_default_action(action)
            .set_default_errno_ret(errno)
            .set_syscalls(Some(rules));
        profile
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn the_program_decides_as_the_profile_reads(
        profile in profile(),
        name in prop::sample::select(NAMES.to_vec()),
        arguments in prop::array::uniform6(word()),
    ) {
        let filter = compile(&profile).unwrap();
        let expected = by_definition(&profile, name, arguments);
        prop_assert_eq!(verdict(&filter, name, arguments), expected);
        let (nr, x32) = (number(name).unwrap(), libc::ENOSYS);
        prop_assert_eq!(run(&filter, ARCH, nr | X32_BIT, arguments).0, errno(x32));
        let i386 = 0x4000_0003;
        prop_assert_eq!(run(&filter, i386, nr, arguments).0, libc::SECCOMP_RET_KILL_PROCESS);
    }
}

fn from_json(profile: serde_json::Value) -> Result<Filter, Error> {
    compile(&serde_json::from_value(profile).unwrap())
}

#[test]
fn calls_newer_than_the_table_do_not_exist_where_the_default_is_an_errno() {
    let filter = compile(&default_profile(&[])).unwrap();
    for number in [LAST + 1, 400, 0x3fff_ffff] {
        assert_eq!(
            run(&filter, ARCH, number, [0; 6]).0,
            errno(libc::ENOSYS),
            "{number}"
        );
    }
    assert_eq!(
        run(&filter, ARCH, u32::MAX, [0; 6]).0,
        errno(libc::ENOSYS),
        "syscall(-1)"
    );
    let open = from_json(json!({ "defaultAction": "SCMP_ACT_ALLOW" })).unwrap();
    assert_eq!(run(&open, ARCH, LAST + 1, [0; 6]).0, ALLOW);
}

#[test]
fn an_unknown_name_may_be_allowed_but_not_denied() {
    let rule = |default: &str, name: &str, action: &str| json!({ "defaultAction": default, "syscalls": [{ "names": [name], "action": action }] });
    let (allow, deny) = ("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO");
    assert!(from_json(rule(deny, "from_the_future", allow)).is_ok());
    assert!(
        from_json(rule(deny, "from_the_future", deny)).is_ok(),
        "it is denied anyway"
    );
    let error = from_json(rule(allow, "from_the_future", deny)).unwrap_err();
    assert!(matches!(error, Error::UnknownCall { .. }), "{error}");
    assert!(
        from_json(rule(allow, "chown32", deny)).is_ok(),
        "32-bit calls cannot be made"
    );
}

#[test]
fn what_cannot_be_enforced_is_refused() {
    let profile =
        |rule: serde_json::Value| json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule] });
    let args = |args| json!({ "names": ["read"], "action": "SCMP_ACT_ALLOW", "args": args });
    let cases = [
        (
            profile(json!({ "names": ["read"], "action": "SCMP_ACT_NOTIFY" })),
            "seccomp: SCMP_ACT_NOTIFY is not supported: a notification listener is needed for it",
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "listenerPath": "/x" }),
            "seccomp: listenerPath is not supported: a notification listener is needed for it",
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096 }),
            "seccomp: SCMP_ACT_ERRNO cannot return 4096",
        ),
        (
            profile(json!({ "names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1 })),
            "seccomp: SCMP_ACT_ALLOW cannot return 1",
        ),
        (
            profile(args(
                json!([{ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }]),
            )),
            "seccomp: read: argument 6 does not exist, the last is 5",
        ),
        (
            profile(args(json!([
                { "index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ" }
            ]))),
            "seccomp: read: argument 0 & 0x1 can never be 0x2",
        ),
    ];
    for (profile, message) in cases {
        assert_eq!(from_json(profile).unwrap_err().to_string(), message);
    }
    let endless = json!({ "index": 0, "value": u64::MAX, "op": "SCMP_CMP_NE" });
    let rule = args(json!(vec![endless; 5000]));
    assert!(matches!(
        from_json(profile(rule)),
        Err(Error::TooLong { .. })
    ));
}

#[test]
fn flags_reach_the_kernel() {
    let flags = json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]);
    let filter = from_json(json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": flags })).unwrap();
    assert_eq!(filter.flags(), 0b110);
}

#[test]
fn a_call_is_found_in_few_instructions() {
    let filter = compile(&default_profile(&[])).unwrap();
    let steps = |number| run(&filter, ARCH, number, [0; 6]).1;
    let all: Vec<usize> = SYSCALLS.iter().map(|(_, number)| steps(*number)).collect();
    let mean = all.iter().sum::<usize>() / all.len();
    assert!(mean <= 13, "{mean} on average");
    assert!(filter.program().len() < 512, "{}", filter.program().len());
}

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
    let opened = SYSCALLS
        .iter()
        .filter(|(name, _)| verdict(&chroot, name, [0; 6]) != verdict(&plain, name, [0; 6]));
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
            assert!(number(name).is_some(), "{name} is misspelt");
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
