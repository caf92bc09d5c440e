//! `dyno-runtime` called by somebody who is careless or hostile.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::time::Instant;

use dyno_tests::bundle::Bundle;
use dyno_tests::machine::Machine;
use dyno_tests::until;
use serde_json::json;

/// Creates by a shell that spoils something first, then runs to the end.
fn by_shell(bundle: &Bundle, spoil: &str) -> String {
    let create = bundle.create_by(|command| through_shell(command, spoil));
    assert!(create.status.success(), "{spoil}: {create:?}");
    bundle.finish(create).stdout
}

/// The same command, executed by a shell after `spoil`; its standard output
/// and error stay those that are set already.
fn through_shell(command: &mut Command, spoil: &str) {
    let mut shell = Command::new("/bin/sh");
    shell
        .arg("-c")
        .arg(format!("{spoil}; exec \"$@\""))
        .arg("sh");
    shell.arg(command.get_program()).args(command.get_args());
    for name in ["stdout", "stderr"] {
        let folder = bundle_folder(command);
        let file = File::create(folder.join(name)).unwrap();
        match name {
            "stdout" => shell.stdout(file),
            _ => shell.stderr(file),
        };
    }
    *command = shell;
}

/// The argument of `--bundle`.
fn bundle_folder(command: &Command) -> std::path::PathBuf {
    let mut args = command.get_args().skip_while(|arg| *arg != "--bundle");
    args.nth(1).unwrap().into()
}

#[test]
fn closed_standard_streams_are_not_taken_by_something_else() {
    let bundle = Bundle::script("ls -l /proc/self/fd | grep -c socket; ls /proc/self/fd > /fds");
    let create = bundle.create_by(|command| through_shell(command, "exec 0<&- 1>&- 2>&-"));
    assert!(create.status.success(), "{create:?}");
    bundle.finish(create);
    // The three, and the one that ls reads them by.
    let fds = std::fs::read_to_string(bundle.path().join("upper/fds")).unwrap();
    assert_eq!(fds, "0\n1\n2\n3\n");
}

#[test]
fn the_callers_umask_has_no_say_inside() {
    for mask in ["0777", "0"] {
        let mut bundle =
            Bundle::script("umask; stat -c %a /new /dev/null /dev/pts /sys/fs/cgroup /dev/shm");
        bundle.mount(
            json!({"destination": "/new", "type": "tmpfs", "source": "x",
            "options": ["mode=750"]}),
        );
        let output = by_shell(&bundle, &format!("umask {mask}"));
        assert_eq!(output, "0022\n750\n666\n755\n755\n1777\n", "umask {mask}");
    }
}

#[test]
fn a_folder_made_for_a_mount_can_be_entered_whatever_the_umask() {
    let mut bundle = Bundle::script("stat -c %a /deep /deep/er");
    bundle.mount(json!({"destination": "/deep/er/est", "type": "tmpfs", "source": "x"}));
    assert_eq!(by_shell(&bundle, "umask 0777"), "755\n755\n");
}

#[test]
fn signals_that_the_caller_ignores_or_blocks_reach_the_container() {
    let bundle = Bundle::script("grep -E '^Sig(Ign|Blk)' /proc/self/status | tr -d '\\t'");
    let output = by_shell(&bundle, "trap '' PIPE HUP INT TERM USR1");
    assert_eq!(output, "SigBlk:0000000000000000\nSigIgn:0000000000000000\n");
}

#[test]
fn few_descriptors_are_enough_or_it_is_refused() {
    let bundle = Bundle::script("echo ran");
    assert_eq!(by_shell(&bundle, "ulimit -n 40"), "ran\n");
    let bundle = Bundle::script("echo ran");
    let before = Machine::look(bundle.id(), &[&bundle.path().join("state")]);
    for limit in 4..12 {
        let spoil = format!("ulimit -n {limit}");
        let create = bundle.create_by(|command| through_shell(command, &spoil));
        if create.status.success() {
            bundle.call(&["delete", "--force", bundle.id()]);
        } else {
            let message = String::from_utf8_lossy(&create.stderr);
            assert!(
                message.contains("Too many open files"),
                "{limit}: {message}"
            );
        }
        assert_nothing_left(&bundle, &before, &spoil);
    }
}

