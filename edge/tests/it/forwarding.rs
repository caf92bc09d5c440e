//! Names of others: what upstreams may do to us, and what they may not.

use std::collections::HashSet;
use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dyno_edge::control::protocol::Request;
use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

use crate::rig::*;
use crate::upstream::*;

fn public(name: &str) -> Message {
    question(name, RecordType::A)
}

#[test]
fn other_names_are_asked_of_the_upstream_each_time_from_elsewhere() {
    let rig = Rig::new();
    let upstream = Upstream::honest("127.0.3.1");
    let _edge = rig.serving(&tables(&[upstream.address]));
    for n in 0..20 {
        let answer = ask(
            CLIENT_A,
            GATEWAY_A,
            &public(&format!("www{n}.example.org.")),
        );
        assert_eq!(texts(&answer), ["192.0.2.7"]);
        assert!(!answer.metadata.authoritative);
    }
    let (ports, ids): (HashSet<u16>, HashSet<u16>) = upstream
        .seen
        .try_iter()
        .map(|(client, id)| (client.port(), id))
        .unzip();
    assert!(ports.len() > 15, "source ports are guessable: {ports:?}");
    assert!(ids.len() > 15, "ids are guessable: {ids:?}");
}

#[test]
fn a_forged_answer_is_not_believed() {
    let rig = Rig::new();
    let forge = |query: &Message| {
        let mut other_id = lie(query);
        other_id.metadata.id ^= 1;
        let mut other_name = lie(query);
        other_name.queries[0].set_name(Name::from_ascii("bank.example.").unwrap());
        let mut other_type = lie(query);
        other_type.queries[0].set_query_type(RecordType::AAAA);
        let mut no_question = lie(query);
        no_question.queries.clear();
        let mut no_answer = lie(query);
        no_answer.metadata.message_type = hickory_proto::op::MessageType::Query;
        vec![
            other_id,
            other_name,
            other_type,
            no_question,
            no_answer,
            truth(query),
        ]
    };
    let upstream = Upstream::start("127.0.3.1", Box::new(forge));
    let _edge = rig.serving(&tables(&[upstream.address]));
    for _ in 0..10 {
        assert_eq!(
            addresses(CLIENT_A, GATEWAY_A, "example.org."),
            ["192.0.2.7"]
        );
    }
}

#[test]
fn an_answer_from_another_address_is_not_believed() {
    let rig = Rig::new();
    let upstream = Upstream::silent("127.0.3.1");
    let _edge = rig.serving(&tables(&[upstream.address]));
    let asked = public("example.org.");
    let client = std::thread::spawn({
        let asked = asked.clone();
        move || ask(CLIENT_A, GATEWAY_A, &asked)
    });
    // An attacker who even knows the id and the port, but not how to be the upstream.
    let attacker = UdpSocket::bind("127.0.3.2:0").unwrap();
    while let Ok((victim, id)) = upstream.seen.recv_timeout(Duration::from_secs(3)) {
        let mut query = asked.clone();
        query.metadata.id = id;
        if let Err(error) = attacker.send_to(&lie(&query).to_vec().unwrap(), victim) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        }
    }
    let answer = client.join().unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(answer.answers.is_empty());
}

#[test]
fn a_silent_or_failing_upstream_is_passed_over() {
    let rig = Rig::new();
    let silent = Upstream::silent("127.0.3.1");
    let failing = |query: &Message| vec![failure(query, ResponseCode::ServFail)];
    let failing = Upstream::start("127.0.3.2", Box::new(failing));
    let honest = Upstream::honest("127.0.3.3");
    let closed = "127.0.3.4:9".parse().unwrap();
    let upstreams = [closed, failing.address, silent.address, honest.address];
    let _edge = rig.serving(&tables(&upstreams));
    let started = Instant::now();
    assert_eq!(
        addresses(CLIENT_A, GATEWAY_A, "example.org."),
        ["192.0.2.7"]
    );
    assert!(
        started.elapsed() >= Duration::from_millis(1900),
        "the silent one was given its time"
    );
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "and only that one needed it"
    );
    assert_eq!(failing.by_udp.load(Ordering::Relaxed), 1);
}

