//! What a dyno uses: its cgroup's counters and its link's.

use dyno_api::dyno::Stats;
use dyno_api::error::ApiError;
use dyno_api::name::DynoId;
use dyno_runtime::cgroup;
use std::sync::Arc;

use crate::durable::internal;
use crate::host::{Host, blocking};
use crate::{cgroups, layer, logs};

/// One measurement. What the kernel does not count is 0.
///
/// # Errors
/// When the cgroup cannot be read.
pub async fn measure(host: &Arc<Host>, id: &DynoId) -> Result<Stats, ApiError> {
    let (shared, group) = (host.clone(), id.clone());
    let (used, log_dropped, disk) = blocking(move || {
        let used = used(&shared, &group)?;
        let own = shared.paths.dyno(&group);
        Ok((used, logs::dropped(&own.log()), layer::usage(&own)))
    })
    .await?;
    let link = host.network.counters(id).await.unwrap_or_default();
    Ok(Stats {
        cpu_usec: used.cpu_usec.unwrap_or(0),
        throttled_usec: used.throttled_usec.unwrap_or(0),
        memory_bytes: used.memory_bytes.unwrap_or(0),
        memory_peak_bytes: used.memory_peak_bytes.unwrap_or(0),
        memory_max_bytes: used.memory_max_bytes,
        pids: used.pids.unwrap_or(0),
        net_rx_bytes: link.rx_bytes,
        net_tx_bytes: link.tx_bytes,
        io_read_bytes: used.io_read_bytes.unwrap_or(0),
        io_write_bytes: used.io_write_bytes.unwrap_or(0),
        cpu_stalled_usec: used.cpu_stalled_usec.unwrap_or(0),
        memory_stalled_usec: used.memory_stalled_usec.unwrap_or(0),
        io_stalled_usec: used.io_stalled_usec.unwrap_or(0),
        log_dropped,
        disk_bytes: disk.map(|disk| disk.bytes),
        disk_max_bytes: disk.and_then(|disk| disk.bytes_most),
    })
}

/// The counters of a dyno's cgroup. Blocks.
///
/// # Errors
/// When the cgroup cannot be read.
pub fn used(host: &Host, id: &DynoId) -> Result<cgroup::Stats, ApiError> {
    cgroups::of(host, id)
        .and_then(|group| group.stats())
        .map_err(|error| internal(&error))
}
