//! Coming, going, and being put back: what is there afterwards.

mod rig;

use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use dyno_netns::{
    Desired, Error, Finding, Hook, Invalid, Network, Protocol, Repair, choose_subnets,
};
use rig::{Dyno, HOST, Host, OUTSIDE, assert_same, command, config, desired, traces};

#[test]
fn closing_leaves_nothing_behind() {
    let _host = Host::new();
    // Forwarding stays on by design; it also shows in local routes.
    drop(Network::open(config()).unwrap().close());
    let before = traces();
    let network = Network::open(config()).unwrap();
    let dynos = [1, 2, 3].map(|number| Dyno::attached(&network, number));
    let published = vec![dynos[0].publish(8080, 80, Protocol::Tcp)];
    network
        .apply(&desired(&dynos.each_ref(), published))
        .unwrap();
    assert_ne!(traces(), before, "positive control");
    network.close().unwrap();
    assert_same(&traces(), &before);
}

#[test]
fn closing_spares_the_links_and_tables_of_others() {
    let _host = Host::new();
    let other = Network::open(rig::config_of("0badcafe", "10.128.32.0/20", "fd99::/64")).unwrap();
    let _stranger = Dyno::attached(&other, 1);
    command("ip link add dv-notours type veth peer name other");
    command("nft add table inet dyno-of-somebody");
    let before = traces();
    let network = Network::open(config()).unwrap();
    let _dyno = Dyno::attached(&network, 2);
    network.close().unwrap();
    assert_same(&traces(), &before);
}

/// A sample, or a thousand rounds in the soak; every tenth publishes.
#[test]
fn repeated_attachments_leave_nothing_behind() {
    let _host = Host::new();
    let network = Network::open(config()).unwrap();
    let dyno = Dyno::detached(network.config(), 1);
    let before = traces();
    let rounds = if std::env::var_os("DYNO_SOAK").is_some() {
        1000
    } else {
        100
    };
    for round in 0..rounds {
        network.attach(dyno.namespace.fd(), &dyno.endpoint).unwrap();
        if round % 10 == 0 {
            let port = dyno.publish(8080, 80, Protocol::Tcp);
            network.publish(&dyno.endpoint.id, &[port]).unwrap();
        }
        network.detach(&dyno.endpoint.id).unwrap();
    }
    assert_same(&traces(), &before);
}

