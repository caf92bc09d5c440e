//! Names of the networks, over both transports, while tables change.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dyno_edge::control::protocol::Request;
use hickory_proto::op::{Edns, ResponseCode};
use hickory_proto::rr::RecordType;

use crate::rig::*;

#[test]
fn a_dyno_sees_the_names_of_its_own_network() {
    let rig = Rig::new();
    let _edge = rig.serving(&tables(&[]));
    assert_eq!(addresses(CLIENT_A, GATEWAY_A, "web."), ["10.1.0.2"]);
    assert_eq!(
        addresses(CLIENT_A, GATEWAY_A, "web.dyno.internal."),
        ["10.1.0.2"]
    );
    assert_eq!(addresses(CLIENT_B, GATEWAY_B, "web."), ["10.2.0.2"]);
    let over_tcp = stream::ask(CLIENT_B, GATEWAY_B, &question("web.", RecordType::A));
    assert_eq!(texts(&over_tcp), ["10.2.0.2"]);
    let reverse = question("2.0.1.10.in-addr.arpa.", RecordType::PTR);
    // 10.1.0.2 is in no source of these tables, so it is none of the edge's names.
    assert_eq!(
        ask(CLIENT_A, GATEWAY_A, &reverse).metadata.response_code,
        ResponseCode::ServFail
    );
}

#[test]
fn a_client_of_no_network_is_refused() {
    let rig = Rig::new();
    let _edge = rig.serving(&tables(&[]));
    let question = question("web.", RecordType::A);
    let over_udp = ask(STRANGER, GATEWAY_A, &question);
    let over_tcp = stream::ask(STRANGER, GATEWAY_A, &question);
    for answer in [over_udp, over_tcp] {
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
        assert!(answer.answers.is_empty());
    }
    // The control: the same question from inside is answered.
    assert_eq!(addresses(CLIENT_A, GATEWAY_A, "web."), ["10.1.0.2"]);
}

#[test]
fn an_answer_too_long_for_the_client_is_truncated_and_whole_over_tcp() {
    let rig = Rig::new();
    let mut many = tables(&[]);
    let all: Vec<_> = (1..=60)
        .map(|n| format!("10.1.0.{n}").parse().unwrap())
        .collect();
    many.networks
        .get_mut("a")
        .unwrap()
        .names
        .insert("many".into(), all);
    let _edge = rig.serving(&many);

    let plain = question("many.", RecordType::A);
    let truncated = ask(CLIENT_A, GATEWAY_A, &plain);
    assert!(truncated.metadata.truncation && truncated.answers.is_empty());
    let mut large = plain.clone();
    large.set_edns(Edns::new().set_max_payload(4096).clone());
    let whole = ask(CLIENT_A, GATEWAY_A, &large);
    assert!(!whole.metadata.truncation);
    let over_tcp = stream::ask(CLIENT_A, GATEWAY_A, &plain);
    for message in [whole, over_tcp] {
        let different: BTreeSet<String> = texts(&message).into_iter().collect();
        assert_eq!(different.len(), 60);
    }
}

#[test]
fn tables_change_under_load_without_a_failed_answer() {
    let rig = Rig::new();
    let _edge = rig.serving(&tables(&[]));
    let done = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = [
        (CLIENT_A, GATEWAY_A, "10.1.0."),
        (CLIENT_B, GATEWAY_B, "10.2.0."),
    ]
    .into_iter()
    .map(|(client, gateway, prefix)| {
        let done = Arc::clone(&done);
        std::thread::spawn(move || {
            let mut answers = 0;
            while !done.load(Ordering::Relaxed) {
                let seen = addresses(client, gateway, "web.");
                assert!(seen.len() == 1 && seen[0].starts_with(prefix), "{seen:?}");
                answers += 1;
            }
            answers
        })
    })
    .collect();
    let mut control = rig.connect();
    let before = control.ask(&Request::Status).unwrap().tables.generation;
    for n in 3..=202_u8 {
        let mut changed = tables(&[]);
        for (network, table) in &mut changed.networks {
            let address = if network == "a" {
                [10, 1, 0, n]
            } else {
                [10, 2, 0, n]
            };
            table.names.insert("web".into(), vec![address.into()]);
        }
        rig.put(&changed);
        // `reload` is a barrier: what was written before it is in force after it.
        control.ask(&Request::Reload).unwrap();
        assert_eq!(
            addresses(CLIENT_A, GATEWAY_A, "web."),
            [format!("10.1.0.{n}")]
        );
    }
    let after = control.ask(&Request::Status).unwrap().tables;
    assert_eq!((after.generation - before, after.error), (200, None));
    done.store(true, Ordering::Relaxed);
    for client in load {
        assert!(client.join().unwrap() > 50, "the load was a load");
    }
}

