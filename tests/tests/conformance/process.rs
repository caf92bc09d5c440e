//! config.md, "Process"; config-linux.md, "Default Devices".

use serde_json::json;

use crate::rig::Container;

#[test]
fn arguments_and_environment_arrive_as_they_are() {
    let mut container = Container::new(&["/bin/sh", "-c", "echo \"$0|$1|$A\"", "", "two words\n"]);
    container.push("/process/env", json!("A=b=c d"));
    assert_eq!(container.output(), "|two words\n|b=c d\n");
}

#[test]
fn a_program_is_searched_in_the_path_of_the_container() {
    let container = Container::new(&["echo", "found"]);
    assert_eq!(container.output(), "found\n");
}

#[test]
fn the_working_folder_is_made_where_it_is_missing() {
    let mut container = Container::script("pwd");
    container.config["process"]["cwd"] = json!("/made/deep");
    assert_eq!(container.output(), "/made/deep\n");
}

#[test]
fn user_groups_and_umask_are_exactly_those_asked_for() {
    let mut container = Container::script("id -u; id -g; id -G; umask");
    container.config["process"]["user"] =
        json!({"uid": 1000, "gid": 50, "additionalGids": [7, 8], "umask": 0o27});
    assert_eq!(container.output(), "1000\n50\n50 7 8\n0027\n");
}

#[test]
fn capabilities_are_exactly_those_asked_for() {
    let script = "grep ^Cap /proc/self/status | tr -d '\\t'";
    let told = Container::script(script).output();
    let expected = "CapInh:0000000000000000\nCapPrm:0000000020000420\nCapEff:0000000020000420\n\
                    CapBnd:0000000020000420\nCapAmb:0000000000000000\n";
    assert_eq!(told, expected);
}

#[test]
fn ambient_capabilities_reach_an_ordinary_user() {
    let mut container =
        Container::script("grep -E '^Cap(Eff|Amb)' /proc/self/status | tr -d '\\t'");
    let one = json!(["CAP_NET_BIND_SERVICE"]);
    for set in [
        "bounding",
        "effective",
        "permitted",
        "inheritable",
        "ambient",
    ] {
        container.config["process"]["capabilities"][set] = one.clone();
    }
    container.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    assert_eq!(
        container.output(),
        "CapEff:0000000000000400\nCapAmb:0000000000000400\n"
    );
}

#[test]
fn no_new_privileges_is_set_only_where_it_is_asked_for() {
    let script = "grep ^NoNewPrivs /proc/self/status | tr -d '\\t'";
    assert_eq!(Container::script(script).output(), "NoNewPrivs:1\n");
    let mut container = Container::script(script);
    container.config["process"]["noNewPrivileges"] = json!(false);
    assert_eq!(container.output(), "NoNewPrivs:0\n");
}

#[test]
fn resource_limits_are_its_own() {
    let mut container = Container::script("ulimit -n; ulimit -c");
    container.config["process"]["rlimits"] = json!([
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]);
    assert_eq!(container.output(), "100\n0\n");
}

#[test]
fn the_oom_score_is_its_own() {
    let mut container = Container::script("cat /proc/self/oom_score_adj");
    container.config["process"]["oomScoreAdj"] = json!(400);
    assert_eq!(container.output(), "400\n");
}

#[test]
fn the_default_devices_and_links_are_there_and_work() {
    let script = "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; \
                  echo x >/dev/null; head -c 3 /dev/zero | wc -c; echo x 2>/dev/null >/dev/full || echo full; \
                  for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done";
    let told = Container::script(script).output();
    let links = "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n";
    assert_eq!(told, format!("3\nfull\n{links}"));
}

#[test]
fn a_device_of_the_configuration_has_its_number_mode_and_owner() {
    let mut container = Container::script("stat -c '%F %t:%T %a %u:%g' /dev/deep/er");
    container.config["linux"]["devices"] = json!([{"path": "/dev/deep/er", "type": "c",
        "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8}]);
    assert_eq!(container.output(), "character special file 1:5 640 7:8\n");
}

#[test]
fn an_executed_process_is_what_was_asked_for() {
    let container = Container::new(&["/bin/sleep", "1000"]);
    container.start();
    let words = [
        "exec",
        "--user",
        "7:8",
        "--cwd",
        "/bin",
        "--env",
        "A=b",
        container.id(),
    ];
    let script = "id -u; id -g; pwd; echo $A; exit 3";
    let output = container.call(&[&words[..], &["/bin/sh", "-c", script]].concat());
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "7\n8\n/bin\nb\n",
        "{output:?}"
    );
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn what_is_malformed_is_refused() {
    for (pointer, value, about) in [
        ("/process/args", json!([]), "args"),
        ("/process/cwd", json!("relative"), "cwd"),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_X", "soft": 1, "hard": 1}]),
            "rlimit",
        ),
    ] {
        let mut container = Container::script("true");
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        container.config.pointer_mut(parent).unwrap()[name] = value;
        container.refused(about);
    }
}