/// The figure of `docs/network.md` is under 2 ms; the bound is for an
/// unoptimised build on an emulated processor.
#[test]
fn attaching_is_quick_also_as_the_fiftieth() {
    let _host = Host::new();
    let network = Network::open(config()).unwrap();
    let dynos: Vec<_> = (1..=50)
        .map(|n| Dyno::detached(network.config(), n))
        .collect();
    let mut times: Vec<Duration> = dynos
        .iter()
        .map(|dyno| {
            let start = Instant::now();
            network.attach(dyno.namespace.fd(), &dyno.endpoint).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    let (median, worst) = (times[25], times[49]);
    eprintln!("attach: median {median:?}, worst {worst:?}");
    assert!(
        median < Duration::from_secs(1),
        "median {median:?}, worst {worst:?}"
    );
}

#[test]
fn reconciling_an_intact_network_repairs_nothing() {
    let _host = Host::new();
    let network = Network::open(config()).unwrap();
    let dynos = [1, 2].map(|number| Dyno::attached(&network, number));
    let wanted = desired(
        &dynos.each_ref(),
        vec![dynos[0].publish(8080, 80, Protocol::Tcp)],
    );
    assert_eq!(network.reconcile(&wanted).unwrap(), []);
    let before = traces();
    assert_eq!(network.reconcile(&wanted).unwrap(), []);
    // Somebody else's transaction is no reason to touch ours.
    command("nft add table inet somebody");
    assert_eq!(network.reconcile(&wanted).unwrap(), []);
    command("nft delete table inet somebody");
    assert_eq!(network.reconcile(&wanted).unwrap(), []);
    assert_same(&traces(), &before);
}

#[test]
fn opening_says_what_it_turned_on() {
    let _host = Host::new();
    let forwarding = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];
    command("sysctl -q -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0");
    let network = Network::open(config()).unwrap();
    let turned_on = forwarding.map(|path| Repair::Forwarding(format!("/proc/sys/{path}")));
    assert_eq!(network.prepared(), turned_on);
    drop(network);
    assert_eq!(Network::open(config()).unwrap().prepared(), []);
}

#[test]
fn what_somebody_broke_is_put_back() {
    let host = Host::new();
    let network = Network::open(config()).unwrap();
    let dynos = [1, 2].map(|number| Dyno::attached(&network, number));
    dynos[0].namespace.serve("one", "::", 80);
    let wanted = desired(
        &dynos.each_ref(),
        vec![dynos[0].publish(8080, 80, Protocol::Tcp)],
    );
    network.reconcile(&wanted).unwrap();
    let before = traces();
    let id = dynos[0].endpoint.id.as_str();
    let link = Repair::Link {
        endpoint: id.to_owned(),
    };
    let breakages = [
        ("nft flush ruleset".to_owned(), Repair::Ruleset),
        (
            "nft delete table inet dyno-00c0ffee".to_owned(),
            Repair::Ruleset,
        ),
        (
            "nft flush chain inet dyno-00c0ffee sources".to_owned(),
            Repair::Ruleset,
        ),
        (
            "nft insert rule inet dyno-00c0ffee forward accept".to_owned(),
            Repair::Ruleset,
        ),
        (
            "nft flush set inet dyno-00c0ffee sources4".to_owned(),
            Repair::Ruleset,
        ),
        (
            "nft delete element inet dyno-00c0ffee dnat4 { tcp . 8080 }".to_owned(),
            Repair::Ruleset,
        ),
        ("ip link del dyn-00c0ffee".to_owned(), Repair::Gateway),
        (
            "ip addr del 10.128.16.1/32 dev dyn-00c0ffee".to_owned(),
            Repair::Gateway,
        ),
        (
            "ip route del unreachable 10.128.16.0/20".to_owned(),
            Repair::Gateway,
        ),
        (
            format!("ip route del {} dev dv-{id}", dynos[0].ipv4()),
            link.clone(),
        ),
        (
            format!("ip -6 route del {} dev dv-{id}", dynos[0].ipv6()),
            link.clone(),
        ),
        (
            format!("ip neigh del {} dev dv-{id}", dynos[0].ipv4()),
            link.clone(),
        ),
        (format!("ip link set dv-{id} down"), link),
        (
            "sysctl -q -w net.ipv4.ip_forward=0".to_owned(),
            Repair::Forwarding("/proc/sys/net/ipv4/ip_forward".to_owned()),
        ),
    ];
    for (breakage, repair) in breakages {
        command(&breakage);
        let repairs = network.reconcile(&wanted).unwrap();
        assert!(repairs.contains(&repair), "{breakage}: {repairs:?}");
        assert_eq!(
            host.outside.tcp(HOST, 8080).unwrap(),
            format!("one from {OUTSIDE}"),
            "{breakage}"
        );
        assert_eq!(network.reconcile(&wanted).unwrap(), [], "{breakage}: again");
    }
    assert_same(&without_indices(&traces()), &without_indices(&before));
}

/// A link that was created again has another index.
fn without_indices(traces: &str) -> String {
    traces
        .lines()
        .map(|line| line.split_once(": ").map_or(line, |(_, rest)| rest))
        .fold(String::new(), |text, line| text + line + "\n")
}

/// A flushed table is heard of at once; what we do ourselves is no news.
#[test]
fn meddling_is_heard_of_at_once() {
    let _host = Host::new();
    let network = Network::open(config()).unwrap();
    let mut watch = network.watch().unwrap();
    let dyno = Dyno::attached(&network, 1);
    network.reconcile(&desired(&[&dyno], vec![])).unwrap();
    assert!(!watch.wait(Duration::from_millis(50)).unwrap());
    command("nft flush ruleset");
    assert!(watch.wait(Duration::from_secs(10)).unwrap());
    network.reconcile(&desired(&[&dyno], vec![])).unwrap();
    assert!(!watch.wait(Duration::from_millis(50)).unwrap());
    command(&format!("ip link del dv-{}", dyno.endpoint.id));
    assert!(watch.wait(Duration::from_secs(10)).unwrap());
}

#[test]
fn change_without_meddling_is_not_reported_as_repair() {
    let host = Host::new();
    let network = Network::open(config()).unwrap();
    let dyno = Dyno::attached(&network, 1);
    dyno.namespace.serve("one", "::", 80);
    network.reconcile(&desired(&[&dyno], vec![])).unwrap();
    assert!(host.outside.tcp(HOST, 8080).is_err());
    let published = vec![dyno.publish(8080, 80, Protocol::Tcp)];
    assert_eq!(
        network.reconcile(&desired(&[&dyno], published)).unwrap(),
        []
    );
    assert!(host.outside.tcp(HOST, 8080).is_ok());
}

#[test]
fn deleted_link_is_reported_and_attached_again() {
    let _host = Host::new();
    let network = Network::open(config()).unwrap();
    let dyno = Dyno::attached(&network, 1);
    dyno.namespace.serve("one", "::", 80);
    let wanted = desired(&[&dyno], vec![dyno.publish(8080, 80, Protocol::Tcp)]);
    network.reconcile(&wanted).unwrap();
    let id = dyno.endpoint.id.clone();
    command(&format!("ip link del dv-{id}"));
    let repairs = network.reconcile(&wanted).unwrap();
    assert_eq!(repairs, [Repair::LinkMissing { endpoint: id }]);
    network.attach(dyno.namespace.fd(), &dyno.endpoint).unwrap();
    assert_eq!(network.reconcile(&wanted).unwrap(), []);
    assert!(std::net::TcpStream::connect((HOST, 8080)).is_ok());
}

#[test]
fn links_that_nobody_wants_are_removed() {
    let _host = Host::new();
    let network = Network::open(config()).unwrap();
    let (kept, stray) = (Dyno::attached(&network, 1), Dyno::attached(&network, 2));
    // Created by a process that died before it could mark the link.
    command("ip link add dv-00000000000f group 12648430 type veth peer name half");
    let mut repairs = network.reconcile(&desired(&[&kept], vec![])).unwrap();
    repairs.retain(|repair| matches!(repair, Repair::StrayLink { .. }));
    let name = |id: &str| Repair::StrayLink {
        name: format!("dv-{id}"),
    };
    assert_eq!(repairs.len(), 2, "{repairs:?}");
    assert!(repairs.contains(&name(&stray.endpoint.id)));
    assert!(repairs.contains(&name("00000000000f")));
    assert!(command("ip link").contains(&format!("dv-{}", kept.endpoint.id)));
}

/// The canary: a link of somebody else's by the name that the dyno's would have.
#[test]
fn a_link_that_somebody_else_made_is_neither_taken_nor_removed() {
    let _host = Host::new();
    let network = Network::open(config()).unwrap();
    let dyno = Dyno::detached(network.config(), 1);
    command("ip link add dv-000000000001 alias theirs type veth peer name other");
    let before = traces();
    let error = network
        .attach(dyno.namespace.fd(), &dyno.endpoint)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is a link dv-000000000001 that this host did not make; rename or remove it"
    );
    network.detach(&dyno.endpoint.id).unwrap();
    network.reconcile(&desired(&[], vec![])).unwrap();
    assert_same(&traces(), &before);
    command("ip link del dv-000000000001");
    network.attach(dyno.namespace.fd(), &dyno.endpoint).unwrap();
}

