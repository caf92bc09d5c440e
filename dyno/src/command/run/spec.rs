//! The flags that say what shall run, and the [`DynoSpec`] they make.

use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};
use dyno_api::dyno::{
    Dependency, Device, DynoSpec, IoLimits, Limits, Mount, NetMode, PortMapping, RestartPolicy,
    Security, Ulimit,
};
use dyno_api::name::DynoName;

use super::environment::EnvArgs;
use super::given::GivenArgs;
use super::health::HealthArgs;
use super::logs::LogArgs;
use crate::failure::Failure;
use crate::value::{
    after, device, duration, env, io, limit, mount, platform, port, restart, size, ulimit,
};

/// What shall run, apart from the image, the command and the streams.
#[derive(Debug, Args)]
pub(super) struct SpecArgs {
    /// Name [default: made from the image's]
    #[arg(long)]
    name: Option<DynoName>,
    #[command(flatten)]
    env: EnvArgs,
    /// Volume or path of the host, and where it is inside
    #[arg(short, long, value_name = "SOURCE:PATH[:ro]", value_parser = mount::parse_volume)]
    volume: Vec<Mount>,
    /// Publish a port of the dyno on the host
    #[arg(short, long, value_name = "[ADDRESS:][HOST:]DYNO[/udp]", value_parser = port::parse)]
    publish: Vec<PortMapping>,
    /// Memory limit, such as 64M or 1G
    #[arg(short, long, value_name = "SIZE", value_parser = size::parse_memory)]
    memory: Option<u64>,
    /// CPU limit, such as 0.5 or 2
    #[arg(long, value_name = "CPUS", value_parser = limit::parse_cpu)]
    cpu: Option<u32>,
    /// Limit of processes and threads [default: 4096]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pids: Option<u32>,
    /// Most of the disk each second, such as read=10M,write=5M,reads=200,writes=100
    #[arg(long, value_name = "LIMITS", value_parser = io::parse_new)]
    io: Option<IoLimits>,
    /// What it may write to its own /, on disk
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    disk: Option<u64>,
    /// User and group, names or numbers [default: the image's]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory [default: the image's]
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    /// Host name inside [default: the name]
    #[arg(long)]
    hostname: Option<String>,
    /// Start it again: no, on-failure, on-failure:N or always
    #[arg(long, value_name = "POLICY", default_value = "no", value_parser = restart::parse)]
    restart: RestartPolicy,
    /// Start it once another dyno has started, or is ready
    #[arg(long, value_name = "NAME[:started|:ready]", value_parser = after::parse)]
    after: Vec<Dependency>,
    /// The higher, the earlier it is started at boot [default: 0]
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        default_value_t,
        hide_default_value = true
    )]
    priority: i32,
    #[command(flatten)]
    health: HealthArgs,
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Put an init before its command: it forwards signals and reaps orphans
    #[arg(long)]
    init: bool,
    /// Network to join
    #[arg(long, value_enum, default_value_t)]
    net: Net,
    /// Program instead of the image's entrypoint; empty for none
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Label
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = env::parse_label)]
    label: Vec<(String, String)>,
    /// File system in memory
    #[arg(long, value_name = "PATH[:size=SIZE]", value_parser = mount::parse_tmpfs)]
    tmpfs: Vec<Mount>,
    /// Size of /dev/shm [default: 64M]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    shm_size: Option<u64>,
    /// Capability to add, such as NET_ADMIN
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',')]
    cap_add: Vec<String>,
    /// Capability to drop; ALL drops every one
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',')]
    cap_drop: Vec<String>,
    /// Let setuid programs and file capabilities gain privileges (sudo)
    #[arg(long)]
    allow_new_privileges: bool,
    /// Device file of the host
    #[arg(long, value_name = "PATH[:PATH[:rwm]]", value_parser = device::parse)]
    device: Vec<Device>,
    /// Resource limit, such as nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = ulimit::parse)]
    ulimit: Vec<(String, Ulimit)>,
    /// os/architecture[/variant] [default: the host's own]
    #[arg(long, value_parser = platform::parse)]
    pub(super) platform: Option<String>,
    /// Signal that asks it to end [default: the image's, else TERM]
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Time from that signal until it is killed, such as 10s
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    stop_grace: Option<Duration>,
    #[command(flatten)]
    given: GivenArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// Networks by name.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Net {
    /// The default network: an address of its own, NAT, DNS
    #[default]
    Default,
    /// Loopback only
    None,
    /// The host's own: no isolation at all
    Host,
}

