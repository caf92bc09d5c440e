//! Further processes in a running dyno.

use dyno_runtime::monitor::frame::Kind;
use serde_json::{Value, json};

use crate::rig::{Rig, Session, process, read_until, send_frame};

fn sleeping() -> Rig {
    let mut rig = Rig::new("while :; do sleep 1; done");
    rig.start();
    rig
}

fn exec(script: &str) -> Value {
    json!({"op": "exec", "process": process(script)})
}

fn end(mut rig: Rig) {
    rig.ask(json!({"op": "stop", "grace_ms": 0}));
    rig.finished();
}

#[test]
fn streams_and_exit_code_come_back() {
    let rig = sleeping();
    let session = Session::read(rig.frames(exec("echo out; echo err >&2; exit 17")));
    assert_eq!(session.stdout(), "out\n");
    assert_eq!(session.stderr(), "err\n");
    assert_eq!(session.code(), 17);
    end(rig);
}

#[test]
fn it_is_inside_the_dyno() {
    let rig = sleeping();
    let session = Session::read(rig.frames(exec(
        "readlink /proc/1/ns/net; readlink /proc/self/ns/net; ls /",
    )));
    let text = session.stdout();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], lines[1]);
    assert_eq!(lines[2..], ["bin", "dev", "proc", "sys", "tmp"]);
    end(rig);
}

#[test]
fn input_is_passed_on() {
    let rig = sleeping();
    let mut request = exec("cat; exit 2");
    request["stdin"] = json!(true);
    let mut socket = rig.frames(request);
    send_frame(&mut socket, Kind::Stdin, b"through");
    send_frame(&mut socket, Kind::Stdin, b"");
    let session = Session::read(socket);
    assert_eq!(session.stdout(), "through");
    assert_eq!(session.code(), 2);
    end(rig);
}

#[test]
fn without_input_it_reads_the_end_at_once() {
    let rig = sleeping();
    assert_eq!(Session::read(rig.frames(exec("cat; exit 2"))).code(), 2);
    end(rig);
}

#[test]
fn a_terminal_of_its_own_has_a_size() {
    let rig = sleeping();
    let mut request = exec("stty size; read x; stty size; exit 1");
    request["process"]["terminal"] = json!(true);
    request["stdin"] = json!(true);
    request["size"] = json!([30, 100]);
    let mut socket = rig.frames(request);
    // The size is set right after the start: it may already have looked.
    read_until(&mut socket, "\n");
    send_frame(&mut socket, Kind::Resize, &[0, 40, 0, 120]);
    send_frame(&mut socket, Kind::Stdin, b"\n");
    let session = Session::read(socket);
    assert_eq!(session.stdout(), "\r\n40 120\r\n");
    assert_eq!(session.code(), 1);
    end(rig);
}

#[test]
fn a_missing_command_is_not_found_and_a_plain_file_forbidden() {
    let rig = sleeping();
    for (program, kind) in [("/bin/nothing", "not_found"), ("/bin/plain", "forbidden")] {
        let mut request = exec("");
        request["process"]["args"] = json!([program]);
        let answer = rig.ask(request);
        assert_eq!(answer["err"]["kind"], kind, "{answer}");
        assert!(
            answer["err"]["message"].as_str().unwrap().contains(program),
            "{answer}"
        );
    }
    end(rig);
}

#[test]
fn a_malformed_process_is_invalid() {
    let rig = sleeping();
    let mut request = exec("true");
    request["process"]["cwd"] = json!("relative");
    assert_eq!(rig.ask(request)["err"]["kind"], "invalid");
    end(rig);
}

#[test]
fn a_background_child_does_not_keep_the_connection() {
    let rig = sleeping();
    let session = Session::read(rig.frames(exec("sleep 1000 & echo done; exit 0")));
    assert_eq!(session.stdout(), "done\n");
    assert_eq!(session.code(), 0);
    end(rig);
}

#[test]
fn its_process_is_hung_up_when_the_client_goes() {
    let rig = sleeping();
    let script =
        "trap 'echo hung up > /tmp/told; exit' HUP; echo ready; while :; do sleep 0.02; done";
    let mut socket = rig.frames(exec(script));
    read_until(&mut socket, "ready\n");
    drop(socket);
    let begin = std::time::Instant::now();
    while Session::read(rig.frames(exec("cat /tmp/told"))).stdout() != "hung up\n" {
        assert!(begin.elapsed() < crate::rig::LONG);
    }
    end(rig);
}

#[test]
fn a_signal_frame_reaches_it_and_not_init() {
    let rig = sleeping();
    let mut socket = rig.frames(exec("echo ready; while :; do sleep 0.02; done"));
    read_until(&mut socket, "ready\n");
    send_frame(&mut socket, Kind::Signal, &[15]);
    let session = Session::read(socket);
    assert_eq!(session.code(), 143);
    assert_eq!(rig.ask(json!({"op": "status"}))["ok"]["phase"], "running");
    end(rig);
}

#[test]
fn it_ends_with_the_dyno_and_its_client_is_told() {
    let mut rig = Rig::new("while :; do sleep 1; done");
    rig.start();
    let mut socket = rig.frames(exec("echo ready; while :; do sleep 1; done"));
    read_until(&mut socket, "ready\n");
    rig.ask(json!({"op": "stop", "grace_ms": 0}));
    assert_eq!(Session::read(socket).code(), 137);
    rig.finished();
}

#[test]
fn twenty_at_once_are_kept_apart() {
    let rig = sleeping();
    let readers: Vec<_> = (0..20)
        .map(|number| {
            let socket = rig.frames(exec(&format!("seq {number} 5000; exit {number}")));
            std::thread::spawn(move || (number, Session::read(socket)))
        })
        .collect();
    for reader in readers {
        let (number, session) = reader.join().unwrap();
        let expected: String = (number..=5000).map(|line| format!("{line}\n")).collect();
        assert!(session.stdout() == expected);
        assert_eq!(session.code(), number);
    }
    end(rig);
}

#[test]
fn before_the_start_there_is_nothing_to_execute_in() {
    let mut rig = Rig::new("true");
    rig.create();
    assert_eq!(rig.ask(exec("true"))["err"]["kind"], "conflict");
    rig.ask(json!({"op": "start"}));
    rig.finished();
}
