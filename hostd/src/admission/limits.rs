//! Limits that this host can enforce; any other is refused, not ignored.

use dyno_api::dyno::{DynoSpec, IoLimits, LogOptions, Ulimit};
use dyno_api::error::{ApiError, ErrorKind};
use oci_spec::runtime::PosixRlimitType;

use super::invalid;
use crate::facts::HostFacts;
use crate::quota::MIN_BYTES;

/// The least memory that a dyno can be started in.
const MIN_MEMORY: u64 = 4 << 20;
/// The least CPU that the kernel's quota can express well: 1 ms in 100 ms.
const MIN_CPU_MILLIS: u32 = 10;
/// The least that a dyno can be started with: a page each second.
const MIN_IO_BYTES: u64 = 4096;
/// More than any machine has.
const MAX_PIDS: u32 = 4_194_304;

pub(super) fn check(spec: &DynoSpec, facts: &HostFacts) -> Result<(), ApiError> {
    check_limits(spec, facts)?;
    if let Some(bytes) = spec.shm_size_bytes
        && (bytes == 0 || bytes > facts.memory_bytes)
    {
        return Err(invalid(format!(
            "{bytes} bytes of /dev/shm; this host has {} of memory",
            facts.memory_bytes
        )));
    }
    check_log(&spec.log)?;
    spec.ulimits
        .iter()
        .try_for_each(|(name, limit)| check_ulimit(name, *limit, facts))
}

/// The limits that may be changed while the dyno runs.
///
/// # Errors
/// Which one cannot be had, and what can.
pub fn check_limits(spec: &DynoSpec, facts: &HostFacts) -> Result<(), ApiError> {
    if let Some(bytes) = spec.limits.memory_bytes {
        check_memory(bytes, facts)?;
    }
    if let Some(millis) = spec.limits.cpu_millis {
        check_cpu(millis, facts)?;
    }
    if let Some(pids) = spec.limits.pids
        && !(1..=MAX_PIDS).contains(&pids)
    {
        return Err(invalid(format!(
            "a limit of {pids} processes; it is from 1 to {MAX_PIDS}"
        )));
    }
    if let Some(bytes) = spec.limits.disk_bytes
        && bytes < MIN_BYTES
    {
        return Err(invalid(format!(
            "a limit of {bytes} bytes on disk is below the minimum of {MIN_BYTES} (64 KiB)"
        )));
    }
    spec.limits.io.map_or(Ok(()), |io| check_io(io, facts))
}

fn check_io(io: IoLimits, facts: &HostFacts) -> Result<(), ApiError> {
    if facts.disk.is_none() && io != IoLimits::default() {
        let message = "a limit on reading and writing: the state of this host is on no disk \
                       that the kernel counts for";
        return Err(ApiError::new(ErrorKind::Unsupported, message)
            .hint("file systems over several devices, and those in memory, have none"));
    }
    let below = |rate: Option<u64>, least: u64| rate.is_some_and(|rate| rate < least);
    if below(io.read_bytes, MIN_IO_BYTES) || below(io.write_bytes, MIN_IO_BYTES) {
        return Err(invalid(format!(
            "a limit on reading or writing below {MIN_IO_BYTES} bytes a second"
        )));
    }
    if below(io.read_ops, 1) || below(io.write_ops, 1) {
        return Err(invalid("a limit of no reads or writes at all".to_owned()));
    }
    Ok(())
}

fn check_log(log: &LogOptions) -> Result<(), ApiError> {
    const YEAR: u64 = 365 * 24 * 3600 * 1000;
    let within = |what: &str, value: Option<u64>, least: u64, most: u64| match value {
        Some(value) if !(least..=most).contains(&value) => Err(invalid(format!(
            "a log of {value} {what}; it is from {least} to {most}"
        ))),
        _ => Ok(()),
    };
    within("bytes a file", log.max_bytes, 64 << 10, 1 << 30)?;
    within("files", log.max_files.map(u64::from), 1, 100)?;
    within("ms of age", log.max_age_ms, 1000, 100 * YEAR)
}

fn check_memory(bytes: u64, facts: &HostFacts) -> Result<(), ApiError> {
    if bytes < MIN_MEMORY {
        return Err(invalid(format!(
            "a memory limit of {bytes} bytes is below the minimum of {MIN_MEMORY} (4 MiB)"
        ))
        .hint("leave it out for no limit"));
    }
    if bytes > facts.memory_bytes {
        return Err(invalid(format!(
            "a memory limit of {bytes} bytes; this host has {}",
            facts.memory_bytes
        ))
        .hint("leave it out for no limit"));
    }
    Ok(())
}

