use super::*;
use hickory_proto::op::Edns;
use proptest::prelude::*;

const CLIENT: [u8; 4] = [10, 1, 0, 9];

fn networks() -> Networks {
    Networks::parse(
        br#"{"version":1,"upstreams":["192.0.2.1:53"],"networks":{
            "a":{"sources":["10.1.0.0/24","fd00::/64"],"names":{
                "web":["10.1.0.2","10.1.0.3","fd00::2"],
                "api.shop":["10.1.0.4"],
                "four":["10.1.0.5"],
                "starting":[]}},
            "b":{"sources":["10.2.0.0/24"],"names":{"secret":["10.2.0.2"]}}}}"#,
    )
    .unwrap()
}

fn ask(name: &str, kind: RecordType) -> Decision {
    ask_as(CLIENT, &query(name, kind))
}

fn ask_as(client: [u8; 4], request: &Message) -> Decision {
    decide(
        &networks(),
        IpAddr::from(client),
        &request.to_vec().unwrap(),
        0,
    )
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut request = Message::query();
    request.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    request
}

fn answered(decision: Decision) -> Message {
    match decision {
        Decision::Answer(reply) => reply.message,
        other => panic!("not answered: {other:?}"),
    }
}

fn refused(decision: Decision) -> ResponseCode {
    match decision {
        Decision::Refuse(reply) => reply.message.metadata.response_code,
        other => panic!("not refused: {other:?}"),
    }
}

fn texts(message: &Message) -> Vec<String> {
    message
        .answers
        .iter()
        .map(|record| record.data.to_string())
        .collect()
}

#[test]
fn a_name_is_answered_bare_and_qualified_in_any_case() {
    for name in ["web.", "WEB.", "web.dyno.internal.", "Web.Dyno.Internal."] {
        let answer = answered(ask(name, RecordType::A));
        assert_eq!(texts(&answer), ["10.1.0.2", "10.1.0.3"], "{name}");
        assert_eq!(
            answer.answers[0].name.to_ascii(),
            name,
            "the owner is what was asked"
        );
        assert!(
            answer
                .answers
                .iter()
                .all(|record| record.ttl == TTL_SECONDS)
        );
        assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
        assert_eq!(
            texts(&answered(ask(name, RecordType::AAAA))),
            ["fd00::2"],
            "{name}"
        );
        assert_eq!(
            answered(ask(name, RecordType::ANY)).answers.len(),
            3,
            "{name}"
        );
    }
}

#[test]
fn other_types_of_a_name_are_no_data_rather_than_no_name() {
    for (name, kind) in [
        ("four.", RecordType::AAAA),
        ("four.dyno.internal.", RecordType::MX),
        ("starting.", RecordType::A),
        ("starting.dyno.internal.", RecordType::A),
        ("shop.dyno.internal.", RecordType::A),
        ("dyno.internal.", RecordType::A),
    ] {
        let answer = answered(ask(name, kind));
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NoError,
            "{name}"
        );
        assert!(answer.answers.is_empty(), "{name}");
        assert_eq!(
            answer.authorities[0].record_type(),
            RecordType::SOA,
            "{name}"
        );
    }
}

#[test]
fn unknown_names_of_our_domain_do_not_exist_and_others_are_forwarded() {
    let answer = answered(ask("nobody.dyno.internal.", RecordType::A));
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(answer.authorities[0].name.to_ascii(), "dyno.internal.");
    for name in [
        "nobody.",
        "example.org.",
        "internal.",
        "xdyno.internal.",
        "shop.",
        ".",
    ] {
        assert!(
            matches!(ask(name, RecordType::A), Decision::Forward(_)),
            "{name}"
        );
    }
}

#[test]
fn names_of_another_network_do_not_exist() {
    let answer = answered(ask("secret.dyno.internal.", RecordType::A));
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert!(matches!(
        ask("secret.", RecordType::A),
        Decision::Forward(_)
    ));
    let own = ask_as([10, 2, 0, 9], &query("secret.", RecordType::A));
    assert_eq!(texts(&answered(own)), ["10.2.0.2"]);
}

