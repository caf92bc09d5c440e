//! Configurations that are wrong in every place: one clear error, or a container
//! that comes and goes, and nothing left in either case.

use dyno_tests::bundle::Bundle;
use dyno_tests::machine::Machine;
use dyno_tests::random::{Random, places, seed};
use dyno_tests::until;
use serde_json::{Value, json};

/// Rounds of `make test`; `make soak` plays fifty times as many.
const ROUNDS: u64 = 150;

/// What nobody means: wrong types, sizes beyond limits, strings that lie.
fn hostile(random: &mut Random, config: &Value) -> Value {
    let long = "x".repeat(70_000);
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(4_294_967_296_u64),
        json!(u64::MAX),
        json!(1.5),
        json!(""),
        json!("\0"),
        json!("a\0b"),
        json!("../../../../etc"),
        json!("/proc/self/fd/0"),
        json!("/proc/1/root"),
        json!(long),
        json!("\u{fffd}\n\u{1b}[31m"),
        json!([]),
        json!({}),
        json!([null, 1, "x"]),
        json!({"": ""}),
        json!(vec![0; 2000]),
    ];
    match random.below(values.len() + 3) {
        index if index < values.len() => values[index].clone(),
        // Something true in a wrong place.
        _ => {
            let all = places(config);
            let place = random.pick(&all);
            config.pointer(place).cloned().unwrap_or_default()
        }
    }
}

/// A configuration with one or two places changed, and which.
fn spoiled(random: &mut Random, config: &Value) -> (Value, Vec<String>) {
    let mut spoiled = config.clone();
    let mut changed = Vec::new();
    for _ in 0..=random.below(2) {
        let all = places(&spoiled);
        let place = random.pick(&all).clone();
        // The folders are the test's own: elsewhere a container could hurt.
        if place.is_empty() || place.starts_with("/root") || place.starts_with("/mounts/0") {
            continue;
        }
        let value = hostile(random, config);
        *spoiled.pointer_mut(&place).unwrap() = value;
        changed.push(place);
    }
    (spoiled, changed)
}

/// More of the configuration than [`Bundle`] has by itself, to be spoiled.
fn rich(bundle: &Bundle) -> Value {
    let mut config = bundle.config.clone();
    config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}]);
    config["process"]["oomScoreAdj"] = json!(500);
    config["hooks"] = json!({"createRuntime": [{"path": "/bin/true", "timeout": 5}]});
    config["annotations"] = json!({"a": "b"});
    let linux = &mut config["linux"];
    linux["sysctl"] = json!({"kernel.msgmax": "4096"});
    linux["devices"] = json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}]);
    linux["resources"] = json!({
        "memory": {"limit": 64 << 20}, "pids": {"limit": 50},
        "cpu": {"quota": 50000, "period": 100_000},
        "devices": [{"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
    });
    linux["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
            "args": [{"index": 1, "value": 5, "op": "SCMP_CMP_EQ"}]}]});
    linux["rootfsPropagation"] = json!("private");
    config
}

#[test]
fn a_configuration_that_is_wrong_anywhere_is_refused_clearly_and_leaves_nothing() {
    let seed = seed();
    let soak = std::env::var_os("DYNO_SOAK").is_some();
    let rounds = if soak { ROUNDS * 50 } else { ROUNDS };
    let mut bundle = Bundle::new(&["true"]);
    let config = rich(&bundle);
    let state = bundle.path().join("state");
    let before = Machine::look(bundle.id(), &[&state]);
    bundle.config = config.clone();
    let whole = bundle.create();
    assert!(whole.status.success(), "{whole:?}");
    assert!(
        bundle
            .call(&["delete", "--force", bundle.id()])
            .status
            .success()
    );
    let (mut refused, mut run) = (0, 0);
    for round in 0..rounds {
        let mut random = Random::of(seed, round);
        let (spoiled, changed) = spoiled(&mut random, &config);
        let what = format!("seed {seed}, round {round}: {changed:?}");
        bundle.config = spoiled;
        let create = bundle.create();
        let told = String::from_utf8_lossy(&create.stderr).into_owned();
        match create.status.code() {
            Some(0) => {
                run += 1;
                // It may be one that cannot start, or never ends.
                bundle.call(&["start", bundle.id()]);
                let delete = bundle.call(&["delete", "--force", bundle.id()]);
                assert!(delete.status.success(), "{what}: {delete:?}");
            }
            Some(1) => {
                refused += 1;
                assert!(told.starts_with("dyno-runtime: "), "{what}: {told}");
                assert_eq!(told.trim_end().lines().count(), 1, "{what}: {told}");
            }
            // clap's, of an id or option; a panic is 101, a signal nothing.
            code => panic!("{what}: exit code {code:?}: {told}"),
        }
        until(&format!("nothing is left: {what}"), || {
            Machine::look(bundle.id(), &[&state])
                .difference(&before)
                .is_empty()
        });
    }
    assert!(
        refused > rounds / 4 && run > rounds / 50,
        "{refused} refused, {run} run"
    );
}

#[test]
fn a_configuration_that_is_no_file_is_refused_and_not_waited_for() {
    // P15: of a FIFO nobody writes into, the end never comes.
    let bundle = Bundle::new(&["true"]);
    let config = bundle.path().join("config.json");
    let command = bundle.command(&["create"]);
    let made = |kind, device| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &config, kind, mode, device).unwrap();
    };
    let kinds: [(&str, &dyn Fn()); 5] = [
        ("a FIFO", &|| made(rustix::fs::FileType::Fifo, 0)),
        ("a socket", &|| made(rustix::fs::FileType::Socket, 0)),
        ("a device", &|| {
            let zero = rustix::fs::makedev(1, 5);
            made(rustix::fs::FileType::CharacterDevice, zero);
        }),
        ("a folder", &|| std::fs::create_dir(&config).unwrap()),
        ("a link to itself", &|| {
            std::os::unix::fs::symlink("config.json", &config).unwrap();
        }),
    ];
    for (what, make) in kinds {
        match config.is_dir() {
            true => std::fs::remove_dir(&config).unwrap(),
            false => std::fs::remove_file(&config).unwrap(),
        }
        make();
        let mut create = std::process::Command::new(command.get_program());
        create.args(command.get_args());
        create.stderr(std::process::Stdio::piped());
        let mut child = create.spawn().unwrap();
        let begin = std::time::Instant::now();
        while child.try_wait().unwrap().is_none() {
            if begin.elapsed() > std::time::Duration::from_secs(20) {
                child.kill().unwrap();
                panic!("{what} is waited for");
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{what}: {told}");
        assert!(told.contains("config.json"), "{what}: {told}");
        assert_eq!(told.lines().count(), 1, "{what}: {told}");
    }
    // For the rig, which deletes it.
    std::fs::remove_file(&config).unwrap();
}