fn check_cpu(millis: u32, facts: &HostFacts) -> Result<(), ApiError> {
    if millis < MIN_CPU_MILLIS {
        return Err(invalid(format!(
            "a CPU limit of {millis}/1000 is below the minimum of {MIN_CPU_MILLIS}/1000"
        ))
        .hint("leave it out for no limit"));
    }
    if millis > facts.cpus.saturating_mul(1000) {
        return Err(invalid(format!(
            "a CPU limit of {millis}/1000; this host has {} CPUs",
            facts.cpus
        ))
        .hint("leave it out for no limit"));
    }
    Ok(())
}

/// A resource limit of setrlimit(2).
///
/// # Errors
/// Why it cannot be had, and what can.
pub fn check_ulimit(name: &str, limit: Ulimit, facts: &HostFacts) -> Result<(), ApiError> {
    if rlimit_type(name).is_none() {
        return Err(invalid(format!("there is no resource limit {name:?}"))
            .hint("getrlimit(2) lists them, e.g. nofile, nproc, core"));
    }
    if limit.soft > limit.hard {
        return Err(invalid(format!(
            "the soft limit {} of {name} is above the hard limit {}",
            limit.soft, limit.hard
        )));
    }
    match facts.hard_limits.get(name) {
        Some(most) if limit.hard > *most => Err(ApiError::new(
            ErrorKind::Unsupported,
            format!(
                "{name} cannot be raised to {}: the hard limit of hostd is {most}",
                limit.hard
            ),
        )
        .hint(format!(
            "ask for at most {most}, or start hostd with a higher limit"
        ))),
        _ => Ok(()),
    }
}

/// The resource of setrlimit(2) that goes by this lower-case name.
pub fn rlimit_type(name: &str) -> Option<PosixRlimitType> {
    Some(match name {
        "as" => PosixRlimitType::RlimitAs,
        "core" => PosixRlimitType::RlimitCore,
        "cpu" => PosixRlimitType::RlimitCpu,
        "data" => PosixRlimitType::RlimitData,
        "fsize" => PosixRlimitType::RlimitFsize,
        "locks" => PosixRlimitType::RlimitLocks,
        "memlock" => PosixRlimitType::RlimitMemlock,
        "msgqueue" => PosixRlimitType::RlimitMsgqueue,
        "nice" => PosixRlimitType::RlimitNice,
        "nofile" => PosixRlimitType::RlimitNofile,
        "nproc" => PosixRlimitType::RlimitNproc,
        "rss" => PosixRlimitType::RlimitRss,
        "rtprio" => PosixRlimitType::RlimitRtprio,
        "rttime" => PosixRlimitType::RlimitRttime,
        "sigpending" => PosixRlimitType::RlimitSigpending,
        "stack" => PosixRlimitType::RlimitStack,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use dyno_api::dyno::Limits;

    use super::*;
    use crate::admission::tests::facts;

    fn with(limits: Limits) -> Result<(), ApiError> {
        check(
            &DynoSpec {
                limits,
                ..DynoSpec::default()
            },
            &facts(),
        )
    }

    #[test]
    fn memory_below_the_minimum_is_refused_and_the_minimum_named() {
        for bytes in [0, 1024, MIN_MEMORY - 1] {
            let error = with(Limits {
                memory_bytes: Some(bytes),
                ..Limits::default()
            })
            .unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid);
            assert!(error.message.contains("4 MiB"), "{error}");
        }
        assert_eq!(
            with(Limits {
                memory_bytes: Some(MIN_MEMORY),
                ..Limits::default()
            }),
            Ok(())
        );
    }

    #[test]
    fn more_than_the_machine_has_is_refused() {
        let memory = Limits {
            memory_bytes: Some((8 << 30) + 1),
            ..Limits::default()
        };
        assert_eq!(with(memory).unwrap_err().kind, ErrorKind::Invalid);
        let cpu = Limits {
            cpu_millis: Some(4001),
            ..Limits::default()
        };
        assert_eq!(with(cpu).unwrap_err().kind, ErrorKind::Invalid);
        assert!(
            with(Limits {
                pids: Some(0),
                ..Limits::default()
            })
            .is_err()
        );
        assert!(
            with(Limits {
                cpu_millis: Some(0),
                ..Limits::default()
            })
            .is_err()
        );
    }

    #[test]
    fn a_ulimit_that_cannot_be_raised_is_refused_with_the_value() {
        let error = check_ulimit(
            "nofile",
            Ulimit {
                soft: 1,
                hard: 20_001,
            },
            &facts(),
        )
        .unwrap_err();
        assert!(error.message.contains("20000"), "{error}");
        assert!(check_ulimit("nofile", Ulimit { soft: 2, hard: 1 }, &facts()).is_err());
        assert!(check_ulimit("files", Ulimit { soft: 1, hard: 1 }, &facts()).is_err());
        assert_eq!(
            check_ulimit(
                "core",
                Ulimit {
                    soft: 0,
                    hard: u64::MAX
                },
                &facts()
            ),
            Ok(())
        );
    }
}
