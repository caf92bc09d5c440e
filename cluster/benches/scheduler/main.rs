//! How fast the scheduler is, what memory it takes, and how densely it packs.
//!
//!     cargo bench -p dyno-cluster --bench scheduler [-- NAME] [--svg FILE]
//!
//! One line for each figure. NAME is `rate`, `million`, `series`, `single` or
//! `packing`; without it, all. `--svg` draws the series. Peak memory is the
//! whole program's so far, input and results included: measured alone, it is
//! that of the one figure.
#![allow(clippy::print_stdout, reason = "figures go to stdout")]

mod chart;
mod packing;
mod workload;

use dyno_cluster::scheduler::{Assignment, Cluster, Group, Host, Missing, Plan};
use std::time::Duration;
use workload::Shape;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let svg = arguments.iter().position(|argument| argument == "--svg");
    let file = svg.and_then(|place| arguments.get(place + 1));
    let figures: [(&str, &dyn Fn()); 5] = [
        ("rate", &rate),
        ("million", &million),
        ("series", &|| series(file.map(String::as_str))),
        ("single", &single),
        ("packing", &packing),
    ];
    let named = figures
        .iter()
        .any(|(name, _)| arguments.iter().any(|argument| argument == name));
    for (name, figure) in figures {
        if !named || arguments.iter().any(|argument| argument == name) {
            figure();
        }
    }
}

/// 300 hosts, filled to 85 % from nothing.
fn rate() {
    let (hosts, groups) = cluster(1, 300, 100_000);
    let (elapsed, plan) = place(&hosts, &groups);
    report("rate", 300, &plan, elapsed);
}

/// Two million dynos on 6,100 hosts; then every twentieth host goes.
fn million() {
    let (hosts, groups) = cluster(2, 6_100, 2_000_000);
    let (elapsed, plan) = place(&hosts, &groups);
    report("million", 6_100, &plan, elapsed);
    let each = peak() / plan.assignments().count().max(1) as u64;
    println!(
        "million: {} groups, peak memory {} MiB, {each} bytes a dyno",
        groups.len(),
        peak() >> 20
    );
    let left = lose_every_twentieth(hosts);
    let (elapsed, again) = replace(left, groups, &plan);
    println!(
        "loss of 5 %: {} steps in {elapsed:.2?}, {} unplaced, peak memory {} MiB",
        again.steps().count(),
        unplaced(&again),
        peak() >> 20
    );
}

/// Hosts and dynos together, from 95 hosts to 12,200.
fn series(svg: Option<&str>) {
    let mut points = Vec::new();
    for doubling in (0..8).rev() {
        let (hosts, dynos) = (12_200_u64 >> doubling, 4_000_000_u64 >> doubling);
        let (machines, groups) = cluster(3, hosts, dynos);
        let (elapsed, plan) = place(&machines, &groups);
        report("series", hosts, &plan, elapsed);
        let left = lose_every_twentieth(machines);
        let (again, _) = replace(left, groups, &plan);
        println!("series: loss of 5 % of {hosts} hosts in {again:.2?}");
        points.push(chart::Point {
            hosts,
            dynos,
            place: elapsed,
            replace: again,
        });
    }
    if let Some(file) = svg {
        std::io::Write::write_all(
            &mut std::fs::File::create(file).expect("the picture's file"),
            chart::draw(&points).as_bytes(),
        )
        .expect("the picture is written");
    }
}

/// The worst case for placing equal asks together: every group has one.
fn single() {
    for (hosts, dynos) in [(300, 100_000), (1_200, 400_000)] {
        let machines = workload::hosts(hosts);
        let mut groups = workload::singles(4, dynos, Shape::Traces);
        workload::fill(&mut groups, &machines, 850);
        let (elapsed, plan) = place(&machines, &groups);
        report("groups of one", hosts, &plan, elapsed);
    }
}

fn packing() {
    for shape in [Shape::Traces, Shape::Even, Shape::Complements] {
        for rules in [false, true] {
            let packed = packing::packed(5, 200, 40_000, shape, rules);
            println!(
                "packing: {shape:?}{}: {} hosts, the bound is {}, {:.1} % more",
                if rules { " with rules" } else { "" },
                packed.hosts,
                packed.bound,
                packed.excess() * 100.0
            );
        }
    }
}

fn cluster(seed: u64, hosts: u64, dynos: u64) -> (Vec<Host>, Vec<Group>) {
    let hosts = workload::hosts(hosts);
    let mut groups = workload::groups(seed, dynos, Shape::Traces, true);
    workload::fill(&mut groups, &hosts, 850);
    (hosts, groups)
}

fn lose_every_twentieth(hosts: Vec<Host>) -> Vec<Host> {
    let left = hosts
        .into_iter()
        .enumerate()
        .filter(|(place, _)| (place + place / 20) % 20 != 0);
    left.map(|(_, host)| host).collect()
}

fn place(hosts: &[Host], groups: &[Group]) -> (Duration, Plan) {
    let (hosts, groups) = (hosts.to_vec(), groups.to_vec());
    let start = processor_time();
    let plan = Cluster::new(hosts, groups, workload::policy())
        .expect("valid")
        .schedule();
    (processor_time() - start, plan)
}

/// From names alone, as a new leader would.
fn replace(hosts: Vec<Host>, groups: Vec<Group>, plan: &Plan) -> (Duration, Plan) {
    let running: Vec<Assignment> = plan.assignments().collect();
    let start = processor_time();
    let mut cluster = Cluster::new(hosts, groups, workload::policy()).expect("valid");
    cluster.running(running);
    let plan = cluster.schedule();
    (processor_time() - start, plan)
}

fn unplaced(plan: &Plan) -> usize {
    let missing = |missing: Missing| match missing {
        Missing::Instances(instances) => instances.len(),
        Missing::Hosts(hosts) => hosts.len(),
    };
    plan.unplaced()
        .map(|unplaced| missing(unplaced.missing))
        .sum()
}

fn report(name: &str, hosts: u64, plan: &Plan, elapsed: Duration) {
    let placed = plan.assignments().count();
    let rate = placed as f64 / elapsed.as_secs_f64();
    let unplaced = unplaced(plan);
    println!(
        "{name}: {placed} dynos on {hosts} hosts in {elapsed:.2?}, {rate:.0} a second, {unplaced} unplaced"
    );
}

/// What the program has had of a processor: a busy machine is no slow scheduler.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.expect("a number"))
}

/// The most memory that the program has had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