#[test]
fn a_gateway_that_somebody_else_made_is_left_alone() {
    let _host = Host::new();
    command("ip link add dyn-00c0ffee type bridge");
    let before = command("ip -o -d link show dyn-00c0ffee");
    let error = Network::open(config()).unwrap_err();
    assert!(
        matches!(&error, Error::ForeignLink { name } if name == "dyn-00c0ffee"),
        "{error:?}"
    );
    assert_eq!(command("ip -o -d link show dyn-00c0ffee"), before);
}

#[test]
fn an_old_link_of_the_same_dyno_is_replaced() {
    let _host = Host::new();
    let network = Network::open(config()).unwrap();
    let dyno = Dyno::attached(&network, 1);
    let again = Dyno::attached(&network, 1);
    assert!(again.namespace.command("ip link").contains("eth0"));
    assert!(!dyno.namespace.command("ip link").contains("eth0"));
    network.detach(&again.endpoint.id).unwrap();
    // Created by a process that died before it could mark the link.
    command("ip link add dv-000000000001 group 12648430 type veth peer name half");
    network.attach(dyno.namespace.fd(), &dyno.endpoint).unwrap();
    assert!(dyno.namespace.command("ip link").contains("eth0"));
}

/// hostd dies and comes back: traffic flows on, before and after it looked.
#[test]
fn reopening_keeps_dynos_reachable() {
    let host = Host::new();
    let network = Network::open(config()).unwrap();
    let dyno = Dyno::attached(&network, 1);
    dyno.namespace.serve("one", "::", 80);
    let wanted = desired(&[&dyno], vec![dyno.publish(8080, 80, Protocol::Tcp)]);
    network.apply(&wanted).unwrap();
    drop(network);
    assert!(host.outside.tcp(HOST, 8080).is_ok());

    let network = Network::open(config()).unwrap();
    assert!(host.outside.tcp(HOST, 8080).is_ok());
    let second = Dyno::attached(&network, 2);
    assert!(host.outside.tcp(HOST, 8080).is_ok());
    assert!(second.namespace.tcp(&dyno.ipv4(), 80).is_ok());
    let wanted = Desired {
        endpoints: vec![dyno.endpoint.clone(), second.endpoint.clone()],
        ..wanted
    };
    assert_eq!(network.reconcile(&wanted).unwrap(), []);
    assert!(host.outside.tcp(HOST, 8080).is_ok());
}