#[test]
fn a_change_is_noticed_without_being_told() {
    let rig = Rig::new();
    let _edge = rig.serving(&tables(&[]));
    let mut changed = tables(&[]);
    let table = changed.networks.get_mut("a").unwrap();
    table
        .names
        .insert("new".into(), vec![[10, 1, 0, 77].into()]);
    rig.put(&changed);
    eventually("the new name is answered", || {
        let answer = ask(
            CLIENT_A,
            GATEWAY_A,
            &question("new.dyno.internal.", RecordType::A),
        );
        (texts(&answer) == ["10.1.0.77"]).then_some(())
    });
}

#[test]
fn a_broken_table_is_reported_and_the_old_one_serves_on() {
    let rig = Rig::new();
    let _edge = rig.serving(&tables(&[]));
    rig.put_text(
        "{\"version\":1,\"upstreams\":[],\"networks\":{\"a\":{\"sources\":[\"x\"],\"names\":{}}}}",
    );
    let status = rig.connect().ask(&Request::Reload).unwrap();
    let error = status.tables.error.expect("the status says so");
    assert!(error.contains("network a: source \"x\""), "{error}");
    assert_eq!(addresses(CLIENT_A, GATEWAY_A, "web."), ["10.1.0.2"]);
    rig.put(&tables(&[]));
    assert_eq!(
        rig.connect().ask(&Request::Reload).unwrap().tables.error,
        None
    );
}

#[test]
fn garbage_is_survived() {
    let rig = Rig::new();
    let mut edge = rig.serving(&tables(&[]));
    let socket = std::net::UdpSocket::bind((CLIENT_A, 0)).unwrap();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let valid = question("web.dyno.internal.", RecordType::A)
        .to_vec()
        .unwrap();
    for round in 0..3000 {
        let mut packet = valid.clone();
        for _ in 0..=round % 7 {
            let place = usize::try_from(random()).unwrap() % packet.len();
            packet[place] = random().to_le_bytes()[0];
        }
        packet.truncate(1 + usize::try_from(random()).unwrap() % packet.len());
        // The edge may answer, refuse or ignore; a full buffer is no failure either.
        socket.send_to(&packet, (GATEWAY_A, 53)).unwrap();
        if round % 100 == 0 {
            let mut connection = stream::connect(CLIENT_A, GATEWAY_A);
            stream::send(&mut connection, &packet);
        }
    }
    // The flood may still fill the socket's buffer: ask again, as resolvers do.
    let asked = question("web.", RecordType::A);
    let answer = eventually("an answer after the flood", || {
        ask_within(CLIENT_A, GATEWAY_A, &asked, Duration::from_millis(500))
    });
    assert_eq!(texts(&answer), ["10.1.0.2"]);
    assert!(
        edge.child.try_wait().unwrap().is_none(),
        "the same process serves"
    );
}

#[test]
fn idle_connections_are_closed_and_cannot_crowd_out_others() {
    let rig = Rig::new();
    let _edge = rig.serving(&tables(&[]));
    let started = Instant::now();
    let mut idle: Vec<_> = (0..16)
        .map(|_| stream::connect(CLIENT_A, GATEWAY_A))
        .collect();
    // One more of the same client is closed at once, before it has asked.
    let mut excess = stream::connect(CLIENT_A, GATEWAY_A);
    assert!(stream::receive(&mut excess).is_err());
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "closed for being one too many"
    );
    let other = stream::ask(CLIENT_A2, GATEWAY_A, &question("web.", RecordType::A));
    assert_eq!(texts(&other), ["10.1.0.2"]);
    assert!(
        stream::receive(&mut idle[0]).is_err(),
        "closed by its time-out"
    );
    assert!(started.elapsed() >= Duration::from_secs(9));
    let again = stream::ask(CLIENT_A, GATEWAY_A, &question("web.", RecordType::A));
    assert_eq!(texts(&again), ["10.1.0.2"]);
}
