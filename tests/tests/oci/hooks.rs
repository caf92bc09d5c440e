//! Hooks of all kinds: where they run, in which order, and what their failure does.

use dyno_tests::bundle::Bundle;
use dyno_tests::machine::Machine;
use serde_json::{Value, json};

/// A hook that runs a shell script of the host.
fn hook(script: &str) -> Value {
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}])
}

fn log(bundle: &Bundle) -> Vec<String> {
    let text = std::fs::read_to_string(bundle.path().join("hooks")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn each_runs_once_in_its_order_with_the_state() {
    let mut bundle = Bundle::script("true");
    let file = bundle.path().join("hooks").display().to_string();
    let tell = |kind: &str| hook(&format!("echo {kind} $(cat) >>{file}"));
    bundle.config["hooks"] = json!({
        "poststop": tell("poststop"),
        "poststart": tell("poststart"),
        "createRuntime": tell("createRuntime"),
        "prestart": tell("prestart"),
    });
    assert!(bundle.run_attached().status.success());
    let told = log(&bundle);
    let kinds: Vec<&str> = told
        .iter()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(
        kinds,
        ["prestart", "createRuntime", "poststart", "poststop"],
        "{told:?}"
    );
    let statuses = ["creating", "creating", "running", "stopped"];
    for (line, status) in told.iter().zip(statuses) {
        let (_, state) = line.split_once(' ').unwrap();
        let state: Value = serde_json::from_str(state).unwrap();
        assert_eq!(state["id"], bundle.id());
        assert_eq!(state["status"], status);
        assert_eq!(state["bundle"], json!(bundle.path()));
        assert_eq!(
            state["pid"].as_i64().unwrap() > 0,
            status != "stopped",
            "{state}"
        );
    }
}

#[test]
fn each_runs_where_the_spec_says() {
    let mut bundle = Bundle::script("true");
    let file = bundle.path().join("hooks");
    std::fs::File::create(&file).unwrap();
    let file = file.display().to_string();
    // The container's root may write there.
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(bundle.path(), all).unwrap();
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&file, all).unwrap();
    let tell = |kind: &str| {
        hook(&format!(
            "cat >/dev/null; echo {kind} $(readlink /proc/self/ns/uts) $(hostname) >>{file}"
        ))
    };
    let inside = json!([{"path": "/bin/sh", "args": ["sh", "-c",
        "cat >/dev/null; echo $(readlink /proc/self/ns/mnt) $(hostname) >/proof"],
        "env": ["PATH=/bin"]}]);
    bundle.config["hooks"] = json!({
        "createRuntime": tell("createRuntime"),
        "createContainer": tell("createContainer"),
        "startContainer": inside,
    });
    let output = bundle.run_attached();
    assert!(output.status.success(), "{output:?}");
    let told = log(&bundle);
    let ours = std::fs::read_link("/proc/self/ns/uts").unwrap();
    assert!(told[0].contains(&*ours.to_string_lossy()), "{told:?}");
    assert!(told[1].starts_with("createContainer"), "{told:?}");
    assert!(!told[1].contains(&*ours.to_string_lossy()), "{told:?}");
    assert!(told[1].ends_with(" box"), "{told:?}");
    let proof = std::fs::read_to_string(bundle.path().join("upper/proof")).unwrap();
    assert!(proof.ends_with(" box\n"), "{proof}");
}

#[test]
fn a_failure_before_the_start_takes_everything_down() {
    for kind in [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
    ] {
        let mut bundle = Bundle::script("echo ran >/proof");
        let before = Machine::look(bundle.id(), &[]);
        let file = bundle.path().join("hooks").display().to_string();
        bundle.config["hooks"] = json!({
            kind: hook("cat >/dev/null; echo no luck >&2; exit 3"),
            "poststop": hook(&format!("echo poststop >>{file}")),
        });
        let output = bundle.run_attached();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{kind}: {output:?}");
        assert!(
            told.contains(kind) && told.contains("exit status 3: no luck"),
            "{told}"
        );
        assert!(!bundle.path().join("upper/proof").exists(), "{kind}");
        assert!(!bundle.call(&["state", bundle.id()]).status.success());
        assert_eq!(log(&bundle), ["poststop"], "{kind}");
        let left = Machine::look(bundle.id(), &[]).difference(&before);
        assert!(left.is_empty(), "{kind}: {left:?}");
    }
}

#[test]
fn a_failure_after_the_start_changes_nothing() {
    let mut bundle = Bundle::script("echo ran");
    bundle.config["hooks"] = json!({"poststart": hook("exit 1"), "poststop": hook("exit 1")});
    let output = bundle.run_attached();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"ran\n");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("poststart hook #0"), "{told}");
    assert!(told.contains("poststop hook #0"), "{told}");
}

#[test]
fn a_hook_that_hangs_is_killed_when_its_time_is_up() {
    for kind in ["createRuntime", "createContainer"] {
        let mut bundle = Bundle::script("true");
        let mut slow = hook("exec sleep 1000");
        slow[0]["timeout"] = json!(1);
        bundle.config["hooks"] = json!({ kind: slow });
        let output = bundle.run_attached();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("not done after 1 s"), "{kind}: {told}");
    }
}

#[test]
fn create_and_start_run_them_like_run() {
    let mut bundle = Bundle::script("true");
    let file = bundle.path().join("hooks").display().to_string();
    let tell = |kind: &str| hook(&format!("cat >/dev/null; echo {kind} >>{file}"));
    bundle.config["hooks"] = json!({
        "createRuntime": tell("createRuntime"),
        "poststart": tell("poststart"),
        "poststop": tell("poststop"),
    });
    assert!(bundle.create().status.success());
    assert_eq!(log(&bundle), ["createRuntime"]);
    bundle.start();
    assert_eq!(log(&bundle), ["createRuntime", "poststart"]);
    assert!(
        bundle
            .call(&["delete", "--force", bundle.id()])
            .status
            .success()
    );
    assert_eq!(log(&bundle), ["createRuntime", "poststart", "poststop"]);
}