#[test]
fn failed_attachment_leaves_nothing_behind() {
    let _host = Host::new();
    let network = Network::open(config()).unwrap();
    let dyno = Dyno::detached(network.config(), 1);
    dyno.namespace
        .command("ip link add eth0 type veth peer name taken");
    let before = traces();
    let error = network
        .attach(dyno.namespace.fd(), &dyno.endpoint)
        .unwrap_err();
    assert!(matches!(error, Error::Netlink { .. }), "{error:?}");
    assert_same(&traces(), &before);

    let file = std::fs::File::open("/dev/null").unwrap();
    let error = network.attach(file.as_fd(), &dyno.endpoint).unwrap_err();
    assert!(matches!(error, Error::Namespace { .. }), "{error:?}");
    assert_same(&traces(), &before);
}

#[test]
fn port_of_another_dyno_is_refused() {
    let host = Host::new();
    let network = Network::open(config()).unwrap();
    let (one, two) = (Dyno::attached(&network, 1), Dyno::attached(&network, 2));
    one.namespace.serve("one", "::", 80);
    network
        .publish(&one.endpoint.id, &[one.publish(8080, 80, Protocol::Tcp)])
        .unwrap();
    let error = network.publish(&two.endpoint.id, &[two.publish(8080, 80, Protocol::Tcp)]);
    assert!(
        matches!(error, Err(Error::Invalid(Invalid::PortTaken(_)))),
        "{error:?}"
    );
    let both = vec![
        one.publish(8080, 80, Protocol::Tcp),
        two.publish(8080, 81, Protocol::Tcp),
    ];
    let error = network.apply(&desired(&[&one, &two], both)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "port 8080/tcp is published by both 000000000001 and 000000000002"
    );
    assert!(
        host.outside.tcp(HOST, 8080).unwrap().starts_with("one"),
        "the old ruleset stays"
    );
    // The same port of the other protocol is free.
    network
        .publish(&two.endpoint.id, &[two.publish(8080, 80, Protocol::Udp)])
        .unwrap();
}

#[test]
fn port_that_somebody_listens_on_is_found() {
    let _host = Host::new();
    let network = Network::open(config()).unwrap();
    let dyno = Dyno::attached(&network, 1);
    let _tcp = TcpListener::bind("127.0.0.1:8080").unwrap();
    let _udp = UdpSocket::bind("[::]:8081").unwrap();
    let in_use = |port, protocol| {
        matches!(
            network.probe(&dyno.publish(port, 80, protocol)),
            Err(Error::PortInUse { .. })
        )
    };
    assert!(in_use(8080, Protocol::Tcp));
    assert!(!in_use(8080, Protocol::Udp));
    assert!(in_use(8081, Protocol::Udp));
    assert!(!in_use(8081, Protocol::Tcp));
    let mut elsewhere = dyno.publish(8082, 80, Protocol::Tcp);
    elsewhere.address = Some("203.0.113.1".parse().unwrap());
    assert!(matches!(network.probe(&elsewhere), Err(Error::Bind { .. })));
}

