//! `features`: each thing that is listed is asked for, and had.

use std::process::Output;

use dyno_tests::bundle::{Bundle, ID_BASE};
use serde_json::{Value, json};

fn features() -> Value {
    let output = Bundle::new(&["true"]).call(&["features"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A list of names in the features.
fn listed(pointer: &str) -> Vec<String> {
    let features = features();
    let list = features.pointer(pointer).and_then(Value::as_array);
    let list = list.unwrap_or_else(|| panic!("{pointer} in {features}"));
    assert!(!list.is_empty(), "{pointer}");
    let names = list.iter().map(|name| name.as_str().unwrap().to_owned());
    names.collect()
}

fn runs(bundle: &Bundle, what: &str) -> String {
    let output = bundle.run_attached();
    assert!(output.status.success(), "{what}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn refusal(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_hook_is_run() {
    for name in listed("/hooks") {
        let mut bundle = Bundle::new(&["true"]).as_host_root();
        // Those of the container's namespaces see its root, or soon do.
        let inside = name == "startContainer";
        let seen = match inside {
            true => bundle.path().join("upper/seen"),
            false => bundle.path().join("seen"),
        };
        let path = match inside {
            true => "/seen".into(),
            false => seen.to_string_lossy().into_owned(),
        };
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", format!("echo x > {path}")]});
        bundle.config["hooks"] = json!({name.clone(): [hook]});
        runs(&bundle, &name);
        assert!(seen.exists(), "{name} was not run");
    }
}

#[test]
fn every_mount_option_is_taken() {
    let bind = |options: &[&str]| {
        let mut bundle = Bundle::new(&["true"]).as_host_root();
        let source = bundle.path().join("layer");
        bundle.mount(
            json!({"destination": "/tmp", "type": "none", "source": source,
            "options": options}),
        );
        bundle
    };
    for option in listed("/mountOptions") {
        let mut bundle = bind(&["rbind", &option]);
        let last = bundle.config["mounts"].as_array_mut().unwrap();
        let last = last.last_mut().unwrap();
        match &*option {
            // Of a new file system.
            "sync" | "async" | "dirsync" | "lazytime" | "nolazytime" | "mand" | "nomand"
            | "tmpcopyup" | "defaults" | "iversion" | "noiversion" | "silent" | "loud" => {
                last["type"] = json!("tmpfs");
                last["source"] = json!("tmpfs");
                last["options"] = json!([option]);
            }
            "idmap" | "ridmap" => {
                let mapping = json!([{"containerID": 0, "hostID": ID_BASE, "size": 1000}]);
                last["uidMappings"] = mapping.clone();
                last["gidMappings"] = mapping;
            }
            // What the container has already.
            "remount" => {
                last["destination"] = json!("/dev/shm");
                last["type"] = json!("tmpfs");
                last["options"] = json!([option, "ro"]);
            }
            _ => {}
        }
        runs(&bundle, &option);
    }
    let message = refusal(&bind(&["rbind", "no-such-option"]).run_attached());
    assert!(message.contains("no-such-option"), "{message}");
}

#[test]
fn every_namespace_is_a_new_one() {
    let mut bundle = Bundle::script("for n in /proc/self/ns/*; do readlink $n; done");
    let kinds = listed("/linux/namespaces");
    bundle.config["linux"]["namespaces"] = kinds.iter().map(|kind| json!({"type": kind})).collect();
    let inside = runs(&bundle, "all namespaces");
    for kind in kinds {
        let file = match &*kind {
            "mount" => "mnt",
            "network" => "net",
            kind => kind,
        };
        let ours = std::fs::read_link(format!("/proc/self/ns/{file}")).unwrap();
        let ours = ours.to_string_lossy();
        assert!(inside.contains(&format!("{file}:[")), "{kind}: {inside}");
        assert!(!inside.lines().any(|line| line == ours), "{kind}: {inside}");
    }
}

#[test]
fn every_capability_can_be_had_as_far_as_the_host_has_it() {
    let names = listed("/linux/capabilities");
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap();
    assert_eq!(names.len(), last.trim().parse::<usize>().unwrap() + 1);
    let status = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("CapBnd:"));
        u64::from_str_radix(line.unwrap()[7..].trim(), 16).unwrap()
    };
    let host = status(&std::fs::read_to_string("/proc/self/status").unwrap());
    let all: Vec<&String> = names
        .iter()
        .enumerate()
        .filter(|(number, _)| host >> number & 1 == 1)
        .map(|(_, name)| name)
        .collect();
    let mut bundle = Bundle::script("cat /proc/self/status").as_host_root();
    bundle.config["process"]["capabilities"] =
        json!({"bounding": all, "effective": all, "permitted": all});
    assert_eq!(status(&runs(&bundle, "all capabilities")), host);
    let unknown = json!(["CAP_NO_SUCH"]);
    bundle.config["process"]["capabilities"] = json!({"bounding": unknown});
    assert!(refusal(&bundle.run_attached()).contains("CAP_NO_SUCH"));
}

#[test]
fn every_word_of_seccomp_is_understood() {
    let filtered = |seccomp: Value| {
        let mut bundle = Bundle::new(&["echo", "it runs"]);
        bundle.config["linux"]["seccomp"] = seccomp;
        bundle
    };
    let with_rule = |rule: Value| {
        let mut profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": listed("/linux/seccomp/archs"),
            "flags": listed("/linux/seccomp/supportedFlags"),
            "syscalls": [rule],
        });
        // What is waited for needs somebody who answers.
        profile["flags"]
            .as_array_mut()
            .unwrap()
            .retain(|flag| flag != "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV");
        filtered(profile)
    };
    for action in listed("/linux/seccomp/actions") {
        let rule = json!({"names": ["acct"], "action": action});
        let bundle = with_rule(rule);
        match &*action {
            // It is understood, and asks for what it needs.
            "SCMP_ACT_NOTIFY" => {
                assert!(refusal(&bundle.run_attached()).contains("listenerPath"));
            }
            action => assert_eq!(runs(&bundle, action), "it runs\n"),
        }
    }
    for operator in listed("/linux/seccomp/operators") {
        let argument = json!({"index": 0, "value": 1 << 20, "valueTwo": 1 << 20, "op": operator});
        let rule = json!({"names": ["acct"], "action": "SCMP_ACT_ERRNO", "args": [argument]});
        assert_eq!(runs(&with_rule(rule), &operator), "it runs\n");
    }
    let unknown = filtered(json!({"defaultAction": "SCMP_ACT_NO_SUCH"}));
    assert!(refusal(&unknown.run_attached()).contains("SCMP_ACT_NO_SUCH"));
}

