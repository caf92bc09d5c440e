//! Taking part in the dyno's standard streams.

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use dyno_runtime::monitor::frame::Kind;
use serde_json::json;

use crate::rig::{LONG, Rig, Session, read_frame, read_until, send_frame};

/// More than pipe, socket and outbox hold together.
const MUCH: usize = 4_000_000;

/// More than socket and outbox hold: of what this client has read, every other
/// one has taken something, or was dropped.
const HELD: usize = 600_000;

#[test]
fn output_comes_as_frames_of_its_stream_and_ends_with_the_exit() {
    let mut rig = Rig::new("echo out; echo err >&2; exit 9");
    rig.create();
    let socket = rig.frames(json!({"op": "attach"}));
    rig.ask(json!({"op": "start"}));
    let session = Session::read(socket);
    assert_eq!(session.stdout(), "out\n");
    assert_eq!(session.stderr(), "err\n");
    assert_eq!(session.code(), 9);
    rig.finished();
}

#[test]
fn input_reaches_the_dyno_and_its_end_too() {
    let mut rig = Rig::new("cat; echo over");
    rig.config["stdin"] = json!(true);
    rig.create();
    let mut socket = rig.frames(json!({"op": "attach", "stdin": true}));
    // Before the start: it waits in the pipe.
    send_frame(&mut socket, Kind::Stdin, b"early ");
    rig.ask(json!({"op": "start"}));
    send_frame(&mut socket, Kind::Stdin, b"late\n");
    assert_eq!(read_until(&mut socket, "late\n"), "early late\n");
    send_frame(&mut socket, Kind::Stdin, b"");
    let session = Session::read(socket);
    assert_eq!(session.stdout(), "over\n");
    assert_eq!(session.code(), 0);
    rig.finished();
}

#[test]
fn more_input_than_all_buffers_hold_arrives_whole() {
    let mut rig = Rig::new("sleep 0.3; cat | tail -c 10");
    rig.config["stdin"] = json!(true);
    rig.start();
    let mut socket = rig.frames(json!({"op": "attach", "stdin": true}));
    for _ in 0..MUCH / 50_000 {
        send_frame(&mut socket, Kind::Stdin, &[b'x'; 50_000]);
    }
    send_frame(&mut socket, Kind::Stdin, b"0123456789");
    send_frame(&mut socket, Kind::Stdin, b"");
    assert_eq!(Session::read(socket).stdout(), "0123456789");
    rig.finished();
}

#[test]
fn one_client_at_a_time_has_the_input() {
    let mut rig = Rig::new("cat");
    rig.config["stdin"] = json!(true);
    rig.start();
    let first = rig.frames(json!({"op": "attach", "stdin": true}));
    let second = rig.ask(json!({"op": "attach", "stdin": true}));
    assert_eq!(second["err"]["kind"], "conflict", "{second}");
    drop(first);
    let begin = Instant::now();
    let mut third = loop {
        let (answer, socket) = rig.open(json!({"op": "attach", "stdin": true}));
        if answer["ok"].is_object() {
            break socket;
        }
        assert!(begin.elapsed() < LONG, "{answer}");
    };
    send_frame(&mut third, Kind::Stdin, b"mine\n");
    assert_eq!(read_until(&mut third, "\n"), "mine\n");
    send_frame(&mut third, Kind::Stdin, b"");
    assert_eq!(Session::read(third).code(), 0);
    rig.finished();
}

#[test]
fn input_that_is_closed_is_said_to_be() {
    let mut rig = Rig::new("cat; sleep 100");
    rig.start();
    let answer = rig.ask(json!({"op": "attach", "stdin": true}));
    assert_eq!(answer["err"]["kind"], "conflict", "{answer}");
    assert!(answer["err"]["hint"].is_string());
    rig.ask(json!({"op": "stop", "grace_ms": 0}));
    rig.finished();
}

#[test]
fn a_terminal_has_the_size_of_its_client() {
    let mut rig = Rig::new("stty size; read line; stty size; echo got $line");
    rig.spec["process"]["terminal"] = json!(true);
    rig.config["stdin"] = json!(true);
    rig.create();
    let mut socket = rig.frames(json!({"op": "attach", "stdin": true, "size": [25, 81]}));
    rig.ask(json!({"op": "start"}));
    assert_eq!(read_until(&mut socket, "\n"), "25 81\r\n");
    send_frame(&mut socket, Kind::Resize, &[0, 50, 1, 0]);
    send_frame(&mut socket, Kind::Stdin, b"hello\n");
    let session = Session::read(socket);
    assert_eq!(session.stdout(), "hello\r\n50 256\r\ngot hello\r\n");
    assert_eq!(session.code(), 0);
    rig.finished();
    assert!(rig.log().contains(&"stdout F 50 256".to_owned()), "{rig}");
}

#[test]
fn a_signal_frame_reaches_init() {
    let mut rig = Rig::new("trap 'exit 6' INT; echo ready; while :; do sleep 0.05; done");
    rig.start();
    let mut socket = rig.frames(json!({"op": "attach"}));
    rig.wait_for_line("stdout F ready");
    send_frame(&mut socket, Kind::Signal, &[2]);
    assert_eq!(Session::read(socket).code(), 6);
    rig.finished();
}

#[test]
fn attached_clients_stay_over_a_restart() {
    let mut rig = Rig::new("echo run; exit 1");
    rig.config["restart"] = json!({"policy": "on_failure", "max_retries": 2});
    rig.create();
    let socket = rig.frames(json!({"op": "attach"}));
    rig.ask(json!({"op": "start"}));
    let session = Session::read(socket);
    assert_eq!(session.stdout(), "run\nrun\nrun\n");
    assert_eq!(session.code(), 1);
    rig.finished();
}

