//! What is refused, what is answered, and which flags arrive.

use serde_json::json;

use super::*;

#[test]
fn calls_newer_than_the_table_do_not_exist_where_the_default_is_an_errno() {
    let filter = compile(&default_profile(&[])).unwrap();
    for number in [470, 400, 0x3fff_ffff] {
        assert_eq!(
            run(&filter, ARCH_X86_64, number, [0; 6]).0,
            errno(libc::ENOSYS),
            "{number}"
        );
    }
    assert_eq!(
        run(&filter, ARCH_X86_64, u32::MAX, [0; 6]).0,
        errno(libc::ENOSYS),
        "syscall(-1)"
    );
    let open = from_json(json!({ "defaultAction": "SCMP_ACT_ALLOW" })).unwrap();
    assert_eq!(run(&open, ARCH_X86_64, 470, [0; 6]).0, ALLOW);
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
    let notify = |name| json!({ "names": ["read", name], "action": "SCMP_ACT_NOTIFY" });
    let mut of_sendmsg = profile(notify("sendmsg"));
    of_sendmsg["listenerPath"] = json!("/x");
    let cases = [
        (
            profile(notify("mkdir")),
            "linux.seccomp: SCMP_ACT_NOTIFY needs a listenerPath",
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "listenerMetadata": "x" }),
            "linux.seccomp.listenerMetadata needs a listenerPath",
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x" }),
            "linux.seccomp: defaultAction cannot be SCMP_ACT_NOTIFY: the listener itself is \
             handed over by sendmsg",
        ),
        (
            of_sendmsg,
            "linux.seccomp: sendmsg cannot be SCMP_ACT_NOTIFY: the listener itself is handed \
             over by sendmsg",
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096 }),
            "linux.seccomp: errnoRet: SCMP_ACT_ERRNO cannot return 4096",
        ),
        (
            profile(json!({ "names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1 })),
            "linux.seccomp: errnoRet: SCMP_ACT_ALLOW cannot return 1",
        ),
        (
            profile(args(
                json!([{ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }]),
            )),
            "linux.seccomp.syscalls: read: argument 6 does not exist, the last is 5",
        ),
        (
            profile(args(json!([
                { "index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ" }
            ]))),
            "linux.seccomp.syscalls: read: argument 0 & 0x1 can never be 0x2",
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
fn errors_are_numbers_where_actions_have_one_and_eperm_by_default() {
    let cases = [
        ("ERRNO", None, 0x5_0001),
        ("ERRNO", Some(0), 0x5_0000),
        ("ERRNO", Some(4095), 0x5_0fff),
        ("TRACE", None, 0x7ff0_0001),
        ("TRACE", Some(0xffff), 0x7ff0_ffff),
        ("KILL", None, 0),
        ("KILL_THREAD", None, 0),
        ("KILL_PROCESS", None, 0x8000_0000),
        ("TRAP", None, 0x3_0000),
        ("LOG", None, 0x7ffc_0000),
    ];
    for (action, value, expected) in cases {
        let action = format!("SCMP_ACT_{action}");
        let mut rule = json!({ "names": ["mkdir"], "action": action });
        let mut profile = json!({ "defaultAction": action });
        if let Some(value) = value {
            rule["errnoRet"] = json!(value);
            profile["defaultErrnoRet"] = json!(value);
        }
        let filter = from_json(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] }));
        assert_eq!(
            verdict(&filter.unwrap(), "mkdir", [0; 6]),
            expected,
            "{action}"
        );
        let filter = from_json(profile).unwrap();
        assert_eq!(verdict(&filter, "mkdir", [0; 6]), expected, "{action}");
    }
}

/// Which flags arrive for both filters of a profile.
fn flags_of(flags: &[&str]) -> (u32, u32) {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }],
        "listenerPath": "/agent",
        "flags": flags,
    });
    let profile = serde_json::from_value(profile).unwrap();
    let notifier = compile_notifier(&profile).unwrap().unwrap();
    (
        compile(&profile).unwrap().flags(),
        notifier.filter().flags(),
    )
}

#[test]
fn flags_reach_the_kernel() {
    let listener = 1 << 3;
    assert_eq!(flags_of(&[]), (0, listener));
    let plain = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"];
    assert_eq!(flags_of(&plain), (0b110, 0b110 | listener));
    // The kernel takes these together only where ESRCH is asked for, too.
    let tsync = ["SECCOMP_FILTER_FLAG_TSYNC"];
    assert_eq!(flags_of(&tsync), (1, 1 | 1 << 4 | listener));
    // It waits for an answer, so it is of the filter that asks for one.
    let killable = ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"];
    assert_eq!(flags_of(&killable), (0, 1 << 5 | listener));
}

#[test]
fn a_listener_without_anything_to_notify_of_is_ignored() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": "/agent",
        "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
    });
    let profile = serde_json::from_value(profile).unwrap();
    assert!(compile_notifier(&profile).unwrap().is_none());
    assert_eq!(compile(&profile).unwrap().flags(), 0);
}

#[test]
fn unknown_words_are_refused_by_name() {
    for (property, value) in [
        ("flags", json!(["SECCOMP_FILTER_FLAG_NEW_LISTENER"])),
        ("flags", json!(["SECCOMP_FILTER_FLAG_FUTURE"])),
        ("architectures", json!(["SCMP_ARCH_FUTURE"])),
        ("defaultAction", json!("SCMP_ACT_FUTURE")),
    ] {
        let mut profile = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
        profile[property] = value.clone();
        let error = serde_json::from_value::<LinuxSeccomp>(profile).unwrap_err();
        let word = value[0].as_str().or(value.as_str()).unwrap();
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn what_is_said_to_be_supported_compiles_and_is_all_there_is() {
    let support = serde_json::to_value(support()).unwrap();
    let list = |name: &str| support[name].as_array().unwrap().clone();
    assert_eq!(support["enabled"], true);
    for (name, count) in [
        ("actions", 9),
        ("operators", 7),
        ("archs", 3),
        ("knownFlags", 4),
    ] {
        assert_eq!(list(name).len(), count, "{name}");
    }
    // Linux 6.1 knows all of them.
    assert_eq!(support["supportedFlags"], support["knownFlags"]);
    for action in list("actions") {
        for operator in list("operators") {
            let condition = json!({ "index": 0, "value": 1, "valueTwo": 1, "op": operator });
            let profile = json!({
                "defaultAction": "SCMP_ACT_ERRNO",
                "architectures": support["archs"],
                "flags": support["knownFlags"],
                "listenerPath": "/agent",
                "syscalls": [{ "names": ["read"], "action": action, "args": [condition] }],
            });
            let profile = serde_json::from_value(profile).unwrap();
            compile(&profile).unwrap();
            let notifier = compile_notifier(&profile).unwrap();
            assert_eq!(notifier.is_some(), action == "SCMP_ACT_NOTIFY");
        }
    }
}
