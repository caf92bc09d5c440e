//! Clients that misbehave, limits that are reached.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::rig::{Rig, Session, read_line};

fn sleeping() -> Rig {
    let mut rig = Rig::new("while :; do sleep 1; done");
    rig.start();
    rig
}

fn end(mut rig: Rig) {
    rig.ask(json!({"op": "stop", "grace_ms": 0}));
    rig.finished();
}

#[test]
fn the_socket_is_for_its_owner_only() {
    let rig = sleeping();
    let mode = fs::metadata(rig.dir.join("monitor.sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    end(rig);
}

#[test]
fn several_requests_may_follow_each_other_on_a_connection() {
    let rig = sleeping();
    let mut socket = rig.connect();
    socket
        .write_all(b"{\"op\":\"status\"}\n{\"op\":\"signal\",\"signal\":18}\n{\"op\":")
        .unwrap();
    assert!(read_line(&mut socket).contains("running"));
    assert!(read_line(&mut socket).contains("running"));
    socket.write_all(b"\"status\"}\n").unwrap();
    assert!(read_line(&mut socket).contains("running"));
    end(rig);
}

#[test]
fn a_client_that_closes_its_half_is_still_answered() {
    let rig = sleeping();
    let mut socket = rig.connect();
    socket.write_all(b"{\"op\":\"status\"}\n").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("running"), "{answer}");
    end(rig);
}

#[test]
fn what_is_no_request_is_refused_and_the_connection_closed() {
    let rig = sleeping();
    let long = vec![b'x'; 300_000];
    for garbage in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"\0\xff\n",
        b"{\"op\":\"explode\"}\n",
        &long,
    ] {
        let mut socket = rig.connect();
        // It may close before it has read everything.
        socket.write_all(garbage).ok();
        let answer = read_line(&mut socket);
        assert!(answer.contains("\"invalid\""), "{answer}");
    }
    assert_eq!(rig.ask(json!({"op": "status"}))["ok"]["phase"], "running");
    end(rig);
}

#[test]
fn one_connection_too_many_is_told_so_and_the_others_live() {
    let rig = sleeping();
    let mut sockets: Vec<_> = (0..64).map(|_| rig.connect()).collect();
    let mut surplus = rig.connect();
    assert!(read_line(&mut surplus).contains("\"exhausted\""));
    sockets[0].write_all(b"{\"op\":\"status\"}\n").unwrap();
    assert!(read_line(&mut sockets[0]).contains("running"));
    drop(sockets);
    end(rig);
}

#[test]
fn reaching_the_memory_limit_ends_the_whole_dyno_and_is_recorded() {
    // The hog is a child; init itself would live on.
    let mut rig = Rig::new("dd if=/dev/zero of=/dev/null bs=200M count=1; sleep 100");
    rig.spec["linux"]["resources"] = json!({
        "memory": {"limit": 32 << 20, "swap": 32 << 20},
        "unified": {"memory.oom.group": "1"}
    });
    rig.start();
    let state = rig.finished();
    let exit = state.status.exit.unwrap();
    assert!(exit.oom, "{state:?}");
    assert_eq!(exit.code, 137);
    assert!(state.status.reason.unwrap().contains("memory limit"));
}

#[test]
fn a_killed_dyno_is_not_said_to_be_out_of_memory() {
    let mut rig = Rig::new("kill -9 $$; sleep 100");
    rig.spec["linux"]["resources"] = json!({"memory": {"limit": 32 << 20}});
    rig.start();
    // A pid 1 cannot kill itself: it goes on to sleep.
    rig.ask(json!({"op": "signal", "signal": 9}));
    let exit = rig.finished().status.exit.unwrap();
    assert_eq!((exit.code, exit.oom), (137, false));
}

#[test]
fn the_monitor_stays_small_under_a_flood() {
    let mut rig = Rig::new("yes 0123456789 | head -c 40000000");
    rig.create();
    let readers: Vec<_> = (0..5)
        .map(|_| {
            let socket = rig.frames(json!({"op": "attach"}));
            std::thread::spawn(move || Session::read(socket).stdout.len())
        })
        .collect();
    rig.ask(json!({"op": "start"}));
    let status = format!("/proc/{}/status", rig.monitor_pid());
    let mut peak = 0;
    while let Ok(text) = fs::read_to_string(&status) {
        let Some(anon) = text.lines().find_map(|line| line.strip_prefix("RssAnon:")) else {
            break;
        };
        let kib: u64 = anon.trim().trim_end_matches(" kB").parse().unwrap();
        peak = peak.max(kib);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(peak > 0 && peak < 3 * 1024, "{peak} KiB");
    for reader in readers {
        assert_eq!(reader.join().unwrap(), 40_000_000);
    }
    rig.finished();
}
