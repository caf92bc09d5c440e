//! Who reaches whom: each promise of `docs/network.md` against the kernel.

#![allow(
    clippy::unwrap_used,
    reason = "a test whose world cannot be built fails"
)]

mod rig;

use dyno_netns::{Network, Protocol, Published};
use rig::{Dyno, HOST, HOST_SECOND, HOST6, Host, OUTSIDE, OUTSIDE6, config, desired, is_silent};

/// A host, two dynos with servers on port 80, and the first one's port 80
/// published as 8080.
fn two_dynos() -> (Host, Network, Dyno, Dyno) {
    let host = Host::new();
    let network = Network::open(config()).unwrap();
    let (one, two) = (Dyno::attached(&network, 1), Dyno::attached(&network, 2));
    one.namespace.serve("one", "::", 80);
    two.namespace.serve("two", "::", 80);
    let published = [Protocol::Tcp, Protocol::Udp].map(|protocol| one.publish(8080, 80, protocol));
    network
        .apply(&desired(&[&one, &two], published.to_vec()))
        .unwrap();
    (host, network, one, two)
}

#[test]
fn dynos_of_one_network_reach_each_other_and_themselves() {
    let (_host, _network, one, two) = two_dynos();
    let from_two = format!("one from {}", two.ipv4());
    assert_eq!(two.namespace.tcp(&one.ipv4(), 80).unwrap(), from_two);
    assert_eq!(two.namespace.udp(&one.ipv4(), 80).unwrap(), from_two);
    let from_two = format!("one from {}", two.ipv6());
    assert_eq!(two.namespace.tcp(&one.ipv6(), 80).unwrap(), from_two);
    assert_eq!(two.namespace.udp(&one.ipv6(), 80).unwrap(), from_two);
    assert_eq!(
        one.namespace.tcp("127.0.0.1", 80).unwrap(),
        "one from 127.0.0.1"
    );
    assert_eq!(
        one.namespace.tcp(&one.ipv4(), 80).unwrap(),
        format!("one from {}", one.ipv4())
    );
}

#[test]
fn dynos_reach_the_outside_under_the_hosts_address() {
    let (host, _network, one, _) = two_dynos();
    host.outside.serve("outside", "::", 90);
    assert_eq!(
        one.namespace.tcp(OUTSIDE, 90).unwrap(),
        format!("outside from {HOST}")
    );
    assert_eq!(
        one.namespace.udp(OUTSIDE, 90).unwrap(),
        format!("outside from {HOST}")
    );
    assert_eq!(
        one.namespace.tcp(OUTSIDE6, 90).unwrap(),
        format!("outside from {HOST6}")
    );
    assert_eq!(
        one.namespace.udp(OUTSIDE6, 90).unwrap(),
        format!("outside from {HOST6}")
    );
}

#[test]
fn published_ports_are_reached_from_outside_and_the_dyno_sees_the_client() {
    let (host, _network, _one, _) = two_dynos();
    for address in [HOST, HOST_SECOND] {
        let expected = format!("one from {OUTSIDE}");
        assert_eq!(host.outside.tcp(address, 8080).unwrap(), expected);
        assert_eq!(host.outside.udp(address, 8080).unwrap(), expected);
    }
    let expected = format!("one from {OUTSIDE6}");
    assert_eq!(host.outside.tcp(HOST6, 8080).unwrap(), expected);
    assert_eq!(host.outside.udp(HOST6, 8080).unwrap(), expected);
}

#[test]
fn published_ports_are_reached_from_the_machine_itself() {
    let (host, network, ..) = two_dynos();
    let gateway = network.gateway4();
    let gateway6 = network.gateway6().unwrap();
    for (address, peer) in [
        (HOST, HOST.to_owned()),
        ("127.0.0.1", gateway.to_string()),
        ("127.0.0.2", gateway.to_string()),
        ("::1", gateway6.to_string()),
        (HOST6, HOST6.to_owned()),
    ] {
        let expected = format!("one from {peer}");
        assert_eq!(
            host.own.tcp(address, 8080).unwrap(),
            expected,
            "tcp {address}"
        );
        assert_eq!(
            host.own.udp(address, 8080).unwrap(),
            expected,
            "udp {address}"
        );
    }
    assert_eq!(
        std::fs::read_to_string("/proc/sys/net/ipv4/conf/all/route_localnet").unwrap(),
        "0\n"
    );
}