#[test]
fn no_upstream_that_answers_is_a_server_failure_in_time() {
    let rig = Rig::new();
    let silent = Upstream::silent("127.0.3.1");
    let _edge = rig.serving(&tables(&[silent.address]));
    let started = Instant::now();
    let answer = ask(CLIENT_A, GATEWAY_A, &public("example.org."));
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(started.elapsed() < Duration::from_secs(6));
    assert_eq!(
        silent.by_udp.load(Ordering::Relaxed),
        2,
        "it was tried twice"
    );
}

#[test]
fn a_truncated_answer_is_fetched_whole_for_a_client_on_a_stream() {
    let rig = Rig::new();
    let truncate = |query: &Message| {
        let mut message = empty(query);
        message.metadata.truncation = true;
        vec![message]
    };
    let upstream = Upstream::start("127.0.3.1", Box::new(truncate));
    let _edge = rig.serving(&tables(&[upstream.address]));
    let asked = question("long.example.org.", RecordType::TXT);
    let over_udp = ask(CLIENT_A, GATEWAY_A, &asked);
    assert!(over_udp.metadata.truncation);
    assert_eq!(upstream.by_tcp.load(Ordering::Relaxed), 0);
    let over_tcp = stream::ask(CLIENT_A, GATEWAY_A, &asked);
    assert!(!over_tcp.metadata.truncation);
    assert_eq!(over_tcp.answers.len(), 20);
    assert_eq!(upstream.by_tcp.load(Ordering::Relaxed), 1);
}

#[test]
fn a_datagram_never_exceeds_what_the_client_takes() {
    let rig = Rig::new();
    let upstream = Upstream::start("127.0.3.1", Box::new(|query| vec![long(query)]));
    let _edge = rig.serving(&tables(&[upstream.address]));
    let mut asked = question("long.example.org.", RecordType::TXT);
    for payload in [None, Some(512), Some(4096)] {
        asked.edns = payload.map(|bytes| Edns::new().set_max_payload(bytes).clone());
        let answer = ask(CLIENT_A, GATEWAY_A, &asked);
        assert!(
            answer.metadata.truncation && answer.answers.is_empty(),
            "{payload:?}"
        );
    }
}

#[test]
fn one_client_cannot_use_up_the_forwarding_of_others() {
    let rig = Rig::new();
    let selective = |query: &Message| {
        let slow = query.queries[0].name.to_ascii().starts_with("slow");
        if slow { Vec::new() } else { vec![truth(query)] }
    };
    let upstream = Upstream::start("127.0.3.1", Box::new(selective));
    let _edge = rig.serving(&tables(&[upstream.address]));
    let greedy = UdpSocket::bind((CLIENT_A, 0)).unwrap();
    greedy.connect((GATEWAY_A, 53)).unwrap();
    greedy
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let mut refused = 0;
    let mut buffer = [0; 512];
    for n in 0..200 {
        greedy
            .send(&public(&format!("slow{n}.example.org.")).to_vec().unwrap())
            .unwrap();
        // Above its share the refusal comes at once; below it nothing does, for long.
        if n >= 128 && greedy.recv(&mut buffer).is_ok() {
            let code = Message::from_vec(&buffer).map(|answer| answer.metadata.response_code);
            assert_eq!(code.unwrap(), ResponseCode::ServFail);
            refused += 1;
        }
    }
    assert_eq!(refused, 72);
    assert_eq!(
        addresses(CLIENT_A2, GATEWAY_A, "example.org."),
        ["192.0.2.7"]
    );
    assert_eq!(
        addresses(CLIENT_A, GATEWAY_A, "web."),
        ["10.1.0.2"],
        "its own names still work"
    );
    let counters = rig.connect().ask(&Request::Status).unwrap().counters;
    assert_eq!((counters.forwarded, counters.answered), (1, 1));
    assert_eq!(counters.failed, 72);
}
