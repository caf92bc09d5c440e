//! What each dyno uses, and how it is.

use std::time::Duration;

use dyno_api::dyno::{Dyno, Phase, Protocol};
use dyno_api::health::HealthState;
use dyno_api::name::DynoId;
use dyno_netns::Counters;
use dyno_runtime::cgroup::Stats;
use jiff::Timestamp;

use super::machine::seconds;
use super::page::{Kind, Page};
use crate::host::Host;
use crate::{logs, stats};

const PHASES: [(Phase, &str); 8] = [
    (Phase::Created, "created"),
    (Phase::Waiting, "waiting"),
    (Phase::Running, "running"),
    (Phase::Backoff, "backoff"),
    (Phase::Stopping, "stopping"),
    (Phase::Exited, "exited"),
    (Phase::Lost, "lost"),
    (Phase::Failed, "failed"),
];

const HEALTH: [(HealthState, &str); 4] = [
    (HealthState::Starting, "starting"),
    (HealthState::Unready, "unready"),
    (HealthState::Ready, "ready"),
    (HealthState::Unhealthy, "unhealthy"),
];

/// All dynos, as they were when they were read.
#[derive(Debug)]
pub(super) struct Dynos(Vec<Reading>);

/// One of them. What the kernel does not count is not there.
#[derive(Debug)]
struct Reading {
    id: DynoId,
    name: String,
    image: String,
    phase: Phase,
    paused: bool,
    health: Option<HealthState>,
    restarts: u32,
    started: Option<Timestamp>,
    ports: [usize; 2],
    used: Stats,
    link: Option<Counters>,
    log_dropped: u64,
    log_bytes: u64,
}

impl Dynos {
    /// Reads them, by name. Blocks.
    pub(super) fn read(host: &Host) -> Self {
        let handles = host.registry().handles();
        let mut links = host.network.all_counters();
        let mut read: Vec<Reading> = handles
            .iter()
            // A look at what its supervisor has said: no copy of all its variables.
            .map(|handle| handle.look(Reading::begin))
            .collect();
        for reading in &mut read {
            // One that rests may have no cgroup.
            reading.used = stats::used(host, &reading.id).unwrap_or_default();
            let log = host.paths.dyno(&reading.id).log();
            reading.log_dropped = logs::dropped(&log);
            reading.log_bytes = logs::kept_bytes(&log);
            reading.link = links.remove(reading.id.as_str());
        }
        read.sort_by(|a, b| a.name.cmp(&b.name));
        // A name may pass to another dyno between two looks.
        read.dedup_by(|a, b| a.name == b.name);
        Self(read)
    }

    /// How many there are, and how many ports they publish.
    pub(super) fn write_counts(&self, page: &mut Page) {
        let mut family = page.family("dyno_host_dynos", Kind::Gauge, "Dynos, by phase.");
        for (phase, name) in PHASES {
            let count = self.0.iter().filter(|dyno| dyno.phase == phase).count();
            family.sample(&[("phase", name)], count);
        }
        let mut family = page.family(
            "dyno_network_published_ports",
            Kind::Gauge,
            "Ports of this machine that lead to dynos, those of dynos that rest among them.",
        );
        for (at, name) in ["tcp", "udp"].into_iter().enumerate() {
            let count: usize = self.0.iter().filter_map(|dyno| dyno.ports.get(at)).sum();
            family.sample(&[("protocol", name)], count);
        }
    }

    /// What each of them uses, and how it is.
    pub(super) fn write_each(&self, page: &mut Page) {
        self.write_state(page);
        self.write_usage(page);
        let mut family = page.family(
            "dyno_pressure_stalled_seconds",
            Kind::Counter,
            "Time in which something of the dyno waited for a resource.",
        );
        for dyno in &self.0 {
            for (resource, usec) in [
                ("cpu", dyno.used.cpu_stalled_usec),
                ("memory", dyno.used.memory_stalled_usec),
                ("io", dyno.used.io_stalled_usec),
            ] {
                if let Some(stalled) = usec.map(Duration::from_micros) {
                    let labels = [("dyno", dyno.name.as_str()), ("resource", resource)];
                    family.sample(&labels, stalled.as_secs_f64());
                }
            }
        }
    }

    fn write_state(&self, page: &mut Page) {
        let mut family = page.family("dyno", Kind::Info, "A dyno.");
        for dyno in &self.0 {
            let labels = [
                ("dyno", dyno.name.as_str()),
                ("id", dyno.id.as_str()),
                ("image", dyno.image.as_str()),
            ];
            family.sample(&labels, 1);
        }
        let mut family = page.family(
            "dyno_phase",
            Kind::Gauge,
            "1 for the phase that the dyno is in.",
        );
        for dyno in &self.0 {
            for (_, phase) in PHASES.iter().filter(|(phase, _)| *phase == dyno.phase) {
                family.sample(&[("dyno", &dyno.name), ("phase", phase)], 1);
            }
        }
        let mut family = page.family(
            "dyno_health",
            Kind::Gauge,
            "1 for what the dyno's checks say; absent where it has none or does not run.",
        );
        for dyno in &self.0 {
            for (_, health) in HEALTH
                .iter()
                .filter(|(state, _)| Some(*state) == dyno.health)
            {
                family.sample(&[("dyno", &dyno.name), ("health", health)], 1);
            }
        }
        self.gauge(page, "dyno_up", "Whether its command runs.", |dyno| {
            Some(f64::from(u8::from(dyno.phase == Phase::Running)))
        });
        self.gauge(page, "dyno_paused", "Whether it is held still.", |dyno| {
            Some(f64::from(u8::from(dyno.paused)))
        });
        self.gauge(
            page,
            "dyno_start_time_seconds",
            "When its command was last started, since 1970.",
            |dyno| dyno.started.map(seconds),
        );
        self.counter(
            page,
            "dyno_restarts",
            "How often it was started again since it was last started by request.",
            |dyno| Some(f64::from(dyno.restarts)),
        );
    }

