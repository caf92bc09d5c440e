//! runtime.md, "State", "Lifecycle", "Operations".

use serde_json::json;

use crate::rig::Container;

#[test]
fn create_start_kill_delete_go_through_the_states() {
    let container = Container::new(&["/bin/sleep", "1000"]);
    container.create();
    let state = container.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], container.id());
    assert_eq!(
        state["bundle"],
        json!(container.path("").components().as_path())
    );
    assert!(state["ociVersion"].is_string());
    let pid = state["pid"].to_string();
    assert!(container.call(&["start", container.id()]).status.success());
    assert_eq!(container.state()["status"], "running");
    assert_eq!(container.state()["pid"].to_string(), pid);
    assert!(
        container
            .call(&["kill", container.id(), "KILL"])
            .status
            .success()
    );
    container.await_status("stopped");
    assert!(container.call(&["delete", container.id()]).status.success());
    assert!(!container.call(&["state", container.id()]).status.success());
}

#[test]
fn the_program_does_not_run_before_the_start() {
    let container = Container::script("echo ran >/proof");
    container.create();
    assert!(!container.path("rootfs/proof").exists());
    assert!(container.call(&["start", container.id()]).status.success());
    container.await_status("stopped");
    assert!(container.path("rootfs/proof").exists());
}

#[test]
fn what_does_not_fit_the_state_is_an_error_and_changes_nothing() {
    let container = Container::new(&["/bin/sleep", "1000"]);
    for words in [
        ["start", container.id()],
        ["state", container.id()],
        ["delete", container.id()],
    ] {
        assert!(
            !container.call(&words).status.success(),
            "{words:?} of none"
        );
    }
    container.start();
    assert!(
        !container.call(&["start", container.id()]).status.success(),
        "a second start"
    );
    assert!(
        !container.call(&["delete", container.id()]).status.success(),
        "delete while it runs"
    );
    assert_eq!(container.state()["status"], "running");
    assert!(
        container
            .call(&["kill", container.id(), "KILL"])
            .status
            .success()
    );
    container.await_status("stopped");
    assert!(
        !container
            .call(&["kill", container.id(), "TERM"])
            .status
            .success(),
        "kill when stopped"
    );
}

#[test]
fn an_id_is_used_once() {
    let container = Container::new(&["/bin/sleep", "1000"]);
    container.start();
    assert!(!container.run().status.success());
    assert_eq!(container.state()["status"], "running");
}

#[test]
fn a_signal_reaches_the_first_process() {
    let container = Container::script(
        "trap 'echo got it; exit 0' USR1; echo ready; while :; do sleep 0.01; done",
    );
    container.start();
    dyno_tests::until("it is ready", || container.told().contains("ready"));
    assert!(
        container
            .call(&["kill", container.id(), "USR1"])
            .status
            .success()
    );
    container.await_status("stopped");
    assert!(container.told().contains("got it"));
}

#[test]
fn the_exit_code_is_passed_on() {
    assert_eq!(Container::script("exit 42").run().status.code(), Some(42));
}

#[test]
fn annotations_are_in_the_state() {
    let mut container = Container::new(&["/bin/sleep", "1000"]);
    container.config["annotations"] = json!({"org.example.a": "b"});
    container.create();
    assert_eq!(container.state()["annotations"]["org.example.a"], "b");
}

#[test]
fn a_missing_program_is_named() {
    Container::new(&["/no/such/program"]).refused("/no/such/program");
}

#[test]
fn another_version_of_the_spec_is_refused() {
    let mut container = Container::script("true");
    container.config["ociVersion"] = json!("9.0.0");
    container.refused("9.0.0");
}

#[test]
fn no_descriptor_but_its_streams_reaches_it() {
    // By a child of the shell, and without a pipe: both would have more open.
    assert_eq!(
        Container::script("ls /proc/1/fd; true").output(),
        "0\n1\n2\n"
    );
}

#[test]
fn a_forced_delete_kills() {
    let container = Container::new(&["/bin/sleep", "1000"]);
    container.start();
    assert!(
        container
            .call(&["delete", "--force", container.id()])
            .status
            .success()
    );
    assert!(!container.call(&["state", container.id()]).status.success());
}