#[test]
fn machine_reaches_dynos_directly_as_their_gateway() {
    let (host, network, one, _) = two_dynos();
    let expected = format!("one from {}", network.gateway4());
    assert_eq!(host.own.tcp(&one.ipv4(), 80).unwrap(), expected);
    let expected = format!("one from {}", network.gateway6().unwrap());
    assert_eq!(host.own.udp(&one.ipv6(), 80).unwrap(), expected);
}

#[test]
fn services_of_the_machine_on_loopback_are_not_disturbed() {
    let (host, ..) = two_dynos();
    host.own.serve("host", "127.0.0.1", 8081);
    assert_eq!(
        host.own.tcp("127.0.0.1", 8081).unwrap(),
        "host from 127.0.0.1"
    );
    assert_eq!(
        host.own.udp("127.0.0.1", 8081).unwrap(),
        "host from 127.0.0.1"
    );
}

#[test]
fn published_ports_are_reached_by_other_dynos_and_by_the_dyno_itself() {
    let (_host, network, one, two) = two_dynos();
    let from_two = format!("one from {}", two.ipv4());
    assert_eq!(two.namespace.tcp(HOST, 8080).unwrap(), from_two);
    assert_eq!(two.namespace.udp(HOST, 8080).unwrap(), from_two);
    assert_eq!(
        two.namespace.tcp(HOST6, 8080).unwrap(),
        format!("one from {}", two.ipv6())
    );
    let itself = format!("one from {}", network.gateway4());
    assert_eq!(one.namespace.tcp(HOST, 8080).unwrap(), itself);
    assert_eq!(one.namespace.udp(HOST, 8080).unwrap(), itself);
    let itself = format!("one from {}", network.gateway6().unwrap());
    assert_eq!(one.namespace.tcp(HOST6, 8080).unwrap(), itself);
}

#[test]
fn port_published_on_one_address_is_closed_on_the_others() {
    let (host, network, one, two) = two_dynos();
    let only = |address: &str, port| Published {
        address: Some(address.parse().unwrap()),
        ..one.publish(port, 80, Protocol::Tcp)
    };
    let published = vec![only("127.0.0.1", 8001), only(HOST, 8002), only("::1", 8003)];
    network.apply(&desired(&[&one, &two], published)).unwrap();

    assert!(host.own.tcp("127.0.0.1", 8001).unwrap().starts_with("one"));
    assert!(host.own.tcp(HOST, 8001).is_err());
    assert!(host.outside.tcp(HOST, 8001).is_err());

    assert!(host.outside.tcp(HOST, 8002).unwrap().starts_with("one"));
    assert!(host.outside.tcp(HOST_SECOND, 8002).is_err());
    assert!(host.own.tcp("127.0.0.1", 8002).is_err());

    assert!(host.own.tcp("::1", 8003).unwrap().starts_with("one"));
    assert!(host.own.tcp("127.0.0.1", 8003).is_err());
}

#[test]
fn every_address_of_one_family_can_be_published() {
    let (host, network, one, _) = two_dynos();
    let port = Published {
        address: Some("0.0.0.0".parse().unwrap()),
        ..one.publish(8001, 80, Protocol::Tcp)
    };
    network.publish(&one.endpoint.id, &[port]).unwrap();
    assert!(host.outside.tcp(HOST, 8001).is_ok());
    assert!(host.outside.tcp(HOST_SECOND, 8001).is_ok());
    assert!(host.outside.tcp(HOST6, 8001).is_err());
    assert!(
        host.outside.tcp(HOST, 8080).is_err(),
        "publish replaces what was there"
    );
}

/// P13: of the host's own services, DNS only.
#[test]
fn dynos_reach_dns_and_nothing_else_of_the_host() {
    let (host, network, one, _) = two_dynos();
    let gateway = network.gateway4().to_string();
    let gateway6 = network.gateway6().unwrap().to_string();
    host.own.serve("host", "::", 22);
    host.own.serve("dns", "::", 53);
    for address in [&gateway, &gateway6] {
        assert!(one.namespace.tcp(address, 53).unwrap().starts_with("dns"));
        assert!(one.namespace.udp(address, 53).unwrap().starts_with("dns"));
    }
    for address in [gateway.as_str(), &gateway6, HOST, HOST_SECOND, HOST6] {
        assert!(one.namespace.tcp(address, 22).is_err(), "tcp {address} 22");
        assert!(one.namespace.udp(address, 22).is_err(), "udp {address} 22");
    }
    assert!(
        one.namespace.tcp(HOST, 53).is_err(),
        "DNS on another address"
    );
    // Positive control: the services are there.
    assert!(host.outside.tcp(HOST, 22).unwrap().starts_with("host"));
    assert!(host.own.tcp(&gateway, 22).unwrap().starts_with("host"));
}

