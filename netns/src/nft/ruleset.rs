//! What packets of dynos may do: the chains and rules of our table, as data.
//!
//! Rules speak of "a link of ours" by its *group*, which is the host's id, and
//! look dynos and ports up in sets, so that attaching a dyno or publishing a
//! port changes elements and never a rule. `docs/network.md` has the table in
//! nft's own syntax; a test compares.

use std::net::IpAddr;

use ipnet::IpNet;

use super::expression::{Expression, Meta, Verdict, field};
use super::rule::{R0, Rule, destination, source};
use super::schema::name;
use crate::model::Config;

/// Where the kernel calls a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hook {
    pub(crate) number: u32,
    pub(crate) priority: i32,
    pub(crate) kind: &'static str,
}

/// A chain and its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) hook: Option<Hook>,
    pub(crate) rules: Vec<Rule>,
}

const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

/// Before connection tracking.
const RAW: i32 = -300;
const DSTNAT: i32 = -100;
const FILTER: i32 = 0;
const SRCNAT: i32 = 100;
/// After NAT has put the answer's source address back.
const LAST: i32 = 300;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const RTN_LOCAL: u32 = 2;
const ESTABLISHED_RELATED: u32 = 0x6;
const INVALID: u32 = 0x1;
const DNAT: u32 = 0x20;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DNS: u16 = 53;

/// The whole of a host's rules.
pub(crate) fn chains(config: &Config) -> Vec<Chain> {
    let base = |name, kind, number, priority, rules| Chain {
        name,
        hook: Some(Hook {
            number,
            priority,
            kind,
        }),
        rules,
    };
    vec![
        Chain {
            name: "published",
            hook: None,
            rules: published(config),
        },
        base("sources", "filter", PREROUTING, RAW, sources(config)),
        base("loopback", "route", OUTPUT, RAW, loopback(config)),
        base("prerouting", "nat", PREROUTING, DSTNAT, to_local_address()),
        base("output", "nat", OUTPUT, DSTNAT, to_local_address()),
        base("input", "filter", INPUT, FILTER, input(config)),
        base("forward", "filter", FORWARD, FILTER, forward(config)),
        base(
            "postrouting",
            "nat",
            POSTROUTING,
            SRCNAT,
            postrouting(config),
        ),
        base(
            "loopback_answers",
            "filter",
            INPUT,
            LAST,
            loopback_answers(config),
        ),
    ]
}

/// P13: what comes from a dyno's link has that dyno's addresses, and what has
/// a dyno's address comes from a dyno's link.
fn sources(config: &Config) -> Vec<Rule> {
    let mut rules = vec![
        from_dyno(config)
            .link_and_source(ETHERTYPE_IPV4, field::IP_SOURCE)
            .found(name::SOURCES4)
            .verdict(Verdict::Accept),
        from_dyno(config)
            .link_and_source(ETHERTYPE_IPV6, field::IP6_SOURCE)
            .found(name::SOURCES6)
            .verdict(Verdict::Accept),
        from_dyno(config).verdict(Verdict::Drop),
    ];
    rules.extend(config.subnets().map(|subnet| {
        Rule::default()
            .not_loopback(Meta::InName)
            .family(&subnet.addr())
            .within(source(&subnet.addr()), subnet)
            .verdict(Verdict::Drop)
    }));
    rules
}

/// What dynos may ask of the host itself: DNS, and answers to the host's own
/// questions (P13).
fn input(config: &Config) -> Vec<Rule> {
    let mut rules = vec![
        Rule::default()
            .state(ESTABLISHED_RELATED)
            .verdict(Verdict::Accept),
    ];
    for gateway in config.gateways() {
        for protocol in [TCP, UDP] {
            rules.push(
                from_dyno(config)
                    .family(&gateway)
                    .address(destination(&gateway), gateway)
                    .compare_meta(Meta::Protocol, &[protocol])
                    .compare_field(field::DESTINATION_PORT, &DNS.to_be_bytes())
                    .verdict(Verdict::Accept),
            );
        }
    }
    rules.push(from_dyno(config).then(Expression::Reject));
    // Neighbours of the host are not to reach what listens on the gateway.
    rules.extend(config.gateways().map(|gateway| {
        Rule::default()
            .not_loopback(Meta::InName)
            .family(&gateway)
            .address(destination(&gateway), gateway)
            .verdict(Verdict::Drop)
    }));
    rules
}