    fn write_usage(&self, page: &mut Page) {
        let seconds =
            |usec: Option<u64>| usec.map(|usec| Duration::from_micros(usec).as_secs_f64());
        self.counter(page, "dyno_cpu_seconds", "Processor time.", |dyno| {
            seconds(dyno.used.cpu_usec)
        });
        self.counter(
            page,
            "dyno_cpu_throttled_seconds",
            "Time that it was held back by its limit, summed over processors.",
            |dyno| seconds(dyno.used.throttled_usec),
        );
        for (name, help, value) in GAUGES {
            self.gauge(page, name, help, |dyno| value(dyno).map(number));
        }
        for (name, help, value) in COUNTERS {
            self.counter(page, name, help, |dyno| value(dyno).map(number));
        }
    }

    fn gauge(
        &self,
        page: &mut Page,
        name: &'static str,
        help: &'static str,
        value: impl Fn(&Reading) -> Option<f64>,
    ) {
        self.samples(page, (name, Kind::Gauge, help), value);
    }

    fn counter(
        &self,
        page: &mut Page,
        name: &'static str,
        help: &'static str,
        value: impl Fn(&Reading) -> Option<f64>,
    ) {
        self.samples(page, (name, Kind::Counter, help), value);
    }

    fn samples(
        &self,
        page: &mut Page,
        (name, kind, help): (&'static str, Kind, &'static str),
        value: impl Fn(&Reading) -> Option<f64>,
    ) {
        let mut family = page.family(name, kind, help);
        for dyno in &self.0 {
            if let Some(value) = value(dyno) {
                family.sample(&[("dyno", &dyno.name)], value);
            }
        }
    }
}

/// Exact up to 2⁵³, as every value of a metric.
#[expect(clippy::cast_precision_loss, reason = "metrics are f64 by definition")]
fn number(value: u64) -> f64 {
    value as f64
}

type Column = (&'static str, &'static str, fn(&Reading) -> Option<u64>);

const GAUGES: [Column; 5] = [
    (
        "dyno_memory_bytes",
        "Memory in use, page cache included.",
        |dyno| dyno.used.memory_bytes,
    ),
    (
        "dyno_memory_peak_bytes",
        "The most memory that was ever in use.",
        |dyno| dyno.used.memory_peak_bytes,
    ),
    (
        "dyno_memory_limit_bytes",
        "Its limit on memory; absent without one.",
        |dyno| dyno.used.memory_max_bytes,
    ),
    ("dyno_pids", "Processes and threads.", |dyno| dyno.used.pids),
    ("dyno_log_bytes", "Bytes of its log on the disk.", |dyno| {
        Some(dyno.log_bytes)
    }),
];

const COUNTERS: [Column; 6] = [
    (
        "dyno_oom_kills",
        "Processes of it that were killed because its limit on memory was reached.",
        |dyno| dyno.used.oom_kills,
    ),
    ("dyno_io_read_bytes", "Read from block devices.", |dyno| {
        dyno.used.io_read_bytes
    }),
    (
        "dyno_io_written_bytes",
        "Written to block devices.",
        |dyno| dyno.used.io_write_bytes,
    ),
    (
        "dyno_network_received_bytes",
        "Received over its link.",
        |dyno| dyno.link.map(|link| link.rx_bytes),
    ),
    ("dyno_network_sent_bytes", "Sent over its link.", |dyno| {
        dyno.link.map(|link| link.tx_bytes)
    }),
    (
        "dyno_log_dropped_entries",
        "Entries of its log that were dropped, ever.",
        |dyno| Some(dyno.log_dropped),
    ),
];

impl Reading {
    fn begin(dyno: &Dyno) -> Self {
        let published = |protocol| {
            let ports = dyno.status.ports.iter();
            ports.filter(|port| port.protocol == protocol).count()
        };
        Self {
            id: dyno.id.clone(),
            name: dyno.name.to_string(),
            image: dyno.spec.image.clone(),
            phase: dyno.status.phase,
            paused: dyno.status.paused,
            health: dyno.status.health,
            restarts: dyno.status.restarts,
            started: dyno.status.started,
            ports: [published(Protocol::Tcp), published(Protocol::Udp)],
            used: Stats::default(),
            link: None,
            log_dropped: 0,
            log_bytes: 0,
        }
    }
}
