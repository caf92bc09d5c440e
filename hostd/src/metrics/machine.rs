//! The machine: memory, load, pressure, the disk of the state folder; and hostd's own
//! process, under the names that every exporter gives these.

use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::statvfs;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::page::{Kind, Page};

pub(super) fn write(state_dir: &Path, started: Timestamp, page: &mut Page) {
    memory(page);
    load(page);
    pressure(page);
    disk(state_dir, page);
    process(started, page);
}

fn memory(page: &mut Page) {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    for (name, help, key) in [
        (
            "dyno_host_memory_bytes",
            "Memory of the machine.",
            "MemTotal",
        ),
        (
            "dyno_host_memory_available_bytes",
            "Memory that can be had without swapping, as the kernel estimates it.",
            "MemAvailable",
        ),
    ] {
        page.single(name, Kind::Gauge, help, kibibytes(&text, key));
    }
}

/// The value of the line `key:  123 kB` in bytes.
fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn load(page: &mut Page) {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let loads: Vec<f64> = text
        .split(' ')
        .take(3)
        .map_while(|word| word.parse().ok())
        .collect();
    for (at, name, help) in [
        (0, "dyno_host_load1", "Load average of 1 minute."),
        (1, "dyno_host_load5", "Load average of 5 minutes."),
        (2, "dyno_host_load15", "Load average of 15 minutes."),
    ] {
        page.single(name, Kind::Gauge, help, loads.get(at));
    }
}

/// Documentation/accounting/psi.rst; a kernel may be booted without it.
fn pressure(page: &mut Page) {
    let mut family = page.family(
        "dyno_host_pressure_stalled_seconds",
        Kind::Counter,
        "Time in which some or all of the machine's tasks waited for a resource.",
    );
    for resource in ["cpu", "memory", "io"] {
        let text = fs::read_to_string(format!("/proc/pressure/{resource}")).unwrap_or_default();
        for tasks in ["some", "full"] {
            if let Some(stalled) = stalled(&text, tasks) {
                let labels = [("resource", resource), ("tasks", tasks)];
                family.sample(&labels, stalled.as_secs_f64());
            }
        }
    }
}

/// The total of the line `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, which is in µs.
fn stalled(text: &str, tasks: &str) -> Option<Duration> {
    let line = text.lines().find_map(|line| line.strip_prefix(tasks))?;
    let total = line.split(' ').find_map(|part| part.strip_prefix("total="));
    total?.parse().ok().map(Duration::from_micros)
}

fn disk(state_dir: &Path, page: &mut Page) {
    let Ok(found) = statvfs(state_dir) else {
        return;
    };
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    for (name, help, value) in [
        (
            "dyno_host_disk_size_bytes",
            "Size of the file system of the state folder.",
            bytes(found.f_blocks),
        ),
        (
            "dyno_host_disk_available_bytes",
            "Bytes that can be written to it.",
            bytes(found.f_bavail),
        ),
        (
            "dyno_host_disk_files",
            "Files that it can hold; 0 where it has no such limit.",
            found.f_files,
        ),
        (
            "dyno_host_disk_files_available",
            "Files that it can hold beside those that there are.",
            found.f_favail,
        ),
    ] {
        page.single(name, Kind::Gauge, help, Some(value));
    }
}

fn process(started: Timestamp, page: &mut Page) {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let used = u64::try_from(used.tv_sec)
        .ok()
        .zip(u32::try_from(used.tv_nsec).ok());
    page.single(
        "process_cpu_seconds",
        Kind::Counter,
        "Processor time of hostd.",
        used.map(|(seconds, nanos)| Duration::new(seconds, nanos).as_secs_f64()),
    );
    page.single(
        "process_start_time_seconds",
        Kind::Gauge,
        "When hostd was started, since 1970.",
        Some(seconds(started)),
    );
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    page.single(
        "process_resident_memory_bytes",
        Kind::Gauge,
        "Memory of hostd.",
        kibibytes(&status, "VmRSS"),
    );
    page.single(
        "process_virtual_memory_bytes",
        Kind::Gauge,
        "Address space of hostd.",
        kibibytes(&status, "VmSize"),
    );
    // One of them is for the look.
    let open = fs::read_dir("/proc/self/fd").map(|files| files.count().saturating_sub(1));
    page.single(
        "process_open_fds",
        Kind::Gauge,
        "Open files of hostd.",
        open.ok(),
    );
    page.single(
        "process_max_fds",
        Kind::Gauge,
        "Files that hostd can have open.",
        getrlimit(Resource::Nofile).current,
    );
}

/// A time as metrics have it.
pub(super) fn seconds(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_in_base_units() {
        let text = "MemTotal:       16 kB\nMemAvailable:    3 kB\nMemAvailableX: 9 kB\n";
        assert_eq!(kibibytes(text, "MemTotal"), Some(16_384));
        assert_eq!(kibibytes(text, "MemAvailable"), Some(3_072));
        assert_eq!(kibibytes(text, "Mem"), None);
        let text =
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 total=7\n";
        assert_eq!(stalled(text, "some"), Some(Duration::from_millis(1500)));
        assert_eq!(stalled(text, "full"), Some(Duration::from_micros(7)));
        assert_eq!(stalled("", "full"), None);
        let time: Timestamp = "1970-01-01T00:00:01.5Z".parse().unwrap();
        assert!((seconds(time) - 1.5).abs() < 1e-9);
    }
}