#[test]
fn input_that_was_ended_stays_so_after_a_restart() {
    let mut rig = Rig::new("cat; exit 1");
    rig.config["stdin"] = json!(true);
    rig.config["restart"] = json!({"policy": "on_failure", "max_retries": 1});
    rig.start();
    let mut socket = rig.frames(json!({"op": "attach", "stdin": true}));
    send_frame(&mut socket, Kind::Stdin, b"once\n");
    send_frame(&mut socket, Kind::Stdin, b"");
    let session = Session::read(socket);
    assert_eq!(session.stdout(), "once\n");
    assert_eq!(rig.finished().status.restarts, 1);
}

#[test]
fn a_start_that_fails_is_an_error_frame() {
    let mut rig = Rig::new("");
    rig.spec["process"]["args"] = json!(["nothing"]);
    rig.create();
    let socket = rig.frames(json!({"op": "attach"}));
    rig.ask(json!({"op": "start"}));
    assert_eq!(Session::read(socket).error(), "not_found");
    rig.finished();
}

#[test]
fn ten_clients_read_the_same() {
    let mut rig = Rig::new("seq 1 20000");
    rig.create();
    let readers: Vec<_> = (0..10)
        .map(|_| {
            let socket = rig.frames(json!({"op": "attach"}));
            std::thread::spawn(move || Session::read(socket))
        })
        .collect();
    rig.ask(json!({"op": "start"}));
    let expected: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    for reader in readers {
        let session = reader.join().unwrap();
        assert!(session.stdout() == expected);
        assert_eq!(session.code(), 0);
    }
    rig.finished();
}

#[test]
fn an_observer_that_reads_nothing_is_dropped_and_the_dyno_goes_on() {
    let line = "x".repeat(63);
    let mut rig = Rig::new(&format!("read go; yes {line} | head -c {MUCH}"));
    rig.config["stdin"] = json!(true);
    rig.start();
    let slow = rig.frames(json!({"op": "attach"}));
    let mut feeder = rig.frames(json!({"op": "attach", "stdin": true}));
    let begin = Instant::now();
    send_frame(&mut feeder, Kind::Stdin, b"go\n");
    let mut read = 0;
    while read < HELD {
        read += read_frame(&mut feeder).unwrap().1.len();
    }
    assert!(
        begin.elapsed() > Duration::from_secs(1),
        "it was not waited for at all"
    );
    // Why it was dropped has to be read soon: not only when the feeder has read all.
    let dropped = std::thread::spawn(move || Session::read(slow));
    assert_eq!(read + Session::read(feeder).stdout.len(), MUCH);
    let dropped = dropped.join().unwrap();
    assert!(dropped.stdout.len() < MUCH);
    assert_eq!(dropped.error(), "exhausted");
    rig.finished();
    assert_eq!(rig.log().len(), MUCH / (line.len() + 1));
}

#[test]
fn who_attached_before_the_start_loses_nothing_by_pausing() {
    let mut rig = Rig::new(&format!("yes | head -c {MUCH}; exit 3"));
    rig.create();
    let mut socket = rig.frames(json!({"op": "attach"}));
    rig.ask(json!({"op": "start"}));
    let (_, first) = read_frame(&mut socket).unwrap();
    // Longer than an observer is waited for.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(rig.ask(json!({"op": "status"}))["ok"]["phase"], "running");
    let session = Session::read(socket);
    assert_eq!(first.len() + session.stdout.len(), MUCH);
    assert_eq!(session.code(), 3);
    rig.finished();
}

#[test]
fn a_client_that_leaves_changes_nothing() {
    let mut rig = Rig::new("read go; seq 1 1000; echo end");
    rig.config["stdin"] = json!(true);
    rig.start();
    for _ in 0..5 {
        drop(rig.frames(json!({"op": "attach"})));
    }
    let half = rig.frames(json!({"op": "attach"}));
    half.shutdown(Shutdown::Write).unwrap();
    let mut feeder = rig.frames(json!({"op": "attach", "stdin": true}));
    send_frame(&mut feeder, Kind::Stdin, b"go\n");
    assert!(Session::read(feeder).stdout().ends_with("end\n"));
    assert_eq!(rig.exit_code(), 0);
}

#[test]
fn bytes_that_are_no_frame_end_the_connection_only() {
    let mut rig = Rig::new("sleep 100");
    rig.start();
    let mut socket = rig.frames(json!({"op": "attach"}));
    socket.write_all(&[1, 0, 0, 0, 0]).unwrap();
    assert_eq!(Session::read(socket).error(), "invalid");
    assert_eq!(rig.ask(json!({"op": "status"}))["ok"]["phase"], "running");
    rig.ask(json!({"op": "stop", "grace_ms": 0}));
    rig.finished();
}

#[test]
fn a_client_that_stopped_reading_does_not_delay_the_end() {
    let mut rig = Rig::new("yes");
    rig.create();
    let socket = rig.frames(json!({"op": "attach"}));
    rig.ask(json!({"op": "start"}));
    // Until everything is full and the dyno stands still.
    let size = || std::fs::metadata(rig.dir.join("log")).unwrap().len();
    let mut before = 0;
    while size() != before || before == 0 {
        before = size();
        std::thread::sleep(Duration::from_millis(200));
    }
    let begin = Instant::now();
    let answer = rig.ask(json!({"op": "stop", "grace_ms": 100}));
    assert_eq!(answer["ok"]["phase"], "exited", "{answer}");
    // The client itself would have had ten minutes.
    assert!(
        begin.elapsed() < Duration::from_secs(60),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(Session::read(socket).code(), 137);
    rig.finished();
}