/// What passes through the host: dynos to anywhere but cloud metadata; to
/// dynos of this network from each other; from elsewhere only by a published
/// port.
fn forward(config: &Config) -> Vec<Rule> {
    let to_dyno = || Rule::default().group(Meta::OutGroup, true, config);
    vec![
        from_dyno(config)
            .ipv4()
            .load(field::IP_DESTINATION)
            .found(name::METADATA4)
            .then(Expression::Reject),
        from_dyno(config)
            .ipv6()
            .load(field::IP6_DESTINATION)
            .found(name::METADATA6)
            .then(Expression::Reject),
        Rule::default()
            .state(ESTABLISHED_RELATED)
            .verdict(Verdict::Accept),
        from_dyno(config).state(INVALID).verdict(Verdict::Drop),
        from_dyno(config).verdict(Verdict::Accept),
        to_dyno()
            .bits(Expression::ConntrackStatus { into: R0 }, DNAT)
            .verdict(Verdict::Accept),
        to_dyno().verdict(Verdict::Drop),
    ]
}

fn from_dyno(config: &Config) -> Rule {
    Rule::default().group(Meta::InGroup, true, config)
}

/// Published ports are looked for on any address of the host.
fn to_local_address() -> Vec<Rule> {
    vec![
        Rule::default()
            .then(Expression::DestinationType { into: R0 })
            .compare(R0, &RTN_LOCAL.to_ne_bytes())
            .verdict(Verdict::Jump("published")),
    ]
}

/// The more specific address wins; the gateway's DNS cannot be published over.
fn published(config: &Config) -> Vec<Rule> {
    let mut rules: Vec<_> = config
        .gateways()
        .map(|gateway| {
            Rule::default()
                .family(&gateway)
                .address(destination(&gateway), gateway)
                .compare_field(field::DESTINATION_PORT, &DNS.to_be_bytes())
                .verdict(Verdict::Return)
        })
        .collect();
    rules.extend([
        Rule::default()
            .ipv4()
            .service(Some(field::IP_DESTINATION))
            .translate(name::DNAT4_AT, false),
        Rule::default()
            .ipv4()
            .service(None)
            .translate(name::DNAT4, false),
        Rule::default()
            .ipv6()
            .service(Some(field::IP6_DESTINATION))
            .translate(name::DNAT6_AT, true),
        Rule::default()
            .ipv6()
            .service(None)
            .translate(name::DNAT6, true),
    ]);
    rules
}

/// A connection of this machine to a published port of 127.0.0.1 or `::1`: the
/// loopback address may not leave the machine, so before anybody remembers
/// the connection the gateway's takes its place. (`route`: the packet is
/// routed again when a rule changed its addresses.)
fn loopback(config: &Config) -> Vec<Rule> {
    let mut rules = Vec::new();
    for gateway in config.gateways() {
        let (local, ports, ports_at) = match gateway {
            IpAddr::V4(_) => (IpAddr::from([127, 0, 0, 1]), name::PORTS4, name::PORTS4_AT),
            IpAddr::V6(_) => (
                IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
                name::PORTS6,
                name::PORTS6_AT,
            ),
        };
        for (set, at) in [(ports_at, Some(destination(&gateway))), (ports, None)] {
            rules.push(
                Rule::default()
                    .family(&gateway)
                    .address(source(&gateway), local)
                    .within(destination(&gateway), loopback_net(&gateway))
                    .service(at)
                    .found(set)
                    .rewrite(source(&gateway), gateway),
            );
        }
    }
    rules
}

/// The answers to [`loopback`]'s connections. NAT has just given them the
/// loopback source that the client spoke to; a dyno cannot send such a packet
/// itself, see [`sources`].
fn loopback_answers(config: &Config) -> Vec<Rule> {
    config
        .gateways()
        .map(|gateway| {
            let local = match gateway {
                IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
                IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
            };
            from_dyno(config)
                .family(&gateway)
                .within(source(&gateway), loopback_net(&gateway))
                .address(destination(&gateway), gateway)
                .rewrite(destination(&gateway), local)
        })
        .collect()
}

/// To the outside under the host's address. A dyno that reaches itself by a
/// published port gets the gateway's, or it would see its own address come in
/// from outside.
fn postrouting(config: &Config) -> Vec<Rule> {
    let mut rules = Vec::new();
    for gateway in config.gateways() {
        let set = if gateway.is_ipv4() {
            name::SELF4
        } else {
            name::SELF6
        };
        rules.push(
            Rule::default()
                .group(Meta::OutGroup, true, config)
                .family(&gateway)
                .both_addresses(&gateway)
                .found(set)
                .source_nat(gateway),
        );
    }
    rules.extend(config.subnets().map(|subnet| {
        Rule::default()
            .group(Meta::OutGroup, false, config)
            .not_loopback(Meta::OutName)
            .family(&subnet.addr())
            .within(source(&subnet.addr()), subnet)
            .then(Expression::Masquerade)
    }));
    rules
}

fn loopback_net(family: &IpAddr) -> IpNet {
    match family {
        IpAddr::V4(_) => IpNet::new_assert(IpAddr::from([127, 0, 0, 0]), 8),
        IpAddr::V6(_) => IpNet::new_assert(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), 128),
    }
}