#[test]
fn every_memory_policy_is_understood() {
    for mode in listed("/linux/memoryPolicy/modes") {
        let nodes = !["MPOL_DEFAULT", "MPOL_LOCAL"].contains(&&*mode);
        let mut bundle = Bundle::new(&["true"]);
        bundle.config["linux"]["memoryPolicy"] = match nodes {
            true => json!({"mode": mode, "nodes": "0"}),
            false => json!({"mode": mode}),
        };
        let output = bundle.run_attached();
        // Newer than the oldest kernel that we run on.
        let told = String::from_utf8_lossy(&output.stderr);
        let kernel = told.contains("set linux.memoryPolicy: Invalid argument");
        let newer = mode == "MPOL_WEIGHTED_INTERLEAVE" && kernel;
        assert!(output.status.success() || newer, "{mode}: {told}");
    }
    for flag in listed("/linux/memoryPolicy/flags") {
        let mut bundle = Bundle::new(&["true"]);
        let policy = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]});
        bundle.config["linux"]["memoryPolicy"] = policy;
        runs(&bundle, &flag);
    }
}

#[test]
fn classes_of_cache_and_bandwidth_are_refused_where_the_kernel_has_none() {
    let rdt = &features()["linux"]["intelRdt"];
    for property in ["enabled", "schemata", "monitoring"] {
        assert_eq!(rdt[property], true, "{property}");
    }
    if std::path::Path::new("/sys/fs/resctrl/schemata").exists() {
        dyno_tests::skip("this host has a resctrl file system");
        return;
    }
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    for (class, told) in [
        (json!({"closID": "x"}), "resctrl"),
        (json!({"schemata": ["L3:0=f"]}), "resctrl"),
        (json!({"closID": "a/b"}), "linux.intelRdt.closID"),
    ] {
        bundle.config["linux"]["intelRdt"] = class;
        let told_by_it = refusal(&bundle.run_attached());
        assert!(told_by_it.contains("linux.intelRdt"), "{told_by_it}");
        assert!(told_by_it.contains(told), "{told_by_it}");
    }
    let linux = bundle.config["linux"].as_object_mut().unwrap();
    linux.remove("intelRdt");
    bundle.run_detached();
    for words in [
        ["--l3-cache-schema", "L3:0=f"],
        ["--mem-bw-schema", "MB:0=10"],
    ] {
        let id = bundle.id();
        let update = bundle.call(&["update", "--pids-limit", "7", words[0], words[1], id]);
        let told = refusal(&update);
        assert!(told.contains("resctrl"), "{told}");
    }
    // Nothing of it: neither the other limit nor a class on record.
    let state = std::fs::read_to_string(
        bundle
            .path()
            .join(format!("state/{}/state.json", bundle.id())),
    );
    assert!(!state.unwrap().contains("intelRdt"));
    assert_eq!(bundle.state()["status"], "running");
}