impl SpecArgs {
    /// What the API is asked for. Relative paths are seen from `cwd`.
    ///
    /// # Errors
    /// A [`Failure`] where a file of variables cannot be read.
    pub(super) fn into_spec(
        self,
        image: String,
        command: Vec<String>,
        cwd: &Path,
    ) -> Result<DynoSpec, Failure> {
        let mounts = self.volume.into_iter().chain(self.tmpfs);
        let mut spec = DynoSpec {
            name: self.name,
            image,
            platform: self.platform,
            entrypoint: self.entrypoint.map(entrypoint),
            command,
            env: self.env.into_variables()?,
            labels: self.label.into_iter().collect(),
            user: self.user,
            workdir: self.workdir,
            hostname: self.hostname,
            read_only: self.read_only,
            init: self.init,
            restart: self.restart,
            after: self.after,
            priority: self.priority,
            health: self.health.into_health(),
            stop_signal: self.stop_signal,
            stop_grace_ms: self.stop_grace.map(duration::millis),
            net: self.net.into(),
            ports: self.publish,
            mounts: mounts.map(|mount| mount::absolute(mount, cwd)).collect(),
            shm_size_bytes: self.shm_size,
            limits: Limits {
                memory_bytes: self.memory,
                cpu_millis: self.cpu,
                pids: self.pids,
                io: self.io,
                disk_bytes: self.disk,
            },
            ulimits: self.ulimit.into_iter().collect(),
            security: Security {
                cap_add: self.cap_add,
                cap_drop: self.cap_drop,
                allow_new_privileges: self.allow_new_privileges,
            },
            devices: self.device,
            log: self.log.into_options(),
            ..DynoSpec::default()
        };
        self.given.into_spec(&mut spec, cwd)?;
        Ok(spec)
    }
}

/// One program; the empty one clears the image's entrypoint.
fn entrypoint(program: String) -> Vec<String> {
    if program.is_empty() {
        Vec::new()
    } else {
        vec![program]
    }
}

impl From<Net> for NetMode {
    fn from(net: Net) -> Self {
        match net {
            Net::Default => Self::Default,
            Net::None => Self::None,
            Net::Host => Self::Host,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use dyno_api::dyno::LogMode;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        spec: SpecArgs,
    }

    fn spec(flags: &[&str]) -> DynoSpec {
        let line = Line::try_parse_from(["run"].iter().chain(flags)).unwrap();
        line.spec
            .into_spec("busybox".to_owned(), Vec::new(), Path::new("/w"))
            .unwrap()
    }

    #[test]
    fn no_flags_ask_for_nothing_but_the_image() {
        let plain = DynoSpec {
            image: "busybox".to_owned(),
            ..DynoSpec::default()
        };
        assert_eq!(spec(&[]), plain);
    }

    #[test]
    fn each_flag_reaches_its_field() {
        let limits = [
            "-m", "64M", "--cpu", "0.5", "--pids", "32", "--io", "read=1M", "--disk", "1G",
        ];
        let expected = Limits {
            memory_bytes: Some(64 << 20),
            cpu_millis: Some(500),
            pids: Some(32),
            io: Some(IoLimits {
                read_bytes: Some(1 << 20),
                ..IoLimits::default()
            }),
            disk_bytes: Some(1 << 30),
        };
        assert_eq!(spec(&limits).limits, expected);
        let made = spec(&[
            "-e",
            "A=1",
            "-l",
            "tier=web",
            "--net",
            "none",
            "--read-only",
            "--init",
        ]);
        assert!(made.init);
        assert_eq!(made.env["A"], "1");
        assert_eq!(made.labels["tier"], "web");
        assert_eq!((made.net, made.read_only), (NetMode::None, true));
        let made = spec(&["--cap-add", "NET_ADMIN,SYS_PTRACE", "--cap-drop", "ALL"]);
        assert_eq!(made.security.cap_add, ["NET_ADMIN", "SYS_PTRACE"]);
        assert_eq!(made.security.cap_drop, ["ALL"]);
        let made = spec(&[
            "--stop-signal",
            "QUIT",
            "--stop-grace",
            "1m",
            "--shm-size",
            "1G",
        ]);
        assert_eq!(made.stop_signal.as_deref(), Some("QUIT"));
        assert_eq!(
            (made.stop_grace_ms, made.shm_size_bytes),
            (Some(60_000), Some(1 << 30))
        );
    }

    #[test]
    fn how_the_output_is_kept_is_said_by_four_flags() {
        let flags = [
            "--log-max-size",
            "1M",
            "--log-max-files",
            "3",
            "--log-max-age",
            "7d",
        ];
        let made = spec(&[&flags[..], &["--log-mode", "drop"]].concat()).log;
        assert_eq!((made.max_bytes, made.max_files), (Some(1 << 20), Some(3)));
        assert_eq!(
            (made.max_age_ms, made.mode),
            (Some(604_800_000), LogMode::Drop)
        );
    }

    #[test]
    fn volumes_and_tmpfs_are_mounts_in_order() {
        let mounts = spec(&["--tmpfs", "/t", "-v", "./x:/x:ro", "-v", "data:/d"]).mounts;
        let [
            Mount::Bind {
                source,
                read_only: true,
                ..
            },
            Mount::Volume { .. },
            Mount::Tmpfs { .. },
        ] = &mounts[..]
        else {
            panic!("{mounts:?}");
        };
        assert_eq!(source, "/w/x");
    }

    #[test]
    fn an_empty_entrypoint_clears_the_images() {
        assert_eq!(spec(&["--entrypoint", ""]).entrypoint, Some(Vec::new()));
        assert_eq!(
            spec(&["--entrypoint", "/bin/sh"]).entrypoint,
            Some(vec!["/bin/sh".to_owned()])
        );
    }

    #[test]
    fn a_name_that_is_no_dns_label_is_refused() {
        let refusal = Line::try_parse_from(["run", "--name", "My_App"])
            .unwrap_err()
            .to_string();
        assert!(
            refusal.contains("'My_App'") && refusal.contains("a-z, 0-9 and -"),
            "{refusal}"
        );
    }
}
