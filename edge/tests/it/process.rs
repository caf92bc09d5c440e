//! The process: its privileges as the kernel tells them, and its independence.

use std::collections::HashMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use dyno_edge::control::protocol::Request;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rig::*;

fn status(pid: u32) -> HashMap<String, String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once(":\t"));
    pairs
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}

#[test]
fn it_serves_without_any_privilege() {
    let rig = Rig::new();
    let edge = rig.serving(&tables(&[]));
    assert_eq!(addresses(CLIENT_A, GATEWAY_A, "web."), ["10.1.0.2"]);
    // P18: the truth is the kernel's, not the configuration's.
    let status = status(edge.child.id());
    let ids = [UID.to_string().as_str(); 4].join("\t");
    assert_eq!((&status["Uid"], &status["Gid"]), (&ids, &ids));
    assert_eq!(status["Groups"], "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!(
        (status["NoNewPrivs"].as_str(), status["Seccomp"].as_str()),
        ("1", "2")
    );
    assert_eq!(status["Threads"], "1");
    assert!(rig.connect().ask(&Request::Status).unwrap().landlock);
}

#[test]
fn its_files_are_closed_to_others() {
    let rig = Rig::new();
    let _edge = rig.serving(&tables(&[]));
    let socket = std::fs::metadata(rig.folder.join("edge.sock")).unwrap();
    assert_eq!(
        (socket.uid(), socket.permissions().mode() & 0o777),
        (0, 0o600)
    );
    let folder = std::fs::metadata(&rig.folder).unwrap();
    assert_eq!((folder.uid(), folder.gid()), (0, UID));
    assert_eq!(folder.permissions().mode() & 0o777, 0o750);
}

#[test]
fn it_outlives_who_started_it() {
    let rig = Rig::new();
    rig.put(&tables(&[]));
    let edge = rig.command();
    let mut line = vec![edge.get_program().to_owned()];
    line.extend(edge.get_args().map(ToOwned::to_owned));
    // A parent with a session and a process group of its own, killed without warning.
    let mut parent = std::process::Command::new("setsid")
        .args(["sh", "-c", "\"$@\" & wait", "sh"])
        .args(line)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut control = eventually("the edge answers", || {
        rig.folder.join("edge.sock").exists().then(|| rig.connect())
    });
    let pid = control.listen("a", &sockets(GATEWAY_A)).unwrap().pid;
    drop(control);
    let group = Pid::from_raw(i32::try_from(parent.id()).unwrap());
    nix::sys::signal::killpg(group, Signal::SIGKILL).unwrap();
    parent.wait().unwrap();
    eventually("the edge is an orphan", || {
        (status(pid)["PPid"] != group.to_string()).then_some(())
    });
    for _ in 0..20 {
        assert_eq!(addresses(CLIENT_A, GATEWAY_A, "web."), ["10.1.0.2"]);
    }
    assert_eq!(rig.connect().ask(&Request::Stop).unwrap().pid, pid);
    let edge = Pid::from_raw(i32::try_from(pid).unwrap());
    eventually("the edge ends", || kill(edge, None).is_err().then_some(()));
}
