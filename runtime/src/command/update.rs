//! `update`: other limits for a container that lives, by flags or by a file.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxIntelRdt, LinuxMemory, LinuxPids, LinuxResources,
};

use super::{Failure, lifecycle, update_class, warn};
use crate::cgroup::{self, Cgroup};
use crate::spec::parse;
use crate::state::{StateRoot, Status};

/// No resources.json is larger, in bytes (P15).
const MAX_RESOURCES: u64 = 1 << 20;

// Arguments of `update`; the flags are runc's, and what none is given for stays.
#[derive(Debug, clap::Args)]
pub(super) struct Update {
    /// linux.resources of config.json as a file, or - for standard input
    #[arg(long, short, value_name = "FILE", conflicts_with_all = FLAGS)]
    resources: Option<PathBuf>,
    /// Weight for block devices, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Period of the CPU quota, in µs
    #[arg(long, value_name = "USEC")]
    cpu_period: Option<u64>,
    /// CPU time in a period, in µs; -1 for no limit
    #[arg(long, value_name = "USEC", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// CPU time beyond the quota that can be saved up, in µs
    #[arg(long, value_name = "USEC")]
    cpu_burst: Option<u64>,
    /// Weight for CPU time, 2 to 262144
    #[arg(long, value_name = "SHARES")]
    cpu_share: Option<u64>,
    /// Period of real-time scheduling, in µs (cgroup v1)
    #[arg(long, value_name = "USEC")]
    cpu_rt_period: Option<u64>,
    /// Real-time CPU time in a period, in µs (cgroup v1)
    #[arg(long, value_name = "USEC", allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
    /// 1 to run only where nobody else wants to
    #[arg(long, value_name = "0|1")]
    cpu_idle: Option<i64>,
    /// CPUs to use, as 0-3,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use, as 0-1
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Limit on memory, as 64M; -1 for none
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    memory: Option<i64>,
    /// Memory that is left to it as long as possible
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    memory_reservation: Option<i64>,
    /// Limit on memory and swap together; -1 for none
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// Ignored, with a warning: the kernel counts it in --memory
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true, hide = true)]
    kernel_memory: Option<i64>,
    /// Ignored, with a warning: the kernel counts it in --memory
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true, hide = true)]
    kernel_memory_tcp: Option<i64>,
    /// Limit on processes and threads; -1 for none
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Cache of its class, as L3:0=ffff0;1=3ff (Intel RDT)
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// Memory bandwidth of its class, as MB:0=20;1=70 (Intel RDT)
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
    /// The container
    id: String,
}

/// What a file says in their place.
const FLAGS: [&str; 16] = [
    "blkio_weight",
    "cpu_period",
    "cpu_quota",
    "cpu_burst",
    "cpu_share",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "cpu_idle",
    "cpuset_cpus",
    "cpuset_mems",
    "memory",
    "memory_reservation",
    "memory_swap",
    "kernel_memory",
    "kernel_memory_tcp",
    "pids_limit",
];

/// Changes the limits, all or none of them.
pub(super) fn update(states: &StateRoot, args: &Update) -> Result<(), Failure> {
    let resources = match &args.resources {
        Some(path) => read(path)?,
        None => args.resources(),
    };
    // The lock is held: of two updates at once, one puts back what it finds.
    let (state, record) = lifecycle::opened(states, &args.id)?;
    if record.status(&state)? == Status::Stopped {
        let id = &args.id;
        return Err(format!("container not running: {id:?} has stopped").into());
    }
    for warning in cgroup::ignored(&resources) {
        warn(&warning);
    }
    let cgroup = Cgroup::open(record.cgroup.clone())?;
    let Some(schemas) = args.schemas() else {
        return Ok(cgroup.update(&resources)?);
    };
    update_class::update(&state, record, &schemas, &cgroup, || {
        cgroup.update(&resources)
    })
}

fn read(path: &Path) -> Result<LinuxResources, Failure> {
    let mut text = Vec::new();
    let input: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => Box::new(File::open(path).map_err(at(path))?),
    };
    let mut input = input.take(MAX_RESOURCES + 1);
    input.read_to_end(&mut text).map_err(at(path))?;
    if text.len() as u64 > MAX_RESOURCES {
        return Err(format!("{} is larger than {MAX_RESOURCES} bytes", path.display()).into());
    }
    parse(&text).map_err(|error| format!("parse {}, {error}", path.display()).into())
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> String {
    move |error| format!("read {}: {error}", path.display())
}

impl Update {
    /// What is asked of its class, if anything.
    fn schemas(&self) -> Option<LinuxIntelRdt> {
        let given = |schema: &Option<String>| schema.clone().filter(|schema| !schema.is_empty());
        let (cache, bandwidth) = (given(&self.l3_cache_schema), given(&self.mem_bw_schema));
        let asked = cache.is_some() || bandwidth.is_some();
        let mut schemas = LinuxIntelRdt::default();
        schemas
            .set_l3_cache_schema(cache)
            .set_mem_bw_schema(bandwidth);
        asked.then_some(schemas)
    }

