//! config.md, "POSIX-platform Hooks".

use serde_json::{Value, json};

use crate::rig::Container;

fn hook(script: &str) -> Value {
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}])
}

fn told(container: &Container) -> Vec<String> {
    let text = std::fs::read_to_string(container.path("hooks")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn they_run_in_their_order_with_the_state() {
    let mut container = Container::script("true");
    let file = container.path("hooks").display().to_string();
    let tell = |kind: &str| {
        hook(&format!(
            "echo {kind} $(tr -d ' ' | tr ',' '\\n' | grep '\"id\"') >>{file}"
        ))
    };
    container.config["hooks"] = json!({
        "prestart": tell("prestart"), "createRuntime": tell("createRuntime"),
        "createContainer": tell("createContainer"), "poststart": tell("poststart"),
        "poststop": tell("poststop"),
    });
    container.output();
    let told = told(&container);
    let kinds: Vec<&str> = told
        .iter()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let expected = [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ];
    assert_eq!(kinds, expected, "{told:?}");
    assert!(
        told.iter().all(|line| line.contains(container.id())),
        "{told:?}"
    );
}

#[test]
fn those_of_the_container_run_in_its_namespaces() {
    let mut container = Container::script("true");
    let file = container.path("hooks").display().to_string();
    let tell = hook(&format!("readlink /proc/self/ns/uts >>{file}"));
    container.config["hooks"] = json!({
        "createRuntime": tell,
        "createContainer": tell,
        "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "hostname >/proof"], "env": ["PATH=/bin"]}],
    });
    container.output();
    let told = told(&container);
    let ours = std::fs::read_link("/proc/self/ns/uts").unwrap();
    assert_eq!(told[0], ours.to_string_lossy());
    assert_ne!(told[1], told[0]);
    assert_eq!(
        std::fs::read_to_string(container.path("rootfs/proof")).unwrap(),
        "box\n"
    );
}

#[test]
fn one_that_fails_before_the_start_ends_it() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut container = Container::script("echo ran >/proof");
        container.config["hooks"] = json!({ kind: hook("exit 3") });
        assert!(!container.run().status.success(), "{kind}");
        assert!(!container.path("rootfs/proof").exists(), "{kind}");
        assert!(
            !container.call(&["state", container.id()]).status.success(),
            "{kind}"
        );
    }
}

#[test]
fn one_that_takes_too_long_is_ended() {
    let mut container = Container::script("true");
    let mut slow = hook("exec sleep 1000");
    slow[0]["timeout"] = json!(1);
    container.config["hooks"] = json!({ "createRuntime": slow });
    assert!(!container.run().status.success());
}

#[test]
fn one_after_the_end_that_fails_changes_nothing() {
    let mut container = Container::script("echo ran");
    container.config["hooks"] = json!({ "poststop": hook("exit 3") });
    assert_eq!(container.output(), "ran\n");
}
