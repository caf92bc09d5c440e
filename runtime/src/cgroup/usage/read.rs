//! From the kernel's files.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::error::{Error, Result};
use super::super::layout::Controller;
use super::super::{Cgroup, file, settings};
use super::{Cpu, CpuSet, Hugetlb, Memory, MemoryEntry, Pids, Pressure, Psi, Rdma, Usage, blkio};

/// `cpuacct.stat` counts in ticks, of which the kernel shows 100 a second to everybody
/// (`USER_HZ`, time(7)).
const TICK: u64 = 10_000_000;

impl Cgroup {
    /// Reads all that is counted. Of a group that is gone it is nothing.
    ///
    /// # Errors
    /// When a file that exists cannot be read.
    pub fn usage(&self) -> Result<Usage> {
        let v2 = self.record.v2.as_deref().map(Folder);
        let v1 = |controller| self.v1(controller).map(Folder);
        let pressure = |name| v2.map_or(Ok(None), |folder| folder.psi(name));
        let mut usage = Usage {
            pids: match v1(Controller::Pids).or(v2) {
                Some(folder) => pids(folder)?,
                None => Pids::default(),
            },
            cpu: self.cpu()?,
            cpuset: match v1(Controller::Cpuset) {
                Some(folder) => cpuset(folder)?,
                None => CpuSet::default(),
            },
            memory: match (v1(Controller::Memory), v2) {
                (Some(folder), _) => memory_v1(folder)?,
                (None, Some(folder)) => memory_v2(folder)?,
                (None, None) => Memory::default(),
            },
            blkio: match (v1(Controller::Io), v2) {
                (Some(folder), _) => blkio::v1(folder)?,
                (None, Some(folder)) => blkio::v2(&folder.text("io.stat")?),
                (None, None) => super::Blkio::default(),
            },
            hugetlb: match (v1(Controller::Hugetlb), v2) {
                (Some(folder), _) => hugetlb(folder, true)?,
                (None, Some(folder)) => hugetlb(folder, false)?,
                (None, None) => BTreeMap::new(),
            },
            rdma: match v1(Controller::Rdma).or(v2) {
                Some(folder) => rdma(folder)?,
                None => BTreeMap::new(),
            },
            ..Usage::default()
        };
        usage.cpu.psi = pressure("cpu.pressure")?;
        usage.memory.psi = pressure("memory.pressure")?;
        usage.blkio.psi = pressure("io.pressure")?;
        Ok(usage)
    }

    fn cpu(&self) -> Result<Cpu> {
        let v2 = self.record.v2.as_deref().map(Folder);
        let mut cpu = Cpu::default();
        // v2 counts processor time even where the controller is v1.
        if let Some(folder) = v2 {
            let nanos = |key| folder.keyed("cpu.stat", key).map(|usec| usec * 1000);
            cpu.usage.total = nanos("usage_usec")?;
            cpu.usage.user = nanos("user_usec")?;
            cpu.usage.kernel = nanos("system_usec")?;
        }
        if let Some(folder) = self.v1(Controller::Cpuacct).map(Folder) {
            cpu.usage.total = folder.number("cpuacct.usage")?;
            cpu.usage.user = folder.keyed("cpuacct.stat", "user")? * TICK;
            cpu.usage.kernel = folder.keyed("cpuacct.stat", "system")? * TICK;
            let text = folder.text("cpuacct.usage_percpu")?;
            let numbers = text.split_ascii_whitespace();
            cpu.usage.percpu = numbers.filter_map(|number| number.parse().ok()).collect();
            // A heading `cpu user system`, then a line for each.
            for line in folder.text("cpuacct.usage_all")?.lines().skip(1) {
                let mut fields = line.split(' ').skip(1).map(|field| field.parse().ok());
                if let (Some(Some(user)), Some(Some(kernel))) = (fields.next(), fields.next()) {
                    cpu.usage.percpu_user.push(user);
                    cpu.usage.percpu_kernel.push(kernel);
                }
            }
        }
        let (folder, time, unit) = match (self.v1(Controller::Cpu).map(Folder), v2) {
            (Some(folder), _) => (folder, "throttled_time", 1),
            (None, Some(folder)) => (folder, "throttled_usec", 1000),
            (None, None) => return Ok(cpu),
        };
        cpu.throttling.periods = folder.keyed("cpu.stat", "nr_periods")?;
        cpu.throttling.throttled_periods = folder.keyed("cpu.stat", "nr_throttled")?;
        cpu.throttling.throttled_time = folder.keyed("cpu.stat", time)? * unit;
        Ok(cpu)
    }
}

/// The folder of a group; a file that it lacks reads as empty.
#[derive(Clone, Copy)]
pub(super) struct Folder<'a>(&'a Path);

