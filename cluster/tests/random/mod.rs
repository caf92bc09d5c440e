//! Small clusters in which every rule matters.

use dyno_cluster::scheduler::{
    Affinity, Availability, Constraint, Count, Direction, Group, Host, Port, Protocol, Resources,
    Selector, Spread, Strength, Test, Within,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::weighted;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn resources(most: u64) -> impl Strategy<Value = Resources> {
    (
        0..=most,
        0..=most,
        0..=most,
        btree_map("gpu|fpga", 0..3u64, 0..2),
    )
        .prop_map(
            |(memory_bytes, cpu_millis, disk_bytes, devices)| Resources {
                memory_bytes,
                cpu_millis,
                disk_bytes,
                devices,
            },
        )
}

fn port() -> impl Strategy<Value = Port> {
    (
        80..83u16,
        prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)],
    )
        .prop_map(|(number, protocol)| Port { number, protocol })
}

fn tag() -> impl Strategy<Value = String> {
    "[ab]"
}

fn host(number: usize) -> impl Strategy<Value = Host> {
    let availability = prop_oneof![
        8 => Just(Availability::Open),
        1 => Just(Availability::Cordoned),
        1 => Just(Availability::Draining),
    ];
    (
        0..3usize,
        btree_map("disk|arch", tag(), 0..3),
        resources(20),
        resources(2),
        btree_set(port(), 0..2),
        availability,
    )
        .prop_map(
            move |(zone, tags, capacity, reserved, reserved_ports, availability)| Host {
                id: format!("h{number}"),
                zone: format!("z{zone}"),
                tags,
                capacity,
                reserved,
                reserved_ports,
                availability,
            },
        )
}

pub(crate) fn hosts(most: usize) -> impl Strategy<Value = Vec<Host>> {
    (1..=most).prop_flat_map(|count| (0..count).map(host).collect::<Vec<_>>())
}

fn constraint() -> impl Strategy<Value = Constraint> {
    let test = prop_oneof![
        tag().prop_map(Test::Equals),
        tag().prop_map(Test::Differs),
        btree_set(tag(), 0..3).prop_map(Test::In),
        Just(Test::Exists),
        "(h|z)[0-3]".prop_map(Test::Differs),
    ];
    ("disk|arch|host|zone|none", test).prop_map(|(tag, test)| Constraint { tag, test })
}

fn affinity() -> impl Strategy<Value = Affinity> {
    let to = prop_oneof![
        "app[0-2]".prop_map(|app| Selector {
            app: Some(app),
            ..Selector::default()
        }),
        "web|worker".prop_map(|name| Selector {
            process_type: Some(name),
            ..Selector::default()
        }),
        tag().prop_map(|tier| Selector {
            labels: BTreeMap::from([("tier".to_owned(), tier)]),
            ..Selector::default()
        }),
    ];
    let direction = prop_oneof![Just(Direction::Beside), Just(Direction::Apart)];
    let within = prop_oneof![3 => Just(Within::Host), 1 => Just(Within::Zone)];
    let strength = prop_oneof![
        Just(Strength::Required),
        (0..200u16).prop_map(Strength::Preferred)
    ];
    (to, direction, within, strength).prop_map(|(to, direction, within, strength)| Affinity {
        to,
        direction,
        within,
        strength,
    })
}

fn spread() -> impl Strategy<Value = Spread> {
    let weight = || prop_oneof![Just(0), Just(30), Just(100)];
    let limit = || weighted(0.2, 1..3u32);
    (weight(), weight(), limit(), limit(), limit()).prop_map(
        |(hosts_weight, zones_weight, hosts_max_skew, zones_max_skew, max_per_host)| Spread {
            hosts_weight,
            zones_weight,
            hosts_max_skew,
            zones_max_skew,
            max_per_host,
        },
    )
}

fn group(number: usize) -> impl Strategy<Value = Group> {
    let count = prop_oneof![9 => (0..7u32).prop_map(Count::Instances), 1 => Just(Count::EveryHost)];
    let rules = (
        vec(constraint(), 0..2),
        prop_oneof![3 => vec(affinity(), 0..1), 1 => vec(affinity(), 1..3)],
        spread(),
        prop_oneof![4 => btree_map(0..4u32, "h[0-6]", 0..1), 1 => btree_map(0..4u32, "h[0-6]", 1..3)],
        prop_oneof![3 => btree_set(port(), 0..1), 1 => btree_set(port(), 1..3)],
    );
    let plain = btree_map("gpu|fpga", 0..2u64, 0..1);
    let asks = (resources(7), plain, any::<bool>());
    (
        "app[0-2]",
        "web|worker",
        btree_map("tier", tag(), 0..2),
        count,
        asks,
        -1..3i32,
        rules,
    )
        .prop_map(
            move |(app, process_type, labels, count, (ask, few, most), priority, rules)| {
                let (constraints, affinities, spread, pinned, ports) = rules;
                let devices = if most { few } else { ask.devices.clone() };
                let ask = Resources { devices, ..ask };
                Group {
                    id: format!("g{number}"),
                    app,
                    process_type,
                    labels,
                    count,
                    ask,
                    ports,
                    priority,
                    constraints,
                    affinities,
                    spread,
                    pinned,
                }
            },
        )
}

pub(crate) fn groups(most: usize) -> impl Strategy<Value = Vec<Group>> {
    (1..=most).prop_flat_map(|count| (0..count).map(group).collect::<Vec<_>>())
}

/// Another order, by a number.
#[allow(dead_code, reason = "not every test that shares this needs it")]
pub(crate) fn shuffle<T>(list: &mut [T], seed: u64) {
    let mut state = seed | 1;
    for end in (1..list.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let place = usize::try_from(state >> 33).expect("31 bits") % (end + 1);
        list.swap(end, place);
    }
}