#[test]
fn foreign_drop_policies_are_found() {
    let host = Host::new();
    let network = Network::open(config()).unwrap();
    let dyno = Dyno::attached(&network, 1);
    dyno.namespace.serve("one", "::", 80);
    network
        .publish(&dyno.endpoint.id, &[dyno.publish(8080, 80, Protocol::Tcp)])
        .unwrap();
    assert_eq!(network.findings().unwrap(), []);
    assert!(host.outside.tcp(HOST, 8080).is_ok());
    command("nft add table ip filter");
    command(
        "nft add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }",
    );
    command("nft add table inet ufw");
    command("nft add chain inet ufw input { type filter hook input priority 0 ; policy drop ; }");
    command(
        "nft add chain inet ufw fine { type filter hook forward priority 0 ; policy accept ; }",
    );
    let finding = |family: &str, table: &str, chain: &str, hook| Finding::DropPolicy {
        family: family.to_owned(),
        table: table.to_owned(),
        chain: chain.to_owned(),
        hook,
    };
    let findings = network.findings().unwrap();
    assert_eq!(
        findings,
        [
            finding("inet", "ufw", "input", Hook::Input),
            finding("ip", "filter", "FORWARD", Hook::Forward),
        ]
    );
    assert!(
        findings[1]
            .to_string()
            .contains("chain FORWARD of nft table ip filter")
    );
    assert!(
        rig::is_silent(&host.outside, HOST, 8080),
        "the finding is true"
    );
}

#[test]
fn chosen_subnets_are_free_and_another_hostd_chooses_others() {
    let _host = Host::new();
    let id = "00c0ffee".parse().unwrap();
    let (four, six) = choose_subnets(id).unwrap();
    assert_eq!(choose_subnets(id).unwrap(), (four, six), "the same again");
    command(&format!("ip addr add {}/16 dev out0", four.network()));
    let (next, _) = choose_subnets(id).unwrap();
    assert_ne!(next, four);
    command(&format!("ip route add {next} via {OUTSIDE}"));
    assert_ne!(choose_subnets(id).unwrap().0, next);
    assert!(six.is_some());
    for links in ["default", "all"] {
        let setting = format!("net.ipv6.conf.{links}.disable_ipv6");
        command(&format!("sysctl -q -w {setting}=1"));
        assert_eq!(choose_subnets(id).unwrap().1, None, "{links}");
        command(&format!("sysctl -q -w {setting}=0"));
        assert!(choose_subnets(id).unwrap().1.is_some());
    }
}

#[test]
fn host_without_ipv6_has_dynos_without_it() {
    let host = Host::new();
    command("sysctl -q -w net.ipv6.conf.all.disable_ipv6=1");
    let mut config = config();
    config.subnet6 = None;
    let network = Network::open(config).unwrap();
    let dyno = Dyno::attached(&network, 1);
    dyno.namespace.serve("one", "0.0.0.0", 80);
    let published = vec![dyno.publish(8080, 80, Protocol::Tcp)];
    network.reconcile(&desired(&[&dyno], published)).unwrap();
    assert!(host.outside.tcp(HOST, 8080).is_ok());
    assert!(host.own.tcp("127.0.0.1", 8080).is_ok());
    assert_eq!(dyno.namespace.command("ip -6 addr show dev eth0"), "");
    let mut port = dyno.publish(8081, 80, Protocol::Tcp);
    port.address = Some("::1".parse().unwrap());
    let error = network.publish(&dyno.endpoint.id, &[port]).unwrap_err();
    assert!(
        matches!(error, Error::Invalid(Invalid::NoIpv6 { .. })),
        "{error:?}"
    );
}

#[test]
fn counters_are_the_dynos_own() {
    let host = Host::new();
    let network = Network::open(config()).unwrap();
    let dyno = Dyno::attached(&network, 1);
    host.outside.serve("outside", OUTSIDE, 90);
    let before = network.counters(&dyno.endpoint.id).unwrap();
    dyno.namespace.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        for _ in 0..10 {
            socket.send_to(&[0; 1000], (OUTSIDE, 90)).unwrap();
            socket.recv(&mut [0; 64]).unwrap();
        }
    });
    let after = network.counters(&dyno.endpoint.id).unwrap();
    assert!(after.rx_packets - before.rx_packets >= 10, "{after:?}");
    assert!(after.tx_bytes - before.tx_bytes >= 10_000, "{after:?}");
    assert!(after.rx_bytes - before.rx_bytes < 2000, "{after:?}");
    let all = network.all_counters().unwrap();
    let same = all[&dyno.endpoint.id];
    assert!(same.tx_bytes >= after.tx_bytes && same.tx_bytes < after.tx_bytes + 2000);
    let error = network.counters("ffffffffffff").unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read the counters of dv-ffffffffffff"
    );
}