#[test]
fn dns_of_the_gateway_cannot_be_published_over() {
    let (host, network, one, two) = two_dynos();
    host.own.serve("dns", &network.gateway4().to_string(), 53);
    let published = vec![
        one.publish(53, 80, Protocol::Tcp),
        one.publish(53, 80, Protocol::Udp),
    ];
    network.apply(&desired(&[&one, &two], published)).unwrap();
    let gateway = network.gateway4().to_string();
    assert!(two.namespace.tcp(&gateway, 53).unwrap().starts_with("dns"));
    assert!(two.namespace.udp(&gateway, 53).unwrap().starts_with("dns"));
    assert!(host.own.udp(&gateway, 53).unwrap().starts_with("dns"));
    assert!(host.outside.udp(HOST, 53).unwrap().starts_with("one"));
}

/// P13: neighbours of the host reach neither dynos nor the gateway's services,
/// whatever routes they set.
#[test]
fn outside_reaches_dynos_by_published_ports_only() {
    let (host, network, one, _) = two_dynos();
    host.own.serve("dns", &network.gateway4().to_string(), 53);
    host.outside
        .command(&format!("ip route add 10.128.16.0/20 via {HOST}"));
    host.outside
        .command(&format!("ip route add fd12:3456:789a::/64 via {HOST6}"));
    assert!(is_silent(&host.outside, &one.ipv4(), 80));
    assert!(is_silent(&host.outside, &one.ipv6(), 80));
    assert!(is_silent(
        &host.outside,
        &network.gateway4().to_string(),
        53
    ));
    assert!(host.outside.tcp(HOST, 8080).is_ok(), "positive control");
}

/// P13: cloud metadata stays closed, also where the host routes it on.
#[test]
fn metadata_addresses_are_closed() {
    let (host, _network, one, _) = two_dynos();
    for (address, via) in [
        ("169.254.169.254", OUTSIDE),
        ("169.254.170.2", OUTSIDE),
        ("100.100.100.200", OUTSIDE),
        ("fd00:ec2::254", OUTSIDE6),
    ] {
        host.outside
            .command(&format!("ip addr add {address} dev lo"));
        rig::command(&format!("ip route add {address} via {via}"));
        host.outside.serve("metadata", address, 80);
        assert!(
            host.own.tcp(address, 80).is_ok(),
            "positive control: {address}"
        );
        assert!(one.namespace.tcp(address, 80).is_err(), "{address}");
    }
}

/// P13: a dyno cannot send under another address.
#[test]
fn spoofed_sources_are_dropped() {
    let (host, _network, one, two) = two_dynos();
    host.outside.serve("outside", "::", 90);
    let inside = &one.namespace;
    // Host and neighbour get to know each other, which may take a second.
    assert!(inside.udp(OUTSIDE, 90).is_ok() && inside.udp(OUTSIDE6, 90).is_ok());
    inside.command(&format!("ip addr add {}/32 dev eth0", two.ipv4()));
    inside.command(&format!("ip -6 addr add {}/128 dev eth0 nodad", two.ipv6()));
    inside.command("ip addr add 203.0.113.5/32 dev eth0");
    let bound = |source: &str, target: &str| {
        let (source, target): (std::net::IpAddr, std::net::IpAddr) =
            (source.parse().unwrap(), target.parse().unwrap());
        inside.run(|| {
            let socket = std::net::UdpSocket::bind((source, 0)).unwrap();
            let wait = std::time::Duration::from_millis(300);
            socket.set_read_timeout(Some(wait)).unwrap();
            socket.connect((target, 90)).unwrap();
            socket.send(b"hello").unwrap();
            socket.recv(&mut [0; 64]).is_ok()
        })
    };
    assert!(bound(&one.ipv4(), OUTSIDE), "positive control");
    assert!(bound(&one.ipv6(), OUTSIDE6), "positive control");
    // The answer would go to the dyno that owns the address, so count what
    // the firewall let through instead of waiting for it.
    let before = seen_by(&host);
    for (source, target) in [
        (two.ipv4(), OUTSIDE),
        (two.ipv6(), OUTSIDE6),
        ("203.0.113.5".to_owned(), OUTSIDE),
    ] {
        assert!(!bound(&source, target), "{source}");
    }
    assert_eq!(seen_by(&host), before, "a spoofed packet came through");
}