/// What was killed takes a moment to be gone.
fn assert_nothing_left(bundle: &Bundle, before: &Machine, what: &str) {
    let state = bundle.path().join("state");
    until(&format!("nothing is left: {what}"), || {
        let left = Machine::look(bundle.id(), &[&state]).difference(before);
        left.is_empty()
    });
}

#[test]
fn other_descriptors_of_the_caller_do_not_reach_the_container() {
    let bundle = Bundle::script("ls /proc/$$/fd; true");
    assert_eq!(
        by_shell(&bundle, "exec 3</ 4</dev/null 9</etc"),
        "0\n1\n2\n"
    );
}

#[test]
fn a_create_that_is_killed_at_any_moment_leaves_nothing_behind_a_forced_delete() {
    // As long as it takes here and now, and longer: the machine may get slower.
    let whole = {
        let bundle = Bundle::new(&["sleep", "1000"]);
        let begin = Instant::now();
        let create = bundle.create();
        assert!(create.status.success(), "{create:?}");
        begin.elapsed().as_micros()
    };
    let mut killed = 0;
    for delay in (1..=40).map(|step| step * whole / 25) {
        let bundle = Bundle::new(&["sleep", "1000"]);
        let before = Machine::look(bundle.id(), &[&bundle.path().join("state")]);
        let create = bundle.create_by(|command| {
            let program = command.get_program().to_owned();
            let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
            *command = Command::new("timeout");
            let seconds = format!("{}.{:06}", delay / 1_000_000, delay % 1_000_000);
            command
                .args(["--signal=KILL", &seconds])
                .arg(program)
                .args(args);
        });
        killed += usize::from(!create.status.success());
        let delete = bundle.call(&["delete", "--force", bundle.id()]);
        assert!(delete.status.success(), "{delay} µs: {delete:?}");
        assert_nothing_left(&bundle, &before, &format!("killed after {delay} µs"));
    }
    assert!(killed > 3, "only {killed} were killed: this proves nothing");
}

#[test]
fn what_cannot_be_a_string_of_the_kernels_is_refused() {
    for (pointer, what) in [
        ("/hostname", "hostname"),
        ("/process/args/0", "process.args"),
        ("/process/cwd", "process.cwd"),
        ("/mounts/1/destination", "mounts.destination"),
    ] {
        let mut bundle = Bundle::new(&["true"]);
        *bundle.config.pointer_mut(pointer).unwrap() = json!("/a\u{0}b");
        let message = refusal(&bundle);
        assert!(
            message.contains(what) && message.contains("NUL"),
            "{pointer}: {message}"
        );
    }
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["process"]["env"] = json!(["A=\u{0}"]);
    assert!(refusal(&bundle).contains("NUL"));
}

fn refusal(bundle: &Bundle) -> String {
    let create: Output = bundle.create();
    assert!(!create.status.success(), "{create:?}");
    String::from_utf8_lossy(&create.stderr).into_owned()
}

#[test]
fn a_large_environment_arrives_whole() {
    let mut bundle = Bundle::script("env | wc -c");
    let env: Vec<String> = (0..16)
        .map(|number| format!("V{number:02}={}", "x".repeat(65536 - 5)))
        .chain(["PATH=/bin".to_owned()])
        .collect();
    bundle.config["process"]["env"] = json!(env);
    let length: usize = bundle.output().trim().parse().unwrap();
    assert!(length >= 1 << 20, "{length}");
}

#[test]
fn a_configuration_larger_than_any_is_refused_as_such() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["annotations"] = json!({"x": "y".repeat(5 << 20)});
    assert!(refusal(&bundle).contains("larger than"));
}

#[test]
fn a_thousand_mounts_are_made_and_gone_with_the_container() {
    let mut bundle = Bundle::script("grep -c /many/ /proc/self/mountinfo");
    for number in 0..1000 {
        bundle.mount(
            json!({"destination": format!("/many/{number}"), "type": "tmpfs",
            "source": "x"}),
        );
    }
    assert_eq!(bundle.output(), "1000\n");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(bundle.id()), "{mounts}");
}

