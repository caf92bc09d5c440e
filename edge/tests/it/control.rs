//! The contract with hostd: handing over, adopting, replacing, stopping.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dyno_edge::control::protocol::{RefusalKind, Request, StartLine};
use hickory_proto::rr::RecordType;

use crate::rig::*;
use crate::upstream::Upstream;

#[test]
fn the_status_tells_an_adopting_hostd_what_is_missing() {
    let rig = Rig::new();
    let edge = rig.start(&[]);
    let mut control = rig.connect();
    let empty = control.ask(&Request::Status).unwrap();
    assert_eq!(empty.pid, edge.child.id());
    assert_eq!(empty.version, env!("CARGO_PKG_VERSION"));
    assert!(empty.listening.is_empty());
    assert_eq!(empty.tables.generation, 0, "no tables yet, and no error");
    assert_eq!(empty.tables.error, None);

    rig.put(&tables(&[]));
    control.listen("a", &sockets(GATEWAY_A)).unwrap();
    let status = control.ask(&Request::Reload).unwrap();
    assert_eq!(
        status.listening["a"],
        ["udp 127.0.1.1:53", "tcp 127.0.1.1:53"]
    );
    let file = std::fs::metadata(rig.folder.join("tables.json")).unwrap();
    assert_eq!(
        status.tables.inode,
        std::os::unix::fs::MetadataExt::ino(&file)
    );
    assert_eq!(status.tables.generation, 1);
}

#[test]
fn a_closed_network_is_not_served_and_its_port_is_free() {
    let rig = Rig::new();
    let _edge = rig.serving(&tables(&[]));
    let status = rig
        .connect()
        .ask(&Request::Close {
            network: "a".into(),
        })
        .unwrap();
    assert_eq!(status.listening.keys().collect::<Vec<_>>(), ["b"]);
    let again = eventually("the port is free", || {
        std::net::UdpSocket::bind((GATEWAY_A, 53)).ok()
    });
    drop(again);
    assert_eq!(addresses(CLIENT_B, GATEWAY_B, "web."), ["10.2.0.2"]);
    rig.connect()
        .ask(&Request::Close {
            network: "nobody".into(),
        })
        .unwrap();
}

#[test]
fn wrong_requests_are_refused_and_change_nothing() {
    let rig = Rig::new();
    let _edge = rig.serving(&tables(&[]));
    let unix = std::os::unix::net::UnixDatagram::unbound().unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let connected = std::net::TcpStream::connect((GATEWAY_A, 53)).unwrap();
    let good = sockets("127.0.1.3");
    let listen = r#"{"op":"listen","network":"a"}"#;
    let long = format!(r#"{{"op":"listen","network":"{}"}}"#, "x".repeat(200));
    let cases = [
        ("{", vec![], RefusalKind::BadRequest),
        (r#"{"op":"explode"}"#, vec![], RefusalKind::BadRequest),
        (
            r#"{"op":"close","network":"a","now":true}"#,
            vec![],
            RefusalKind::BadRequest,
        ),
        (
            long.as_str(),
            vec![good[0].as_fd()],
            RefusalKind::BadRequest,
        ),
        (listen, vec![], RefusalKind::BadSockets),
        (listen, vec![unix.as_fd()], RefusalKind::BadSockets),
        (listen, vec![file.as_fd()], RefusalKind::BadSockets),
        (listen, vec![connected.as_fd()], RefusalKind::BadSockets),
        (
            listen,
            vec![good[0].as_fd(), unix.as_fd()],
            RefusalKind::BadSockets,
        ),
        (listen, vec![good[0].as_fd(); 9], RefusalKind::BadRequest),
    ];
    for (line, fds, expected) in cases {
        let refusal = rig.connect().send(line, &fds).unwrap_err();
        assert_eq!(refusal.kind, expected, "{line}: {}", refusal.message);
    }
    let endless = "x".repeat(10_000);
    let refusal = rig.connect().send(&endless, &[]).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::BadRequest);
    let status = rig.connect().ask(&Request::Status).unwrap();
    assert_eq!(
        status.listening["a"],
        ["udp 127.0.1.1:53", "tcp 127.0.1.1:53"]
    );
    assert_eq!(addresses(CLIENT_A, GATEWAY_A, "web."), ["10.1.0.2"]);
}

#[test]
fn a_second_edge_refuses_to_start_beside_the_first() {
    let rig = Rig::new();
    let edge = rig.serving(&tables(&[]));
    let (mut second, line) = rig.try_start(&[]);
    let StartLine::Failed { message } = line else {
        panic!("{line:?}")
    };
    assert!(
        message.contains(&format!("pid {}", edge.child.id())),
        "{message}"
    );
    assert_eq!(second.ended().code(), Some(1));
    assert_eq!(addresses(CLIENT_A, GATEWAY_A, "web."), ["10.1.0.2"]);
    assert_eq!(
        rig.connect().ask(&Request::Status).unwrap().pid,
        edge.child.id()
    );
}

#[test]
fn a_successor_takes_over_without_a_failed_answer() {
    let rig = Rig::new();
    let upstream = Upstream::honest("127.0.3.1");
    let mut old = rig.serving(&tables(&[upstream.address]));
    let done = Arc::new(AtomicBool::new(false));
    let load = |work: fn()| {
        let done = Arc::clone(&done);
        std::thread::spawn(move || {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                work();
                rounds += 1;
            }
            rounds
        })
    };
    let clients = [
        load(|| assert_eq!(addresses(CLIENT_A, GATEWAY_A, "web."), ["10.1.0.2"])),
        load(|| {
            assert_eq!(
                addresses(CLIENT_A2, GATEWAY_A, "example.org."),
                ["192.0.2.7"]
            )
        }),
        load(|| {
            let answer = stream::ask(CLIENT_B, GATEWAY_B, &question("web.", RecordType::A));
            assert_eq!(texts(&answer), ["10.2.0.2"]);
        }),
    ];
    for _ in 0..5 {
        let new = rig.start(&["--replace"]);
        assert_eq!(old.ended().code(), Some(0), "the old one ended in order");
        let status = rig.connect().ask(&Request::Status).unwrap();
        assert_eq!(status.pid, new.child.id());
        assert_eq!(status.listening.len(), 2);
        old = new;
    }
    done.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.join().unwrap() > 20, "the load was a load");
    }
}

#[test]
fn stop_answers_what_is_in_flight_and_exits_in_order() {
    let rig = Rig::new();
    let silent = Upstream::silent("127.0.3.1");
    let mut edge = rig.serving(&tables(&[silent.address]));
    let waiting = std::thread::spawn(|| {
        ask(
            CLIENT_A,
            GATEWAY_A,
            &question("slow.example.org.", RecordType::A),
        )
    });
    silent
        .seen
        .recv_timeout(DEADLINE)
        .expect("the query is at the upstream");
    rig.connect().ask(&Request::Stop).unwrap();
    let answer = waiting.join().unwrap();
    assert_eq!(
        answer.metadata.response_code,
        hickory_proto::op::ResponseCode::ServFail
    );
    assert_eq!(edge.ended().code(), Some(0));
}

#[test]
fn after_a_kill_the_next_start_finds_no_obstacle() {
    let rig = Rig::new();
    let mut edge = rig.serving(&tables(&[]));
    edge.child.kill().unwrap();
    edge.child.wait().unwrap();
    let _next = rig.serving(&tables(&[]));
    assert_eq!(addresses(CLIENT_A, GATEWAY_A, "web."), ["10.1.0.2"]);
}
