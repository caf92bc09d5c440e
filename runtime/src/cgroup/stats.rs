//! What a group uses at this moment, from whichever version counts it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::layout::Controller;
use super::{Cgroup, file};

/// Usage of a cgroup. `None`: not counted on this host; for a maximum: no limit.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Stats {
    /// Processor time used, in µs.
    pub cpu_usec: Option<u64>,
    /// Time that the group was held back by its quota, in µs, summed over processors.
    pub throttled_usec: Option<u64>,
    /// Memory in use, page cache included.
    pub memory_bytes: Option<u64>,
    /// The most memory that was ever in use.
    pub memory_peak_bytes: Option<u64>,
    /// The limit on memory.
    pub memory_max_bytes: Option<u64>,
    /// Processes that were killed because the limit was reached.
    pub oom_kills: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Read from block devices.
    pub io_read_bytes: Option<u64>,
    /// Written to block devices.
    pub io_write_bytes: Option<u64>,
    /// Time in which a process waited for a processor, in µs: `some` of PSI, which the
    /// v2 tree counts whatever version limits.
    pub cpu_stalled_usec: Option<u64>,
    /// Time in which a process waited for memory, in µs.
    pub memory_stalled_usec: Option<u64>,
    /// Time in which a process waited for a block device, in µs.
    pub io_stalled_usec: Option<u64>,
}

/// The total of the line `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`
/// (Documentation/accounting/psi.rst). A kernel that was booted without PSI has the
/// file and refuses to read it.
fn stalled(folder: &Path, name: &str) -> Option<u64> {
    let text = file::read(&folder.join(name)).ok()?;
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let total = some.split(' ').find_map(|part| part.strip_prefix("total="));
    total?.parse().ok()
}

impl Cgroup {
    /// Reads the usage. Of a group that is gone everything is `None`.
    ///
    /// # Errors
    /// When a counter that exists cannot be read.
    pub fn stats(&self) -> Result<Stats> {
        let v2 = self.record.v2.as_deref();
        let v1 = |controller| self.v1(controller);
        let mut stats = Stats::default();
        if let Some(folder) = v2 {
            stats.cpu_stalled_usec = stalled(folder, "cpu.pressure");
            stats.memory_stalled_usec = stalled(folder, "memory.pressure");
            stats.io_stalled_usec = stalled(folder, "io.pressure");
        }

        // v2 counts processor time even where the controller is v1.
        match (v2, v1(Controller::Cpuacct)) {
            (Some(folder), _) => stats.cpu_usec = keyed(folder, "cpu.stat", "usage_usec")?,
            (None, Some(folder)) => {
                stats.cpu_usec = number(folder, "cpuacct.usage")?.map(|nanos| nanos / 1000);
            }
            (None, None) => {}
        }
        match (v1(Controller::Cpu), v2) {
            (Some(folder), _) => {
                let nanos = keyed(folder, "cpu.stat", "throttled_time")?;
                stats.throttled_usec = nanos.map(|nanos| nanos / 1000);
            }
            (None, Some(folder)) => {
                stats.throttled_usec = keyed(folder, "cpu.stat", "throttled_usec")?;
            }
            (None, None) => {}
        }
        match (v1(Controller::Memory), v2) {
            (Some(folder), _) => {
                stats.memory_bytes = number(folder, "memory.usage_in_bytes")?;
                stats.memory_peak_bytes = number(folder, "memory.max_usage_in_bytes")?;
                let limit = number(folder, "memory.limit_in_bytes")?;
                stats.memory_max_bytes = limit.filter(|limit| *limit < V1_UNLIMITED);
                stats.oom_kills = keyed(folder, "memory.oom_control", "oom_kill")?;
            }
            (None, Some(folder)) => {
                stats.memory_bytes = number(folder, "memory.current")?;
                stats.memory_peak_bytes = number(folder, "memory.peak")?;
                stats.memory_max_bytes = number(folder, "memory.max")?;
                stats.oom_kills = keyed(folder, "memory.events", "oom_kill")?;
            }
            (None, None) => {}
        }
        if let Some(folder) = v1(Controller::Pids).or(v2) {
            stats.pids = number(folder, "pids.current")?;
        }
        let io = match (v1(Controller::Io), v2) {
            (Some(folder), _) => {
                let name = "blkio.throttle.io_service_bytes_recursive";
                read(folder, name)?.map(|text| v1_io(&text))
            }
            (None, Some(folder)) => read(folder, "io.stat")?.map(|text| v2_io(&text)),
            (None, None) => None,
        };
        (stats.io_read_bytes, stats.io_write_bytes) = io.unzip();
        Ok(stats)
    }
}

/// v1 writes "no limit" as the largest page-aligned i64.
const V1_UNLIMITED: u64 = 0x7fff_ffff_ffff_0000;

fn read(folder: &Path, name: &str) -> Result<Option<String>> {
    let path = folder.join(name);
    file::gone_is_none(file::read(&path)).map_err(Error::file("read", &path))
}

/// `max` is no number.
fn number(folder: &Path, name: &str) -> Result<Option<u64>> {
    Ok(read(folder, name)?.and_then(|text| text.parse().ok()))
}

fn keyed(folder: &Path, name: &str, key: &str) -> Result<Option<u64>> {
    Ok(read(folder, name)?.and_then(|text| file::keyed(&text, key)))
}

/// Lines `8:0 rbytes=1 wbytes=2 …`, summed over devices.
fn v2_io(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        let values = text
            .split_ascii_whitespace()
            .filter_map(|field| field.strip_prefix(key));
        values.filter_map(|value| value.parse::<u64>().ok()).sum()
    };
    (sum("rbytes="), sum("wbytes="))
}

/// Lines `8:0 Read 1`, and one `Total 3`.
fn v1_io(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        let of_line = |line: &str| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            if fields.next()? == key {
                fields.next()?.parse::<u64>().ok()
            } else {
                None
            }
        };
        text.lines().filter_map(of_line).sum()
    };
    (sum("Read"), sum("Write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_is_summed_over_devices_in_both_formats() {
        let v2 = "8:0 rbytes=10 wbytes=1 rios=3 wios=4 dbytes=9 dios=9\n254:0 rbytes=5 wbytes=2";
        assert_eq!(v2_io(v2), (15, 3));
        let v1 = "8:0 Read 10\n8:0 Write 1\n8:0 Sync 11\n254:0 Read 5\n254:0 Write 2\nTotal 18";
        assert_eq!(v1_io(v1), (15, 3));
        assert_eq!(v2_io(""), (0, 0));
    }
}