#[test]
fn more_bind_mounts_than_descriptors_are_refused_cleanly() {
    let mut bundle = Bundle::new(&["true"]);
    let before = Machine::look(bundle.id(), &[&bundle.path().join("state")]);
    for number in 0..200 {
        bundle.mount(
            json!({"destination": format!("/many/{number}"), "source": "/dev",
            "options": ["bind"]}),
        );
    }
    let create = bundle.create_by(|command| through_shell(command, "ulimit -n 100"));
    let message = String::from_utf8_lossy(&create.stderr);
    assert!(message.contains("Too many open files"), "{message}");
    assert_nothing_left(&bundle, &before, "200 binds");
}

#[test]
fn the_state_is_nobody_elses_to_read() {
    let bundle = Bundle::new(&["true"]);
    assert!(bundle.create().status.success());
    let folder = bundle.path().join("state");
    for path in [folder.clone(), folder.join(bundle.id())] {
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o700);
        assert_eq!(metadata.uid(), 0);
    }
}

#[test]
fn its_own_name_for_itself_makes_no_difference() {
    // As a multi-call binary or a wrapper would execute it.
    let bundle = Bundle::script("echo ran");
    let create = bundle.create_by(|command| {
        command.arg0("something else");
    });
    assert_eq!(bundle.finish(create).stdout, "ran\n");
}

#[test]
fn without_a_procfs_it_is_refused() {
    // P2: a tmpfs in its place must not be taken for one.
    for spoil in ["umount -l /proc", "mount -t tmpfs x /proc"] {
        let bundle = Bundle::new(&["true"]);
        let before = Machine::look(bundle.id(), &[&bundle.path().join("state")]);
        let create = bundle.create_by(|command| {
            through_shell(command, spoil);
            let program = command.get_program().to_owned();
            let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
            let output = |name| File::create(bundle.path().join(name)).unwrap();
            *command = Command::new("unshare");
            command.args(["--mount", "--"]).arg(program).args(args);
            command.stdout(output("stdout")).stderr(output("stderr"));
        });
        assert!(!create.status.success(), "{spoil}");
        assert!(!create.stderr.is_empty(), "{spoil}");
        assert_nothing_left(&bundle, &before, spoil);
    }
}

/// After the start there would be nobody to tell.
#[test]
fn a_capability_that_the_caller_lacks_is_refused_when_the_container_is_created() {
    let mut bundle = Bundle::new(&["true"]).as_host_root();
    let sets = ["bounding", "effective", "permitted"];
    for set in sets {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_KILL", "CAP_SYS_TIME"]);
    }
    let without = |bundle: &Bundle| {
        let create = bundle.command(&["create"]);
        let mut command = std::process::Command::new("setpriv");
        command.args(["--bounding-set", "-sys_time"]);
        command.arg(create.get_program()).args(create.get_args());
        command.stdin(std::process::Stdio::null());
        command.output().unwrap()
    };
    let create = without(&bundle);
    assert_eq!(create.status.code(), Some(1), "{create:?}");
    let told = String::from_utf8(create.stderr).unwrap();
    assert!(
        told.contains("process.capabilities is \"CAP_SYS_TIME\""),
        "{told}"
    );
    assert!(!bundle.call(&["state", bundle.id()]).status.success());
    for set in sets {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_KILL"]);
    }
    let ran = bundle.run();
    assert!(ran.create.status.success(), "{ran:?}");
}

/// `create` has ended, and `start` does not wait for the program.
#[test]
fn a_program_that_cannot_be_executed_is_told_on_the_containers_own_standard_error() {
    let bundle = Bundle::new(&["/bin/garbage"]);
    let garbage = bundle.path().join("layer/bin/garbage");
    dyno_tests::write_file(&garbage, "\0\0\0\0");
    std::fs::set_permissions(&garbage, PermissionsExt::from_mode(0o755)).unwrap();
    let ran = bundle.run();
    assert!(ran.create.status.success(), "{ran:?}");
    let told = "dyno-runtime: cannot execute \"/bin/garbage\": Exec format error";
    assert!(ran.stderr.contains(told), "{ran:?}");
}