    fn resources(&self) -> LinuxResources {
        let mut memory = LinuxMemory::default();
        memory
            .set_limit(self.memory)
            .set_swap(self.memory_swap)
            .set_reservation(self.memory_reservation)
            .set_kernel(self.kernel_memory)
            .set_kernel_tcp(self.kernel_memory_tcp);
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(self.cpu_share)
            .set_quota(self.cpu_quota)
            .set_period(self.cpu_period)
            .set_burst(self.cpu_burst)
            .set_idle(self.cpu_idle)
            .set_realtime_period(self.cpu_rt_period)
            .set_realtime_runtime(self.cpu_rt_runtime)
            .set_cpus(self.cpuset_cpus.clone())
            .set_mems(self.cpuset_mems.clone());
        let mut io = LinuxBlockIo::default();
        io.set_weight(self.blkio_weight);
        let pids = self.pids_limit.map(|limit| {
            let mut pids = LinuxPids::default();
            pids.set_limit(limit);
            pids
        });
        let mut resources = LinuxResources::default();
        resources
            .set_memory(Some(memory))
            .set_cpu(Some(cpu))
            .set_block_io(Some(io))
            .set_pids(pids);
        resources
    }
}

/// A number of bytes as runc takes it (docker's `go-units`): `64M`, `1.5 GiB`, `512kb`,
/// all of them powers of 1024; or -1.
fn size(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    let wrong = || format!("{text:?} is no size such as 67108864, 64M or 1.5GiB");
    let end = text.rfind(|c: char| c.is_ascii_digit()).ok_or_else(wrong)? + 1;
    let (number, unit) = text.split_at(end);
    let shift = match &*unit.trim_start().to_ascii_lowercase() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(wrong()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return Err(wrong());
    }
    let whole: i128 = whole.parse().map_err(|_none| wrong())?;
    let parts: i128 = fraction.parse().map_err(|_none| wrong())?;
    let scale = 10_i128.pow(u32::try_from(fraction.len()).map_err(|_large| wrong())?);
    let bytes = whole.checked_mul(1 << shift).ok_or_else(wrong)? + (parts << shift) / scale;
    i64::try_from(bytes).map_err(|_large| wrong())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn sizes_are_runcs() {
        for (text, bytes) in [
            ("0", 0),
            ("-1", -1),
            ("67108864", 64 << 20),
            ("64M", 64 << 20),
            ("64mb", 64 << 20),
            ("64 MiB", 64 << 20),
            ("1.5g", 3 << 29),
            ("512k", 512 << 10),
            ("7b", 7),
            ("1p", 1 << 50),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in [
            "",
            "M",
            "-2",
            "1x",
            "1.2.3",
            ".5M",
            "1e3",
            "9223372036854775808",
            "9999999p",
            "1MM",
        ] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        update: Update,
    }

    fn parsed(line: &str) -> Result<LinuxResources, String> {
        let line = Line::try_parse_from(["update"].into_iter().chain(line.split(' ')));
        let update = line.map_err(|error| error.to_string())?.update;
        Ok(update.resources())
    }

    #[test]
    fn every_flag_becomes_the_property_that_it_means() {
        let line = "--blkio-weight 500 --cpu-period 100000 --cpu-quota -1 --cpu-burst 7 \
                    --cpu-share 512 --cpu-rt-period 8 --cpu-rt-runtime 9 --cpu-idle 1 \
                    --cpuset-cpus 0-1 --cpuset-mems 0 --memory 64M --memory-swap=-1 \
                    --memory-reservation 32M --kernel-memory 1k --kernel-memory-tcp 2k \
                    --pids-limit -1 x";
        let told = serde_json::to_value(parsed(line).unwrap()).unwrap();
        let meant = serde_json::json!({
            "blockIO": {"weight": 500},
            "cpu": {"period": 100_000, "quota": -1, "burst": 7, "shares": 512,
                "realtimePeriod": 8, "realtimeRuntime": 9, "idle": 1, "cpus": "0-1", "mems": "0"},
            "memory": {"limit": 64 << 20, "swap": -1, "reservation": 32 << 20,
                "kernel": 1024, "kernelTCP": 2048},
            "pids": {"limit": -1},
        });
        assert_eq!(told, meant);
    }

    #[test]
    fn a_file_and_flags_together_are_refused() {
        for flag in FLAGS {
            let flag = flag.replace('_', "-");
            let refused = parsed(&format!("--resources f --{flag} 1 x"));
            assert!(
                refused.unwrap_err().contains("cannot be used with"),
                "{flag}"
            );
        }
    }
}
