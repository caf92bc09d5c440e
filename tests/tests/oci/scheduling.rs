//! When, where and as what processes run, read from the kernel's own files.

use dyno_tests::bundle::Bundle;
use serde_json::{Value, json};

/// Nice, rt_priority and policy of `/proc/PID/stat`.
const STAT: &str = "cut -d' ' -f19,40,41 /proc/self/stat";

fn refusal(bundle: &Bundle) -> String {
    let run = bundle.run();
    assert!(!run.create.status.success(), "{run:?}");
    let state = bundle.call(&["state", bundle.id()]);
    assert!(!state.status.success(), "something is left: {state:?}");
    run.stderr
}

#[test]
fn it_is_scheduled_as_asked() {
    for (scheduler, expected) in [
        // The nice value of the others is whatever the caller's was.
        (json!({"policy": "SCHED_OTHER", "nice": -7}), "-7 0 0\n"),
        (json!({"policy": "SCHED_BATCH", "nice": 11}), "11 0 3\n"),
        (json!({"policy": "SCHED_IDLE"}), " 0 5\n"),
        (json!({"policy": "SCHED_FIFO", "priority": 10}), " 10 1\n"),
        (json!({"policy": "SCHED_RR", "priority": 20}), " 20 2\n"),
        // Its shell has the policy, and what that clones has not.
        (
            json!({"policy": "SCHED_RR", "priority": 20, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
            "0 0 0\n",
        ),
    ] {
        let mut bundle = Bundle::script(&format!("{STAT}; true"));
        bundle.config["process"]["scheduler"] = scheduler.clone();
        let run = bundle.run();
        if run
            .stderr
            .contains("set process.scheduler: Operation not permitted")
        {
            // A v1 cpu controller gives groups no real time until they ask for it.
            assert!(scheduler["priority"].is_number(), "{scheduler}: {run:?}");
            continue;
        }
        assert!(run.stdout.ends_with(expected), "{scheduler}: {run:?}");
    }
}

#[test]
fn its_disk_comes_first_or_last_as_asked() {
    for (class, priority, expected) in [
        ("IOPRIO_CLASS_BE", 2, (2 << 13) | 2),
        ("IOPRIO_CLASS_RT", 0, 1 << 13),
        ("IOPRIO_CLASS_IDLE", 0, 3 << 13),
    ] {
        let mut bundle = Bundle::new(&["sleep", "1000"]);
        bundle.config["process"]["ioPriority"] = json!({"class": class, "priority": priority});
        assert!(bundle.create().status.success());
        bundle.start();
        let pid = bundle.state()["pid"].to_string();
        // syscall(ioprio_get, IOPRIO_WHO_PROCESS, pid)
        let ask = format!("print syscall(252, 1, {pid})");
        let told = std::process::Command::new("perl")
            .args(["-e", &ask])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&told.stdout),
            expected.to_string(),
            "{class}"
        );
    }
}

#[test]
fn a_further_process_runs_on_its_cpus_and_the_first_on_any() {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.config["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "1"});
    assert!(bundle.create().status.success());
    bundle.start();
    let allowed = |script: &[&str]| {
        let exec = bundle.call(&[&["exec", bundle.id()], script].concat());
        assert!(exec.status.success(), "{exec:?}");
        let text = String::from_utf8(exec.stdout).unwrap();
        let list = text
            .lines()
            .find(|line| line.starts_with("Cpus_allowed_list"));
        list.unwrap().split_whitespace().last().unwrap().to_owned()
    };
    assert_eq!(allowed(&["cat", "/proc/self/status"]), "1");
    let any = allowed(&["cat", "/proc/1/status"]);
    assert_ne!(any, "1");
    for (affinity, expected) in [
        // Without a final one the kernel decides; before 6.2 entering a cgroup
        // with CPUs of its own opened all of them.
        (json!({"initial": "0"}), ["0", &any]),
        (json!({"initial": "", "final": "0"}), ["0", "0"]),
    ] {
        let path = bundle.path().join("process.json");
        let process = json!({"user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"],
            "args": ["cat", "/proc/self/status"], "execCPUAffinity": affinity});
        dyno_tests::write_file(&path, &process.to_string());
        let path = path.display().to_string();
        let exec = bundle.call(&["exec", "--process", &path, bundle.id()]);
        assert!(exec.status.success(), "{exec:?}");
        let told = String::from_utf8(exec.stdout).unwrap();
        let is_told = |list: &str| told.contains(&format!("Cpus_allowed_list:\t{list}\n"));
        assert!(expected.into_iter().any(is_told), "{told}");
    }
}

#[test]
fn cpus_that_are_not_there_are_named() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    assert!(bundle.create().status.success());
    bundle.start();
    for key in ["initial", "final"] {
        let path = bundle.path().join("process.json");
        let process = json!({"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["true"],
            "env": ["PATH=/bin"], "execCPUAffinity": {key: "1000"}});
        dyno_tests::write_file(&path, &process.to_string());
        let path = path.display().to_string();
        let exec = bundle.call(&["exec", "--process", &path, bundle.id()]);
        let message = String::from_utf8(exec.stderr).unwrap();
        assert!(
            message.contains(&format!("process.execCPUAffinity.{key}")),
            "{message}"
        );
    }
}

