//! Metrics for a Prometheus-compatible scraper, read from the kernel at each scrape.
//!
//! ```text
//! page      the two text formats
//! machine   the host: memory, load, pressure, disk; hostd's own process
//! dynos     what each dyno uses, and how it is
//! requests  the API: counts and durations
//! check     a strict reader, for tests
//! ```
//!
//! A scrape asks no supervisor and takes no lock for longer than a copy: it holds up
//! nobody. What it reads is what `dyno stats` shows.

#[cfg(test)]
pub mod check;
mod dynos;
mod machine;
mod page;
mod requests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dyno_api::drain::Drain;
use dyno_api::error::ApiError;
use dyno_runtime::cgroup::Layout;
use tokio::sync::Semaphore;

pub use page::Format;
pub use requests::Requests;

use crate::durable::chain;
use crate::host::{Host, blocking};
use dynos::Dynos;
use page::{Kind, Page};

/// P15: pages that are made at the same time. Whoever asks too often keeps one processor
/// busy at the most.
const SCRAPES: usize = 1;

/// What hostd counts itself.
#[derive(Debug)]
pub struct Metrics {
    /// Of the API.
    pub requests: Requests,
    pub(crate) pulls: AtomicU64,
    pub(crate) failed_pulls: AtomicU64,
    pub(crate) repairs: AtomicU64,
    pub(crate) unauthorized: AtomicU64,
    scrapes: Arc<Semaphore>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Requests::default(),
            pulls: AtomicU64::default(),
            failed_pulls: AtomicU64::default(),
            repairs: AtomicU64::default(),
            unauthorized: AtomicU64::default(),
            scrapes: Arc::new(Semaphore::new(SCRAPES)),
        }
    }
}

/// All metrics of this host as they are now.
///
/// # Errors
/// When the page cannot be made at all; what cannot be read is left out of it.
pub async fn scrape(host: &Arc<Host>, format: Format) -> Result<String, ApiError> {
    // Never closed; others wait for their turn.
    let turn = host.metrics.scrapes.clone().acquire_owned().await.ok();
    let host = host.clone();
    blocking(move || {
        let page = write(&host, format);
        // Held by the work: who asked may have left long before it is done.
        drop(turn);
        Ok(page)
    })
    .await
}

fn write(host: &Host, format: Format) -> String {
    let mut page = Page::new(format);
    about(host, &mut page);
    machine::write(&host.paths.state_dir, host.started, &mut page);
    let dynos = Dynos::read(host);
    dynos.write_counts(&mut page);
    images(host, &mut page);
    network(host, &mut page);
    drains(host, &mut page);
    host.metrics.requests.write(&mut page);
    audit(host, &mut page);
    dynos.write_each(&mut page);
    page.finish()
}

fn about(host: &Host, page: &mut Page) {
    let version = env!("CARGO_PKG_VERSION");
    let mut family = page.family("dyno_build", Kind::Info, "The build of hostd.");
    family.sample(&[("version", version)], 1);
    let layout = match host.layout {
        Layout::Unified { .. } => "unified",
        Layout::Hybrid { .. } => "hybrid",
        Layout::Legacy { .. } => "legacy",
    };
    let mut family = page.family("dyno_host", Kind::Info, "This host.");
    let labels = [
        ("host", host.identity.id.as_str()),
        ("kernel", host.facts.kernel.as_str()),
        ("cgroups", layout),
    ];
    family.sample(&labels, 1);
    page.single(
        "dyno_host_ready",
        Kind::Gauge,
        "Whether hostd has taken up every dyno that it has a record of.",
        Some(u8::from(host.ready.load(Ordering::Relaxed))),
    );
    page.single(
        "dyno_host_cpus",
        Kind::Gauge,
        "Processors that dynos may use.",
        Some(host.facts.cpus),
    );
}

fn images(host: &Host, page: &mut Page) {
    let images = match host.images.list() {
        Ok(images) => Some(images),
        Err(error) => {
            tracing::debug!(error = %chain(&error), "images are not among the metrics");
            None
        }
    };
    let bytes = |images: &Vec<dyno_images::Image>| -> u64 {
        images.iter().map(|image| image.size_bytes).sum()
    };
    page.single(
        "dyno_images",
        Kind::Gauge,
        "Images, but for the built-in one.",
        images.as_ref().map(Vec::len),
    );
    page.single(
        "dyno_images_size_bytes",
        Kind::Gauge,
        "Bytes of all images; a layer counts for each image that has it.",
        images.as_ref().map(bytes),
    );
    page.single(
        "dyno_image_pulls",
        Kind::Counter,
        "Pulls that ended, failed ones among them.",
        Some(host.metrics.pulls.load(Ordering::Relaxed)),
    );
    page.single(
        "dyno_image_pull_failures",
        Kind::Counter,
        "Pulls that failed.",
        Some(host.metrics.failed_pulls.load(Ordering::Relaxed)),
    );
}

fn drains(host: &Host, page: &mut Page) {
    let drains = crate::drains::list(host);
    let mut column = |name, kind, help, value: fn(&Drain) -> u64| {
        let mut family = page.family(name, kind, help);
        for drain in &drains {
            family.sample(&[("drain", drain.name.as_str())], value(drain));
        }
    };
    column(
        "dyno_drain_up",
        Kind::Gauge,
        "Whether the latest attempt to reach the receiver of a drain succeeded.",
        |drain| drain.status.connected.into(),
    );
    column(
        "dyno_drain_sent_entries",
        Kind::Counter,
        "Log entries that have arrived at the receiver, as far as that can be known.",
        |drain| drain.status.sent,
    );
    column(
        "dyno_drain_dropped_entries",
        Kind::Counter,
        "Log entries that were not sent: the receiver was too slow, or refused them.",
        |drain| drain.status.dropped,
    );
    column(
        "dyno_drain_missed_files",
        Kind::Counter,
        "Log files that were removed before they were read.",
        |drain| drain.status.missed_files,
    );
    column(
        "dyno_drain_failures",
        Kind::Counter,
        "Attempts to reach the receiver that failed.",
        |drain| drain.status.failures,
    );
}

fn audit(host: &Host, page: &mut Page) {
    page.single(
        "dyno_api_unauthorized_requests",
        Kind::Counter,
        "Requests from elsewhere without a good token. They are not in the audit log.",
        Some(host.metrics.unauthorized.load(Ordering::Relaxed)),
    );
    let counts = host.audit.counts();
    let mut counter = |name, help, count: &AtomicU64| {
        let count = count.load(Ordering::Relaxed);
        page.single(name, Kind::Counter, help, Some(count));
    };
    counter(
        "dyno_audit_lines",
        "Lines of the audit log that were written.",
        &counts.lines,
    );
    counter(
        "dyno_audit_failures",
        "Lines of the audit log that could not be written, or not be synced.",
        &counts.failures,
    );
    counter(
        "dyno_audit_refused_operations",
        "Operations that were refused, as they would have left no trace.",
        &counts.refused,
    );
}

fn network(host: &Host, page: &mut Page) {
    page.single(
        "dyno_network_dns_up",
        Kind::Gauge,
        "Whether DNS for dynos answers.",
        Some(u8::from(host.dns.load(Ordering::Relaxed))),
    );
    page.single(
        "dyno_network_repairs",
        Kind::Counter,
        "Things of the network that were not as they should be, and were repaired.",
        Some(host.metrics.repairs.load(Ordering::Relaxed)),
    );
}