#[test]
fn addresses_have_names_within_their_network_only() {
    let answer = answered(ask("4.0.1.10.in-addr.arpa.", RecordType::PTR));
    assert_eq!(texts(&answer), ["api.shop.dyno.internal."]);
    let v6: Name = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 2]).into();
    let answer = answered(ask(&v6.to_ascii(), RecordType::PTR));
    assert_eq!(texts(&answer), ["web.dyno.internal."]);
    for name in ["99.0.1.10.in-addr.arpa.", "2.0.2.10.in-addr.arpa."] {
        let answer = answered(ask(name, RecordType::PTR));
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NXDomain,
            "{name}"
        );
    }
    for name in ["1.2.0.192.in-addr.arpa.", "0.1.10.in-addr.arpa."] {
        assert!(
            matches!(ask(name, RecordType::PTR), Decision::Forward(_)),
            "{name}"
        );
    }
}

#[test]
fn addresses_take_turns() {
    let request = query("web.", RecordType::A).to_vec().unwrap();
    let first = |turn| {
        texts(&answered(decide(
            &networks(),
            CLIENT.into(),
            &request,
            turn,
        )))
    };
    let seen: std::collections::HashSet<String> =
        (0..6).map(|turn| first(turn).remove(0)).collect();
    assert_eq!(seen.len(), 2);
    assert_eq!(first(usize::MAX).len(), 2);
}

#[test]
fn strangers_are_refused_whatever_they_ask() {
    for name in ["web.", "example.org.", "dyno.internal."] {
        let decision = ask_as([10, 9, 0, 1], &query(name, RecordType::A));
        assert_eq!(refused(decision), ResponseCode::Refused, "{name}");
    }
}

#[test]
fn what_is_not_a_plain_question_is_refused_with_its_reason() {
    let mut two = query("web.", RecordType::A);
    two.add_query(Query::query(Name::root(), RecordType::A));
    let mut update = query("web.", RecordType::A);
    update.metadata.op_code = OpCode::Update;
    let mut chaos = query("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    let mut newer = query("web.", RecordType::A);
    newer.set_edns(Edns::new().set_version(1).clone());
    for (request, code) in [
        (Message::query(), ResponseCode::FormErr),
        (two, ResponseCode::FormErr),
        (update, ResponseCode::NotImp),
        (chaos, ResponseCode::Refused),
        (query("web.", RecordType::AXFR), ResponseCode::Refused),
        (newer, ResponseCode::BADVERS),
    ] {
        assert_eq!(refused(ask_as(CLIENT, &request)), code, "{request:?}");
    }
}

#[test]
fn answers_and_fragments_are_ignored() {
    let mut response = query("web.", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    assert!(matches!(ask_as(CLIENT, &response), Decision::Ignore));
    let whole = query("web.", RecordType::A).to_vec().unwrap();
    for length in 0..12 {
        let decision = decide(&networks(), CLIENT.into(), &whole[..length], 0);
        assert!(matches!(decision, Decision::Ignore), "{length} bytes");
    }
}

#[test]
fn edns_is_answered_with_our_own_bound() {
    let mut request = query("web.", RecordType::A);
    request.set_edns(Edns::new().set_max_payload(700).set_dnssec_ok(true).clone());
    let Decision::Answer(reply) = ask_as(CLIENT, &request) else {
        panic!("not answered")
    };
    assert_eq!(reply.client_payload_bytes, 700);
    let edns = reply.message.edns.unwrap();
    assert_eq!(edns.max_payload(), UDP_PAYLOAD_BYTES);
    assert!(edns.flags().dnssec_ok);
}

proptest! {
    /// Whatever arrives, there is a decision, and an answer that can be sent.
    #[test]
    fn no_packet_panics(packet in prop::collection::vec(any::<u8>(), 0..600), turn in any::<usize>()) {
        decide_and_encode(&packet, turn)?;
    }

    /// Queries with some bytes changed reach deeper than noise does.
    #[test]
    fn no_damaged_query_panics(
        name in "[a-z]{1,8}(\\.dyno\\.internal)?\\.",
        kind in any::<u16>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut packet = query(&name, RecordType::from(kind)).to_vec().unwrap();
        for (place, byte) in damage {
            let place = place.index(packet.len());
            packet[place] = byte;
        }
        decide_and_encode(&packet, 1)?;
        decide_and_encode(&packet[..cut.index(packet.len())], 1)?;
    }
}

fn decide_and_encode(packet: &[u8], turn: usize) -> Result<(), TestCaseError> {
    match decide(&networks(), CLIENT.into(), packet, turn) {
        Decision::Ignore => {}
        Decision::Answer(reply) | Decision::Refuse(reply) => {
            let bytes = reply.message.to_vec().unwrap();
            prop_assert_eq!(&bytes[..2], &packet[..2], "the id is the client's");
        }
        Decision::Forward(request) => prop_assert_eq!(request.queries.len(), 1),
    }
    Ok(())
}