#[test]
fn its_memory_comes_from_the_nodes_that_are_asked_for() {
    let script = "cut -d' ' -f2 /proc/self/numa_maps | sort | uniq";
    for (policy, expected) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0"}), "bind:0"),
        (
            json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"}),
            "interleave:0",
        ),
        (
            json!({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
            "prefer=static:0",
        ),
        (json!({"mode": "MPOL_LOCAL"}), "local"),
    ] {
        let mut bundle = Bundle::script(&script.replace("uniq", "grep -v default; sleep 1000"));
        bundle.config["linux"]["memoryPolicy"] = policy.clone();
        let create = bundle.create();
        assert!(create.status.success(), "{create:?}");
        bundle.start();
        let stdout = bundle.path().join("stdout");
        dyno_tests::until("it tells", || !std::fs::read(&stdout).unwrap().is_empty());
        let told = std::fs::read_to_string(&stdout).unwrap();
        assert!(told.contains(expected), "{policy}: {told}");
        let exec = bundle.call(&["exec", bundle.id(), "cat", "/proc/self/numa_maps"]);
        let told = String::from_utf8(exec.stdout).unwrap();
        assert!(told.contains(expected), "{policy}: {told}");
    }
}

#[test]
fn nodes_that_are_not_there_are_refused() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "900"});
    // It is set last, when only `run` still listens.
    let output = bundle.run_attached();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("linux.memoryPolicy"), "{message}");
}

#[test]
fn a_personality_is_the_containers() {
    for (domain, machine) in [("LINUX32", "i686"), ("LINUX", "x86_64")] {
        let mut bundle = Bundle::script("uname -m; sleep 1000");
        bundle.config["linux"]["personality"] = json!({"domain": domain});
        assert!(bundle.create().status.success());
        bundle.start();
        let stdout = bundle.path().join("stdout");
        dyno_tests::until("it tells", || !std::fs::read(&stdout).unwrap().is_empty());
        assert_eq!(std::fs::read_to_string(&stdout).unwrap().trim(), machine);
        let exec = bundle.call(&["exec", bundle.id(), "uname", "-m"]);
        assert_eq!(String::from_utf8(exec.stdout).unwrap().trim(), machine);
    }
}

#[test]
fn oom_score_and_umask_are_as_asked() {
    let mut bundle = Bundle::script("cat /proc/self/oom_score_adj; umask");
    bundle.config["process"]["oomScoreAdj"] = json!(321);
    bundle.config["process"]["user"]["umask"] = json!(0o027);
    assert_eq!(bundle.output(), "321\n0027\n");
}

#[test]
fn nobody_stays_root_by_asking_for_an_id_that_is_none() {
    let none = json!(4_294_967_295_u32);
    for (pointer, value) in [
        ("/process/user/uid", none.clone()),
        ("/process/user/gid", none.clone()),
        ("/process/user/additionalGids", json!([none])),
        ("/process/user/umask", json!(512)),
    ] {
        let mut bundle = Bundle::new(&["true"]);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        bundle.config.pointer_mut(parent).unwrap()[key] = value;
        let message = refusal(&bundle);
        assert!(
            message.contains(&pointer[1..].replace('/', ".")),
            "{message}"
        );
    }
}

#[test]
fn a_label_needs_the_module_that_looks_at_it() {
    let apparmor = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let apparmor = apparmor.is_ok_and(|enabled| enabled.starts_with('Y'));
    let selinux = std::path::Path::new("/sys/fs/selinux/enforce").exists();
    let refused = |pointer: &str, needed: &str| {
        let mut bundle = Bundle::new(&["true"]);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        bundle.config.pointer_mut(parent).unwrap()[key] = json!("nosuch_u:r:t:s0");
        let message = refusal(&bundle);
        let property = pointer[1..].replace('/', ".");
        assert!(
            message.contains(&property) && message.contains(needed),
            "{message}"
        );
    };
    if apparmor {
        let mut bundle = Bundle::script("cat /proc/self/attr/current");
        bundle.config["process"]["apparmorProfile"] = json!("unconfined");
        assert_eq!(bundle.output(), "unconfined\n");
        refused("/process/apparmorProfile", "nosuch_u");
    } else {
        refused("/process/apparmorProfile", "AppArmor in the kernel");
    }
    if !selinux {
        refused("/process/selinuxLabel", "SELinux in the kernel");
        refused("/linux/mountLabel", "SELinux in the kernel");
    }
    let mut bundle = Bundle::new(&["true"]);
    let none: Value = json!("");
    bundle.config["process"]["apparmorProfile"] = none.clone();
    bundle.config["process"]["selinuxLabel"] = none.clone();
    bundle.config["linux"]["mountLabel"] = none;
    assert_eq!(bundle.output(), "");
}
