//! Streams, signals and exit codes of a run in the foreground.

use std::io::Read;

use rustix::process::Signal;

use dyno_tests::host::Host;
use dyno_tests::until;

use crate::rig::{Lines, run_with_input, signal, spawn, text, wait};

#[test]
fn a_foreground_run_passes_streams_and_exit_code_through() {
    let host = Host::start();
    let output = host.run(&[
        "run",
        "--rm",
        "host",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(text(&output.stdout), "out\n");
    assert_eq!(text(&output.stderr), "err\n");
    assert_eq!(host.ids(), [] as [&str; 0], "--rm leaves nothing");
}

#[test]
fn standard_input_arrives_whole_and_its_end_does_too() {
    let host = Host::start();
    let sent: Vec<u8> = (0..251).cycle().take(3 << 20).collect();
    let output = run_with_input(&host, &["run", "--rm", "-i", "host", "cat"], sent.clone());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(output.stdout.len(), sent.len());
    assert!(output.stdout == sent, "bytes differ");
}

#[test]
fn a_run_without_i_reads_nothing_of_ours() {
    let host = Host::start();
    let output = run_with_input(&host, &["run", "--rm", "host", "cat"], b"secret".to_vec());
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), String::new())
    );
}

#[test]
fn a_signal_to_us_is_the_dynos() {
    let host = Host::start();
    let script = "trap 'echo got TERM; exit 42' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = spawn(&host, &["run", "--rm", "host", "sh", "-c", script]);
    let mut lines = Lines::of(child.stdout.take().unwrap());
    lines.wait_for("ready");
    signal(&child, Signal::TERM);
    lines.wait_for("got TERM");
    assert_eq!(wait(&mut child), Some(42));
}

#[test]
fn a_process_killed_by_a_signal_is_128_and_its_number() {
    let host = Host::start();
    let output = host.run(&[
        "run",
        "--rm",
        "host",
        "sh",
        "-c",
        "sh -c 'kill -9 $$'; exit $?",
    ]);
    assert_eq!(output.status.code(), Some(137), "{output:?}");
}

#[test]
fn a_reader_that_goes_away_stops_the_run() {
    let host = Host::start();
    let mut child = spawn(&host, &["run", "--rm", "--stop-grace", "0", "host", "yes"]);
    let mut some = [0; 4096];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut some).unwrap();
    drop(stdout);
    assert_eq!(wait(&mut child), Some(141));
    until("the dyno is gone", || host.ids().is_empty());
}
