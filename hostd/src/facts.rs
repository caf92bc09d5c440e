//! What this machine is and can do, read once at start.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

/// The machine, as far as admission and bundles depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// Memory in bytes: the machine's, or less where hostd itself is limited.
    pub memory_bytes: u64,
    /// CPUs that this process may use.
    pub cpus: u32,
    /// hostd's own hard resource limits, by lower-case name: no dyno exceeds them.
    pub hard_limits: BTreeMap<String, u64>,
    /// What dynos begin with of oom_score_adj: never spared, as hostd may be.
    pub oom_score_adj: i32,
    /// `os/architecture`, the platform of images that run here.
    pub platform: String,
    /// Kernel release.
    pub kernel: String,
    /// Whether the kernel speaks IPv6.
    pub ipv6: bool,
    /// The disk that the state is on, where it is on one.
    pub disk: Option<Disk>,
}

/// A block device as a whole, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Its driver.
    pub major: u32,
    /// Which of the driver's.
    pub minor: u32,
}

impl Disk {
    /// The disk that a file is on: of a partition the whole, as `io.max` takes no other.
    /// None where the file system is on none, or on several.
    ///
    /// # Errors
    /// When the file or sysfs cannot be read.
    pub fn of(file: &Path) -> io::Result<Option<Self>> {
        let number = rustix::fs::stat(file)?.st_dev;
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let device = Path::new("/sys/dev/block").join(format!("{major}:{minor}"));
        if !device.try_exists()? {
            return Ok(None);
        }
        if !device.join("partition").try_exists()? {
            return Ok(Some(Self { major, minor }));
        }
        // A link into the whole disk's folder.
        let whole = device.canonicalize()?;
        let whole = whole
            .parent()
            .map_or_else(PathBuf::new, |disk| disk.join("dev"));
        Ok(Self::parse(&fs::read_to_string(whole)?))
    }

    /// As in sysfs, `254:0`.
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once(':')?;
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }
}

impl HostFacts {
    /// Reads them; `state` is the folder of what lasts.
    ///
    /// # Errors
    /// When procfs cannot be read, or sysfs.
    pub fn read(state: &Path) -> io::Result<Self> {
        let meminfo = fs::read_to_string("/proc/meminfo")?;
        let memory_bytes = parse_memory_total(&meminfo).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "/proc/meminfo has no MemTotal")
        })?;
        let cpus = std::thread::available_parallelism()?.get();
        let uname = rustix::system::uname();
        Ok(Self {
            memory_bytes,
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
            hard_limits: hard_limits(),
            oom_score_adj: oom_score_adj()?,
            platform: format!("linux/{}", architecture()),
            kernel: uname.release().to_string_lossy().into_owned(),
            ipv6: fs::exists("/proc/sys/net/ipv6")?,
            disk: Disk::of(state)?,
        })
    }
}

/// Resolvers of the host that dynos can reach, as `/etc/resolv.conf` names them now.
pub fn resolvers() -> Vec<IpAddr> {
    parse_resolvers(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

/// Where hostd itself is among the first to go, it may not be allowed to give
/// its dynos less.
fn oom_score_adj() -> io::Result<i32> {
    let own = fs::read_to_string("/proc/self/oom_score_adj")?;
    let own: i32 = own.trim().parse().map_err(io::Error::other)?;
    Ok(own.max(0))
}

fn hard_limits() -> BTreeMap<String, u64> {
    [
        ("as", Resource::As),
        ("core", Resource::Core),
        ("cpu", Resource::Cpu),
        ("data", Resource::Data),
        ("fsize", Resource::Fsize),
        ("locks", Resource::Locks),
        ("memlock", Resource::Memlock),
        ("msgqueue", Resource::Msgqueue),
        ("nice", Resource::Nice),
        ("nofile", Resource::Nofile),
        ("nproc", Resource::Nproc),
        ("rss", Resource::Rss),
        ("rtprio", Resource::Rtprio),
        ("rttime", Resource::Rttime),
        ("sigpending", Resource::Sigpending),
        ("stack", Resource::Stack),
    ]
    .into_iter()
    .map(|(name, resource)| {
        (
            name.to_owned(),
            getrlimit(resource).maximum.unwrap_or(u64::MAX),
        )
    })
    .collect()
}

/// The architecture in the words of the OCI image specification.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn parse_memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn parse_resolvers(resolv_conf: &str) -> Vec<IpAddr> {
    resolv_conf
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bytes() {
        assert_eq!(
            parse_memory_total("MemTotal:       16 kB\nMemFree: 1 kB\n"),
            Some(16_384)
        );
        assert_eq!(parse_memory_total(""), None);
    }

    #[test]
    fn resolvers_are_the_addresses_that_parse() {
        let found =
            parse_resolvers("# x\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nsearch a\n");
        assert_eq!(found, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    }
}
