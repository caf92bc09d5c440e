//! What a host manager costs and how soon it answers: hostd's own figures.
//!
//! ```text
//!  creation   a running dyno by the API, beside Podman's and containerd's
//!  idle       memory and processors for nothing to do, without dynos and with 500
//!  reads      requests that only look, many a second
//!  flood      one dyno that writes as much as it can, and what others feel of it
//!  comeback   from `kill -9` until hostd can be given work again
//! ```

mod comeback;
mod creation;
mod dynos;
mod flood;
mod idle;
mod reads;

use std::time::Duration;

use anyhow::Result;

use super::host::Host;
use super::peers::Background;
use super::statistics::Samples;
use super::table::print_figure;

/// Dynos that stand around while others are measured.
const SOME: usize = 100;
/// As many as a busy machine has.
const MANY: usize = 500;

/// A figure with what it shall be.
pub(super) struct Figure {
    pub(super) what: String,
    pub(super) value: String,
    /// The target, and whether it is met.
    pub(super) target: Option<(String, bool)>,
}

impl Figure {
    fn new(what: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            value: value.into(),
            target: None,
        }
    }

    fn target(mut self, target: impl Into<String>, is_met: bool) -> Self {
        self.target = Some((target.into(), is_met));
        self
    }

    /// A median and a 99th percentile, each with the most that it shall be.
    fn times(what: &str, samples: &Samples, median: Duration, p99: Duration) -> [Self; 2] {
        let figure = |name: &str, value: Duration, most: Duration| {
            Self::new(format!("{what}, {name}"), milliseconds(value))
                .target(milliseconds(most), value <= most)
        };
        [
            figure("median", samples.median(), median),
            figure("p99", samples.percentile(99), p99),
        ]
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn mebibytes(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20)
}

/// Measures and prints all of them.
///
/// # Errors
/// When something fails; a missed target is no error.
pub(super) fn measure(host: &mut Host, peers: &[Background], rounds: usize) -> Result<()> {
    println!("\na host manager's figures");
    let show = |figures: Vec<Figure>| figures.iter().for_each(print_figure);
    show(idle::without_dynos()?);
    show(creation::measure(host, peers, rounds)?);
    let some = dynos::start(host, SOME)?;
    show(reads::measure(host, &some)?);
    show(flood::measure(host)?);
    show(comeback::measure(host, SOME, Duration::from_secs(1))?);
    let others = dynos::start(host, MANY - SOME)?;
    show(idle::with_dynos(MANY)?);
    show(comeback::measure(host, MANY, Duration::from_secs(3))?);
    dynos::remove(host, some.into_iter().chain(others))
}