impl Folder<'_> {
    pub(super) fn text(self, name: &str) -> Result<String> {
        let path = self.0.join(name);
        let text = file::gone_is_none(file::read(&path)).map_err(Error::file("read", &path))?;
        Ok(text.unwrap_or_default())
    }

    fn has(self, name: &str) -> bool {
        self.0.join(name).exists()
    }

    /// `max` is the largest.
    fn number(self, name: &str) -> Result<u64> {
        Ok(match self.text(name)?.as_str() {
            "max" => u64::MAX,
            number => number.parse().unwrap_or(0),
        })
    }

    fn keyed(self, name: &str, key: &str) -> Result<u64> {
        Ok(file::keyed(&self.text(name)?, key).unwrap_or(0))
    }

    fn map(self, name: &str) -> Result<BTreeMap<String, u64>> {
        let text = self.text(name)?;
        let pairs = text.lines().filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        });
        Ok(pairs.collect())
    }

    /// None where the kernel does not count it; switched off, reading says EOPNOTSUPP.
    fn psi(self, name: &str) -> Result<Option<Psi>> {
        match self.text(name) {
            Ok(text) => Ok(psi(&text)),
            Err(Error::File { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Lines `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn psi(text: &str) -> Option<Psi> {
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut pressure = Pressure::default();
        for field in line.split(' ').skip(1) {
            let (key, value) = field.split_once('=')?;
            match key {
                "avg10" => pressure.avg10 = value.parse().ok()?,
                "avg60" => pressure.avg60 = value.parse().ok()?,
                "avg300" => pressure.avg300 = value.parse().ok()?,
                "total" => pressure.total = value.parse().ok()?,
                _ => {}
            }
        }
        match line.split(' ').next()? {
            "some" => psi.some = pressure,
            "full" => psi.full = pressure,
            _ => {}
        }
    }
    (!text.is_empty()).then_some(psi)
}

fn pids(folder: Folder<'_>) -> Result<Pids> {
    let limit = folder.number("pids.max")?;
    Ok(Pids {
        current: folder.number("pids.current")?,
        limit: if limit == u64::MAX { 0 } else { limit },
    })
}

fn cpuset(folder: Folder<'_>) -> Result<CpuSet> {
    let list = |name: &str| -> Result<Vec<u32>> {
        let ranges = settings::parse_list(&folder.text(name)?).unwrap_or_default();
        Ok(ranges.into_iter().flatten().collect())
    };
    let number = |name: &str| folder.number(&format!("cpuset.{name}"));
    Ok(CpuSet {
        cpus: list("cpuset.cpus")?,
        cpu_exclusive: number("cpu_exclusive")?,
        mems: list("cpuset.mems")?,
        mem_hardwall: number("mem_hardwall")?,
        mem_exclusive: number("mem_exclusive")?,
        memory_migrate: number("memory_migrate")?,
        memory_spread_page: number("memory_spread_page")?,
        memory_spread_slab: number("memory_spread_slab")?,
        memory_pressure: number("memory_pressure")?,
        sched_load_balance: number("sched_load_balance")?,
        sched_relax_domain_level: folder
            .text("cpuset.sched_relax_domain_level")?
            .parse()
            .unwrap_or(0),
    })
}

fn memory_v1(folder: Folder<'_>) -> Result<Memory> {
    let entry = |kind: &str| -> Result<MemoryEntry> {
        let number = |name: &str| folder.number(&format!("memory.{kind}{name}"));
        Ok(MemoryEntry {
            limit: number("limit_in_bytes")?,
            usage: number("usage_in_bytes")?,
            max: number("max_usage_in_bytes")?,
            failcnt: number("failcnt")?,
        })
    };
    let raw = folder.map("memory.stat")?;
    Ok(Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: entry("")?,
        swap: entry("memsw.")?,
        kernel: entry("kmem.")?,
        kernel_tcp: entry("kmem.tcp.")?,
        raw,
        ..Memory::default()
    })
}

fn memory_v2(folder: Folder<'_>) -> Result<Memory> {
    if !folder.has("memory.current") {
        return Ok(Memory::default());
    }
    let raw = folder.map("memory.stat")?;
    let event_count = folder.map("memory.events")?;
    let usage = MemoryEntry {
        limit: folder.number("memory.max")?,
        usage: folder.number("memory.current")?,
        max: folder.number("memory.peak")?,
        failcnt: event_count.get("max").copied().unwrap_or(0),
    };
    // Together, as on v1; the greatest sum of the two is nobody's to know.
    let mut swap = MemoryEntry {
        usage: folder.number("memory.swap.current")? + usage.usage,
        failcnt: folder.keyed("memory.swap.events", "max")?,
        ..MemoryEntry::default()
    };
    swap.limit = folder
        .number("memory.swap.max")?
        .saturating_add(usage.limit);
    if !folder.has("memory.swap.current") {
        swap = MemoryEntry::default();
    }
    Ok(Memory {
        cache: raw.get("file").copied().unwrap_or(0),
        usage,
        swap,
        raw,
        event_count,
        ..Memory::default()
    })
}

/// Reservations where the kernel counts them, else use.
fn hugetlb(folder: Folder<'_>, v1: bool) -> Result<BTreeMap<String, Hugetlb>> {
    let mut all = BTreeMap::new();
    for size in page_sizes() {
        let (current, most, failed) = if v1 {
            ("usage_in_bytes", "max_usage_in_bytes", "failcnt")
        } else {
            ("current", "", "events")
        };
        let kinds = [format!("hugetlb.{size}.rsvd"), format!("hugetlb.{size}")];
        let Some(kind) = kinds
            .iter()
            .find(|kind| folder.has(&format!("{kind}.{current}")))
        else {
            continue;
        };
        let usage = folder.number(&format!("{kind}.{current}"))?;
        let hugetlb = if v1 {
            Hugetlb {
                usage,
                max: folder.number(&format!("{kind}.{most}"))?,
                failcnt: folder.number(&format!("{kind}.{failed}"))?,
            }
        } else {
            Hugetlb {
                usage,
                max: 0,
                failcnt: folder.keyed(&format!("hugetlb.{size}.{failed}"), "max")?,
            }
        };
        all.insert(size, hugetlb);
    }
    Ok(all)
}

/// The sizes as hugetlb's files have them: `hugepages-2048kB` is `2MB`.
fn page_sizes() -> Vec<String> {
    let folder = std::fs::read_dir("/sys/kernel/mm/hugepages");
    let names = folder.into_iter().flatten().flatten();
    let size = |name: &str| {
        let digits = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
        let kib: u64 = digits.parse().ok()?;
        Some(match kib {
            0..0x400 => format!("{kib}KB"),
            0x400..0x10_0000 => format!("{}MB", kib >> 10),
            _ => format!("{}GB", kib >> 20),
        })
    };
    names
        .filter_map(|entry| size(entry.file_name().to_str()?))
        .collect()
}

fn rdma(folder: Folder<'_>) -> Result<BTreeMap<String, Rdma>> {
    let mut all = BTreeMap::<String, Rdma>::new();
    for (name, is_limit) in [("rdma.current", false), ("rdma.max", true)] {
        for line in folder.text(name)?.lines() {
            let mut fields = line.split(' ');
            let Some(device) = fields.next() else {
                continue;
            };
            let entry = all.entry(device.to_owned()).or_default();
            for (key, value) in fields.filter_map(|field| field.split_once('=')) {
                let number = value.parse::<u32>().ok();
                match (key, is_limit) {
                    ("hca_handle", false) => entry.hca_handles = number.unwrap_or(0),
                    ("hca_object", false) => entry.hca_objects = number.unwrap_or(0),
                    ("hca_handle", true) => entry.hca_handles_limit = number,
                    ("hca_object", true) => entry.hca_objects_limit = number,
                    _ => {}
                }
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_as_the_kernel_writes_it() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=1234\n\
                    full avg10=0.50 avg60=0.00 avg300=0.00 total=17";
        let psi = psi(text).unwrap();
        assert_eq!((psi.some.avg10, psi.some.total), (1.5, 1234));
        assert_eq!((psi.full.avg10, psi.full.total), (0.5, 17));
        assert_eq!(super::psi(""), None);
    }

    /// What runc 1.1 writes for a group that has done nothing, but for fields of newer
    /// versions.
    #[test]
    fn nothing_reads_as_in_runc() {
        let json = serde_json::to_value(Usage::default()).unwrap();
        let entry = serde_json::json!({ "limit": 0, "failcnt": 0 });
        let expected = serde_json::json!({
            "cpu": { "usage": { "kernel": 0, "user": 0 }, "throttling": {} },
            "cpuset": {
                "cpu_exclusive": 0, "mem_hardwall": 0, "mem_exclusive": 0,
                "memory_migrate": 0, "memory_spread_page": 0, "memory_spread_slab": 0,
                "memory_pressure": 0, "sched_load_balance": 0,
                "sched_relax_domain_level": 0,
            },
            "memory": { "usage": entry, "swap": entry, "kernel": entry, "kernelTCP": entry },
            "pids": {},
            "blkio": {},
            "hugetlb": {},
            "intel_rdt": {},
            "network_interfaces": null,
        });
        assert_eq!(json, expected);
    }
}
