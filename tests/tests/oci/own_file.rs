//! The runtime's own file, executed by a container that wants to write to it (P5),
//! and folders that were passed on to it (P4).

use std::path::PathBuf;
use std::process::{Command, Stdio};

use dyno_tests::bundle::Bundle;
use dyno_tests::until;
use serde_json::json;

/// Waits for a process with the FIFO as an argument, holds its program's file, and
/// writes to it: at once, and when nobody executes it any more.
const OVERWRITE: &str = r#"
    touch /ready
    while :; do
        for p in /proc/[0-9]*; do
            words=$(tr '\0' '\n' 2>/dev/null < $p/cmdline) || continue
            echo "$words" | grep -qx /fifo || continue
            # On its way in, and not yet that program.
            case $words in */dyno-runtime*) continue;; esac
            exec 7< $p/exe || continue
            echo x >> $p/exe
            kill -9 ${p#/proc/}
            until [ ! -e $p/exe ]; do :; done
            n=0
            while [ $n -lt 500 ]; do n=$((n + 1)); echo x >> /proc/self/fd/7 && break; done
            touch /tried
            exec sleep 1000
        done
    done"#;

/// A container of root of the host whose first process overwrites what is executed
/// after it.
fn overwriting() -> Bundle {
    let mut bundle = Bundle::script(OVERWRITE).as_host_root();
    let capabilities = json!(["CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SYS_PTRACE"]);
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set] = capabilities.clone();
    }
    let fifo = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    let at = bundle.path().join("layer/fifo");
    rustix::fs::mknodat(rustix::fs::CWD, at, fifo, mode, 0).unwrap();
    // A copy: who succeeds has spoilt nothing.
    let copy = bundle.path().join("dyno-runtime");
    std::fs::copy(&bundle.program, &copy).unwrap();
    bundle.program = copy;
    bundle
}

/// Executes a program in it that waits, and is overwritten.
fn overwritten(bundle: &Bundle, program: &[&str]) {
    bundle.run_detached();
    let upper = |name: &str| bundle.path().join("upper").join(name);
    until("it is ready", || upper("ready").exists());
    let mut exec = bundle.runtime(&["exec", bundle.id()]);
    exec.args(program).stderr(Stdio::null());
    let mut exec = exec.spawn().unwrap();
    until("it has tried", || upper("tried").exists());
    exec.wait().unwrap();
}

#[test]
fn a_container_that_executes_the_runtime_does_not_overwrite_it() {
    // CVE-2019-5736.
    let bundle = overwriting();
    let before = std::fs::read(&bundle.program).unwrap();
    // Its log is a FIFO that nobody reads: it stays.
    overwritten(&bundle, &["/proc/self/exe", "--log", "/fifo", "features"]);
    let after = std::fs::read(&bundle.program).unwrap();
    assert!(before == after, "the runtime was overwritten");

    // The control: a program of the container's is.
    let bundle = overwriting();
    let victim = bundle.path().join("layer/srv/cat");
    std::fs::copy(dyno_tests::root::busybox(), victim).unwrap();
    overwritten(&bundle, &["/srv/cat", "/fifo"]);
    let victim = std::fs::read(bundle.path().join("upper/srv/cat")).unwrap();
    assert!(victim.ends_with(b"x\n"), "the control");
}

/// A command whose third descriptor is this folder.
fn with_folder(command: &Command, folder: &PathBuf) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "exec 3<\"$0\"; exec \"$@\""]).arg(folder);
    shell.arg(command.get_program()).args(command.get_args());
    shell.stdin(Stdio::null());
    shell
}

#[test]
fn a_folder_that_was_passed_on_is_no_working_folder() {
    // CVE-2024-21626, where the descriptor is surely there.
    let folder = dyno_tests::Folder::new();
    dyno_tests::write_file(&folder.path().join("secret"), "secret");
    let folder = folder.path().to_owned();
    for host_root in [false, true] {
        let bundle = |cwd: &str, script: &str| {
            let mut bundle = Bundle::script(script);
            bundle.config["process"]["cwd"] = json!(cwd);
            match host_root {
                true => bundle.as_host_root(),
                false => bundle,
            }
        };
        let run = |bundle: &Bundle| {
            let run = bundle.command(&["run", "--preserve-fds", "1"]);
            with_folder(&run, &folder).output().unwrap()
        };
        let refused = run(&bundle("/proc/self/fd/3", "cat secret"));
        assert!(!refused.status.success(), "{refused:?}");
        assert_eq!(refused.stdout, b"", "{refused:?}");
        // The control: who was given it may use it.
        let script = "cd /proc/self/fd/3 && cat secret";
        let used = run(&bundle("/", script));
        assert_eq!(used.stdout, b"secret", "{used:?}");

        let running = bundle("/", "exec sleep 1000");
        running.run_detached();
        let exec = |options: &[&str], command: &[&str]| {
            let words = ["exec", "--preserve-fds", "1"];
            let words = [&words, options, &[running.id()], command].concat();
            with_folder(&running.runtime(&words), &folder)
                .output()
                .unwrap()
        };
        let refused = exec(&["--cwd", "/proc/self/fd/3"], &["cat", "secret"]);
        assert!(!refused.status.success(), "{refused:?}");
        assert_eq!(refused.stdout, b"", "{refused:?}");
        let used = exec(&[], &["sh", "-c", script]);
        assert_eq!(used.stdout, b"secret", "{used:?}");
    }
}

/// In a container that may make mounts, a runtime whose log is a FIFO that nobody
/// reads, so that it stays: whether the mount of the file that it runs from is
/// read-only, and whether that file is still mapped by its path.
fn runs_from(seccomp: &serde_json::Value) -> (bool, bool) {
    let mut bundle = Bundle::new(&["/srv/dyno-runtime", "--log", "/srv/fifo", "features"]);
    bundle = bundle.as_host_root();
    bundle.config["linux"]["seccomp"] = seccomp.clone();
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
    }
    let srv = bundle.path().join("layer/srv");
    std::fs::copy(&bundle.program, srv.join("dyno-runtime")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, srv.join("fifo"), fifo, mode, 0).unwrap();
    bundle.run_detached();
    let process = PathBuf::from(format!("/proc/{}", bundle.state()["pid"]));
    until("it waits for who reads its log", || {
        let call = std::fs::read_to_string(process.join("syscall")).unwrap();
        // openat(2), to append.
        call.starts_with("257 ") && call.contains(" 0x80441 ")
    });
    let flags = rustix::fs::statvfs(process.join("exe")).unwrap().f_flag;
    let maps = std::fs::read_to_string(process.join("maps")).unwrap();
    (
        flags.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        maps.contains("/srv/dyno-runtime"),
    )
}

#[test]
fn the_runtime_runs_from_a_file_that_is_out_of_reach() {
    // A detached mount has no path.
    assert_eq!(runs_from(&json!(null)), (true, false));
    // Where the kernel does not let a process change its file, it is executed anew.
    let refused = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{
            "names": ["prctl"],
            "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 0, "value": 35, "op": "SCMP_CMP_EQ"}],
        }],
    });
    assert_eq!(runs_from(&refused), (true, false));
    // The control: where it gets no copy of its mount, and a command that has nothing
    // to do with a container is content with that.
    let neither = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["open_tree"], "action": "SCMP_ACT_ERRNO"}],
    });
    assert_eq!(runs_from(&neither), (false, true));
}
