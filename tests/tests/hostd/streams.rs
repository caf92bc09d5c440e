//! Streams of many lines, and readers that do not read.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use dyno_tests::host::Host;
use dyno_tests::until;
use serde_json::Value;

use crate::rig::get;

#[test]
fn events_are_numbered_without_a_gap_and_a_reader_goes_on_where_it_was() {
    let mut host = Host::with_busybox();
    let begin = get(&host, "/v1/events?since=0&follow=false").len();
    for _ in 0..25 {
        host.ok(&["run", "--rm", "busybox", "true"]);
    }
    until("all are removed", || host.ids().is_empty());
    let all = get(&host, "/v1/events?since=0&follow=false");
    // Each was created, started, exited and removed.
    assert_eq!(all.len() - begin, 100);
    let number = |event: &Value| event["sequence"].as_u64().unwrap();
    let first = number(&all[0]);
    for (n, event) in (first..).zip(&all) {
        assert_eq!(number(event), n);
    }
    for since in [first, first + 49, number(all.last().unwrap())] {
        let path = format!("/v1/events?since={since}&follow=false");
        let later = usize::try_from(since - first + 1).unwrap();
        assert_eq!(get(&host, &path), all[later..], "since {since}");
    }
    for created in all.iter().filter(|e| e["event"] == "dyno_created") {
        let of_it = all.iter().filter(|e| e["dyno"] == created["dyno"]);
        let told: Vec<_> = of_it.map(|e| e["event"].as_str().unwrap()).collect();
        let life = [
            "dyno_created",
            "dyno_started",
            "dyno_exited",
            "dyno_removed",
        ];
        assert_eq!(told, life);
    }
    // A number is never used twice, also where hostd had no time to say good-bye.
    let last = number(all.last().unwrap());
    host.kill_and_restart();
    host.ok(&["run", "--rm", "busybox", "true"]);
    let path = format!("/v1/events?since={last}&follow=false");
    assert!(get(&host, &path).iter().all(|event| number(event) > last));
    assert!(!get(&host, &path).is_empty());
}

#[test]
fn a_reader_that_does_not_read_holds_nobody_up() {
    let host = Host::with_busybox();
    let id = host.ok(&["run", "-d", "busybox", "seq", "1", "300000"]);
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut stream = UnixStream::connect(host.socket()).unwrap();
        write!(
            stream,
            "GET /v1/dynos/{id}/logs?follow=true HTTP/1.1\r\nHost: hostd\r\n\r\n"
        )
        .unwrap();
        // It has begun, and more is there than any buffer holds.
        stream.read_exact(&mut [0; 100]).unwrap();
        stalled.push(stream);
    }
    host.until_phase(&id, "exited");
    assert_eq!(host.ok(&["logs", "-n", "1", &id]), "300000");
    assert_eq!(host.ok(&["logs", &id]).lines().count(), 300_000);
    assert_eq!(
        host.ok(&["run", "--rm", "busybox", "echo", "others go on"]),
        "others go on"
    );
    // P15: what they did not read is on the disk and not in hostd.
    assert!(memory_kib(&host) < 300 * 1024, "{} KiB", memory_kib(&host));
    host.ok(&["rm", "-f", &id]);
    let mut late = stalled.swap_remove(0);
    late.set_read_timeout(Some(dyno_tests::DEADLINE)).unwrap();
    let mut rest = [0; 1 << 16];
    late.read_exact(&mut rest).unwrap();
    drop(stalled);
    drop(late);
    until("hostd let go of the files that are gone", || {
        deleted_files(&host).is_empty()
    });
}

fn memory_kib(host: &Host) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn deleted_files(host: &Host) -> Vec<String> {
    let own = host.path().display().to_string();
    let entries = std::fs::read_dir(format!("/proc/{}/fd", host.pid())).unwrap();
    let links = entries
        .flatten()
        .filter_map(|fd| std::fs::read_link(fd.path()).ok());
    let links = links.map(|link| link.display().to_string());
    links
        .filter(|link| link.starts_with(&own) && link.ends_with(" (deleted)"))
        .collect()
}

#[test]
fn clients_that_leave_leave_no_descriptors() {
    let host = Host::with_busybox();
    let id = host.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    host.until_phase(&id, "running");
    let open = || {
        std::fs::read_dir(format!("/proc/{}/fd", host.pid()))
            .unwrap()
            .count()
    };
    host.ok(&["exec", &id, "true"]);
    let before = open();
    for _ in 0..10 {
        let mut clients: Vec<_> = [
            &["logs", "-f", &id][..],
            &["events"],
            &["stats", &id],
            &["wait", &id],
            &["exec", &id, "sleep", "1000"],
            &["attach", &id],
        ]
        .iter()
        .map(|arguments| {
            let mut command = host.dyno(arguments);
            command
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
        host.ok(&["exec", &id, "true"]);
        for client in &mut clients {
            client.kill().unwrap();
            client.wait().unwrap();
        }
    }
    // A runtime thread or two may have come: descriptors of theirs are few.
    until("they are closed", || open() <= before + 4);
    assert_eq!(host.ok(&["exec", &id, "echo", "well"]), "well");
}

#[test]
fn the_document_that_is_served_is_that_of_the_types() {
    let host = Host::start();
    let served = get(&host, "/v1/openapi.json").remove(0);
    let own = serde_json::to_value(dyno_api::openapi::document()).unwrap();
    assert_eq!(served, own);
    // The control: it is not empty, and says how to start a dyno.
    assert!(served["paths"]["/v1/dynos/{dyno}/start"]["post"].is_object());
}
