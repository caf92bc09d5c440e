//! `Idempotency-Key`: asked again, a request makes no second dyno.

use std::collections::BTreeSet;
use std::sync::Barrier;

use dyno_tests::host::Host;
use serde_json::{Value, json};

use crate::rig::curl;

/// Creates and starts a dyno: the answer's code and body.
fn create(host: &Host, key: &str, command: &[&str]) -> (u16, Value) {
    let body = json!({"image": "busybox", "command": command}).to_string();
    let output = curl(host, "/v1/dynos?start=true")
        .args(["-w", "\n%{http_code}", "-H"])
        .arg(format!("Idempotency-Key: {key}"))
        .args(["-d", &body])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, code) = text.rsplit_once('\n').unwrap();
    (code.parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[test]
fn the_same_request_makes_one_dyno_however_often_and_whatever_becomes_of_hostd() {
    let mut host = Host::with_busybox();
    let sleep = ["sleep", "1000"];
    let (code, dyno) = create(&host, "one", &sleep);
    assert_eq!(code, 201, "{dyno}");
    let id = dyno["id"].as_str().unwrap().to_owned();
    host.kill_and_restart();
    let (code, again) = create(&host, "one", &sleep);
    assert_eq!((code, &again["id"]), (201, &dyno["id"]), "{again}");
    assert_eq!(again["status"]["phase"], "running");
    assert_eq!(host.ids(), std::slice::from_ref(&id));
    let (code, other) = create(&host, "one", &["sleep", "1001"]);
    assert_eq!((code, &other["kind"]), (409, &json!("conflict")), "{other}");
    let (code, refused) = create(&host, &"x".repeat(129), &sleep);
    assert_eq!(code, 400, "{refused}");
    // It goes with its dyno.
    host.ok(&["rm", "-f", &id]);
    let (code, anew) = create(&host, "one", &sleep);
    assert_eq!(code, 201, "{anew}");
    assert_ne!(anew["id"], dyno["id"]);
}

#[test]
fn of_many_at_once_one_makes_the_dyno() {
    const CLIENTS: usize = 8;
    let host = Host::with_busybox();
    let barrier = Barrier::new(CLIENTS);
    let one = || {
        barrier.wait();
        create(&host, "many", &["sleep", "1000"])
    };
    let answers: Vec<(u16, Value)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let mut ids = BTreeSet::new();
    for (code, body) in &answers {
        match code {
            201 => drop(ids.insert(body["id"].to_string())),
            // One is at it.
            409 => {}
            _ => panic!("{code} {body}"),
        }
    }
    assert_eq!(ids.len(), 1, "{answers:?}");
    assert_eq!(host.ids().len(), 1);
}