/// A dyno with another hardware address than its own is not heard.
#[test]
fn changed_hardware_address_is_not_heard() {
    let (host, _network, one, _) = two_dynos();
    host.outside.serve("outside", "::", 90);
    assert!(one.namespace.udp(OUTSIDE, 90).is_ok(), "positive control");
    let before = seen_by(&host);
    one.namespace
        .command("ip link set eth0 address 02:00:00:00:00:99");
    let gateway = "ip route replace default via 10.128.16.1 dev eth0 onlink";
    one.namespace.command(gateway);
    assert!(is_silent(&one.namespace, OUTSIDE, 90));
    assert_eq!(seen_by(&host), before);
}

/// UDP datagrams and TCP segments that the neighbour ever received.
fn seen_by(host: &Host) -> Vec<u64> {
    let text = host.outside.command("cat /proc/net/snmp /proc/net/snmp6");
    let mut counts: Vec<u64> = text
        .lines()
        .filter_map(|line| line.strip_prefix("Udp6InDatagrams"))
        .map(|count| count.trim().parse().unwrap())
        .collect();
    for protocol in ["Udp: ", "Tcp: "] {
        let values = text
            .lines()
            .filter_map(|line| line.strip_prefix(protocol))
            .nth(1)
            .unwrap();
        let column = if protocol == "Udp: " { 0 } else { 9 };
        counts.push(
            values
                .split_whitespace()
                .nth(column)
                .unwrap()
                .parse()
                .unwrap(),
        );
    }
    counts
}

#[test]
fn dyno_in_a_user_namespace_is_attached_as_any_other() {
    let (host, network, one, _) = two_dynos();
    host.outside.serve("outside", "::", 90);
    let third = Dyno::in_user_namespace(&network, 3);
    assert_eq!(
        third.namespace.tcp(OUTSIDE, 90).unwrap(),
        format!("outside from {HOST}")
    );
    assert_eq!(
        third.namespace.tcp(&one.ipv6(), 80).unwrap(),
        format!("one from {}", third.ipv6())
    );
    let accept = third
        .namespace
        .command("cat /proc/sys/net/ipv6/conf/eth0/accept_ra");
    assert_eq!(accept, "0\n", "P13");
}

/// Two hostds on one machine: their dynos are strangers.
#[test]
fn dynos_of_another_hostd_are_not_reached_but_by_published_ports() {
    let (_host, _network, one, _) = two_dynos();
    let other = Network::open(rig::config_of("0badcafe", "10.128.32.0/20", "fd99::/64")).unwrap();
    let stranger = Dyno::attached(&other, 1 << 8);
    assert!(is_silent(&stranger.namespace, &one.ipv4(), 80));
    assert!(is_silent(&stranger.namespace, &one.ipv6(), 80));
    assert!(
        stranger
            .namespace
            .tcp(HOST, 8080)
            .unwrap()
            .starts_with("one")
    );
}

/// One UDP socket that keeps talking to a published port, as a SIP phone does:
/// it follows the port to the dyno that has it now, and a dyno's address is
/// free of its former flows.
#[test]
fn long_lived_udp_flows_follow_the_published_port() {
    flows_follow_the_published_port(0);
}

/// The same where the kernel must be asked for the flows in question.
#[test]
fn long_lived_udp_flows_are_found_among_many() {
    flows_follow_the_published_port(5000);
}

fn flows_follow_the_published_port(others: u16) {
    let (host, network, one, two) = two_dynos();
    host.own.serve("host", "0.0.0.0", 8080);
    network.apply(&desired(&[&one, &two], vec![])).unwrap();
    let client = host
        .outside
        .run(|| std::net::UdpSocket::bind("0.0.0.0:0").unwrap());
    client
        .set_read_timeout(Some(std::time::Duration::from_secs(5)))
        .unwrap();
    for port in 10_000..10_000 + others {
        client.send_to(b"hello", (HOST, port)).unwrap();
    }
    let count = || {
        let count = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
        count.unwrap().trim().parse::<u16>().unwrap()
    };
    assert!(host.own.run(count) >= others);
    client.connect((HOST, 8080)).unwrap();
    let answer = || {
        client.send(b"hello").unwrap();
        let mut buffer = [0; 64];
        let length = client.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert!(answer().starts_with("host"));
    network
        .publish(&one.endpoint.id, &[one.publish(8080, 80, Protocol::Udp)])
        .unwrap();
    assert!(answer().starts_with("one"));
    let moved = vec![two.publish(8080, 80, Protocol::Udp)];
    network.apply(&desired(&[&one, &two], moved)).unwrap();
    assert!(answer().starts_with("two"));
    network.detach(&two.endpoint.id).unwrap();
    assert!(answer().starts_with("host"));
}
