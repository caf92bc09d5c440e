//! How soon hostd is there again.

use std::time::Duration;

use anyhow::Result;

use super::super::host::Host;
use super::super::statistics::Samples;
use super::{Figure, milliseconds};

/// How often it is killed.
const ROUNDS: usize = 10;

/// From `kill -9`, and a start at once, until `/readyz` says that it can be given work:
/// every dyno is supervised again by then.
pub(super) fn measure(host: &mut Host, count: usize, most: Duration) -> Result<Vec<Figure>> {
    let mut samples = Samples::default();
    for _ in 0..ROUNDS {
        samples.push(host.kill_and_restart()?);
    }
    let (median, worst) = (samples.median(), samples.percentile(100));
    let figure = Figure::new(
        format!("hostd ready after kill -9, {count} dynos"),
        format!("{}, at worst {}", milliseconds(median), milliseconds(worst)),
    );
    Ok(vec![figure.target(milliseconds(most), worst <= most)])
}
