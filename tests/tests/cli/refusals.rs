//! What goes wrong, how it is told, and that nothing is left of it.

use dyno_tests::host::Host;

use crate::rig::{run_with_input, text};

#[test]
fn what_cannot_be_executed_is_told_by_its_exit_code_and_nothing_is_left() {
    let host = Host::start();
    for (command, code) in [
        ("/no/such/program", 127),
        ("no-such-program", 127),
        ("/etc", 126),
    ] {
        for mode in [&["run"][..], &["run", "-d"], &["run", "--rm"]] {
            let output = host.run(&[mode, &["host", command]].concat());
            let stderr = text(&output.stderr);
            assert_eq!(
                output.status.code(),
                Some(code),
                "{mode:?} {command}: {stderr}"
            );
            assert!(
                stderr.contains(command) && stderr.starts_with("error: "),
                "{stderr}"
            );
            assert_eq!(host.ids(), [] as [&str; 0], "{mode:?} {command}");
        }
    }
}

#[test]
fn an_image_that_cannot_be_had_is_dynos_own_failure() {
    let host = Host::start();
    // Nothing listens on port 1.
    for pull in ["missing", "never", "always"] {
        let output = host.run(&["run", "--pull", pull, "127.0.0.1:1/no/such:1", "true"]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{pull}: {stderr}");
        assert!(stderr.contains("127.0.0.1:1"), "{pull}: {stderr}");
    }
    assert_eq!(host.ids(), [] as [&str; 0]);
}

#[test]
fn other_commands_tell_kinds_of_failure_by_their_exit_code() {
    let host = Host::start();
    assert_eq!(host.run(&["inspect", "nobody"]).status.code(), Some(3));
    assert_eq!(host.run(&["stop", "nobody"]).status.code(), Some(3));
    assert_eq!(host.run(&["rmi", "no/such:1"]).status.code(), Some(3));
    host.ok(&["run", "-d", "--name", "web", "host", "sleep", "1000"]);
    assert_eq!(host.run(&["rm", "web"]).status.code(), Some(4));
    let twice = host.run(&["run", "-d", "--name", "web", "host", "true"]);
    assert_eq!(twice.status.code(), Some(125), "{}", text(&twice.stderr));
    assert_eq!(
        host.run(&["exec", "nobody", "true"]).status.code(),
        Some(125)
    );
    // The failure of one keeps no other from being removed.
    let output = host.run(&["rm", "-f", "nobody", "web"]);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(3), "web\n".to_owned())
    );
}

#[test]
fn a_broken_archive_is_refused_and_leaves_no_image() {
    let host = Host::start();
    let before = host.ok(&["images", "-q"]);
    let broken = b"this is no archive at all".repeat(1000);
    for arguments in [&["load"][..], &["import", "-", "broken:1"]] {
        let output = run_with_input(&host, arguments, broken.clone());
        let stderr = text(&output.stderr);
        assert!(
            matches!(output.status.code(), Some(1 | 2)),
            "{arguments:?}: {output:?}"
        );
        assert!(stderr.starts_with("error: "), "{arguments:?}: {stderr}");
    }
    assert_eq!(
        host.run(&["load", "-i", "/no/such/file"]).status.code(),
        Some(1)
    );
    assert_eq!(host.ok(&["images", "-q"]), before);
}
