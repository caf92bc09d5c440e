//! One profile for several ABIs.

use serde_json::json;

use super::*;
use crate::seccomp::abi::{HIDDEN_ON_I386, MULTIPLEXERS};
use crate::seccomp::syscalls::row;

#[test]
fn other_machines_may_be_listed_and_the_native_abi_is_always_open() {
    let profile = |archs| {
        from_json(json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": archs,
            "syscalls": [{ "names": ["getuid"], "action": "SCMP_ACT_ALLOW" }],
        }))
        .unwrap()
    };
    for archs in [json!([]), json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"])] {
        let filter = profile(archs);
        assert_eq!(verdict(&filter, "getuid", [0; 6]), ALLOW);
        let closed = verdict_in(&filter, Abi::I386, "getuid", [0; 6]);
        assert_eq!(closed, libc::SECCOMP_RET_KILL_PROCESS);
    }
    let filter = profile(json!(["SCMP_ARCH_X86"]));
    for abi in [Abi::X86_64, Abi::I386] {
        assert_eq!(verdict_in(&filter, abi, "getuid", [0; 6]), ALLOW);
    }
}

/// A rule for the call of each ABI.
fn in_all(syscalls: serde_json::Value) -> Filter {
    from_json(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": syscalls,
    }))
    .unwrap()
}

#[test]
fn a_denied_call_is_denied_under_each_number_that_it_has() {
    let deny = |name: &str| in_all(json!([{ "names": [name], "action": "SCMP_ACT_ERRNO" }]));
    for name in ["ioctl", "execve", "mkdir", "openat2", "ptrace"] {
        for abi in Abi::ALL {
            let answer = verdict_in(&deny(name), abi, name, [0; 6]);
            assert_eq!(answer, errno(libc::EPERM), "{name} {abi:?}");
        }
    }
    let socketcall =
        |name, call| verdict_in(&deny(name), Abi::I386, "socketcall", [call, 0, 0, 0, 0, 0]);
    assert_eq!(socketcall("connect", 3), errno(libc::EPERM));
    assert_eq!(socketcall("connect", 2), ALLOW);
    assert_eq!(
        socketcall("accept", 5),
        errno(libc::EPERM),
        "it has no number of its own"
    );
    let ipc = |call| verdict_in(&deny("shmat"), Abi::I386, "ipc", [call, 0, 0, 0, 0, 0]);
    assert_eq!(ipc(21), errno(libc::EPERM));
    assert_eq!(ipc(0x1_0015), errno(libc::EPERM), "a version above it");
    assert_eq!(ipc(23), ALLOW);
}

#[test]
fn what_cannot_be_seen_is_answered_strictly() {
    let vsock = json!({ "index": 0, "value": 40, "op": "SCMP_CMP_EQ" });
    let executable = json!({ "index": 2, "value": 4, "valueTwo": 4, "op": "SCMP_CMP_MASKED_EQ" });
    let rules = json!([
        { "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97, "args": [vsock] },
        { "names": ["mmap"], "action": "SCMP_ACT_ERRNO", "args": [executable] },
    ]);
    let filter = in_all(rules.clone());
    let i386 = |name, first| verdict_in(&filter, Abi::I386, name, [first, 0, 0, 0, 0, 0]);
    assert_eq!(i386("socket", 40), errno(97));
    assert_eq!(i386("socket", 2), ALLOW);
    assert_eq!(i386("socketcall", 1), errno(97), "perhaps of that family");
    assert_eq!(i386("mmap", 0), errno(libc::EPERM), "perhaps executable");
    assert_eq!(verdict(&filter, "mmap", [0, 0, 1, 0, 0, 0]), ALLOW);
    // Who names the multiplexer has decided.
    let mut rules = rules;
    let log = json!({ "names": ["socketcall"], "action": "SCMP_ACT_LOG" });
    rules.as_array_mut().unwrap().push(log);
    let answer = verdict_in(&in_all(rules), Abi::I386, "socketcall", [1, 0, 0, 0, 0, 0]);
    assert_eq!(answer, libc::SECCOMP_RET_LOG);
}

#[test]
fn a_negative_number_is_one_in_32_bits_too() {
    let minus_one = json!({ "index": 0, "value": u64::MAX, "op": "SCMP_CMP_EQ" });
    let filter = in_all(json!([
        { "names": ["close"], "action": "SCMP_ACT_ERRNO", "args": [minus_one] },
    ]));
    let close = |abi, fd| verdict_in(&filter, abi, "close", [fd, 0, 0, 0, 0, 0]);
    assert_eq!(close(Abi::I386, 0xffff_ffff), errno(libc::EPERM));
    assert_eq!(close(Abi::X86_64, u64::MAX), errno(libc::EPERM));
    assert_eq!(close(Abi::X86_64, 0xffff_ffff), ALLOW, "as it is written");
}

#[test]
fn a_rule_without_conditions_decides_over_those_with() {
    let seven = json!([{ "index": 1, "value": 7, "op": "SCMP_CMP_EQ" }]);
    let some =
        json!({ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2, "args": seven });
    let all = json!({ "names": ["mkdir"], "action": "SCMP_ACT_LOG" });
    let nothing = json!({ "names": ["mkdir"], "action": "SCMP_ACT_ALLOW" });
    let mkdir = |rules| verdict(&in_all(rules), "mkdir", [0, 7, 0, 0, 0, 0]);
    assert_eq!(mkdir(json!([some, all])), libc::SECCOMP_RET_LOG);
    assert_eq!(mkdir(json!([all, some])), libc::SECCOMP_RET_LOG);
    assert_eq!(mkdir(json!([some, nothing])), errno(2));
    assert_eq!(
        mkdir(json!([nothing, some])),
        errno(2),
        "the default said again"
    );
}

#[test]
fn every_call_that_i386_treats_otherwise_is_in_the_table() {
    let calls = MULTIPLEXERS.iter().flat_map(|one| one.calls);
    let calls = calls.map(|(_, name)| *name);
    let multiplexers = MULTIPLEXERS.iter().map(|one| one.name);
    for name in calls.chain(multiplexers) {
        assert!(row(name).is_some(), "{name}");
    }
    for (name, first) in HIDDEN_ON_I386 {
        assert!(number(name, Abi::I386).is_some(), "{name}");
        assert_eq!(Abi::I386.first_hidden(name), first);
        assert_eq!(Abi::X32.first_hidden(name), 6, "none of six");
    }
}
