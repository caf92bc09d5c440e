//! Checks a request completely before anything is touched.
//!
//! Everything here is refused with the value that is wrong and what to try.
//! What depends on other dynos (names, ports, addresses) is checked where
//! they are known, in the engine.

mod capability;
mod given;
mod health;
mod limits;
mod mounts;
pub mod ports;

use dyno_api::dyno::{DynoSpec, NetMode};
use dyno_api::error::{ApiError, ErrorKind};

pub use capability::capabilities;
pub use limits::{check_limits, check_ulimit, rlimit_type};
pub use mounts::{DeviceNode, check_sources, devices, idmappable};

use crate::facts::HostFacts;
use crate::paths::Paths;
use crate::signal;

/// Bytes of one string that becomes an argument or an environment variable.
const MAX_STRING: usize = 128 * 1024;
/// Bytes of all arguments and variables together; execve(2) allows 2 MiB.
const MAX_STRINGS: usize = 1 << 20;
/// Entries of one list in a request.
const MAX_ENTRIES: usize = 1024;
/// The longest time that a stop may take: a day.
const MAX_GRACE_MS: u64 = 24 * 3600 * 1000;

pub(crate) fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorKind::Invalid, message)
}

/// Whether this spec can run on this host.
///
/// # Errors
/// What is wrong with it, with which value, and what to try.
pub fn check(spec: &DynoSpec, facts: &HostFacts, paths: &Paths) -> Result<(), ApiError> {
    if spec.image.is_empty() {
        return Err(
            invalid("the image is missing").hint("name one, or `host` for the built-in image")
        );
    }
    check_strings(spec)?;
    check_platform(spec, facts)?;
    check_hostname(spec)?;
    if let Some(name) = &spec.stop_signal {
        signal::parse(name)?;
    }
    if spec.stop_grace_ms.is_some_and(|grace| grace > MAX_GRACE_MS) {
        return Err(invalid("a stop grace above one day is not sensible"));
    }
    if spec.net != NetMode::Default && !spec.ports.is_empty() {
        return Err(invalid("ports are published on the default network only")
            .hint("leave `net` or `ports` out; with `net` host every port is the host's anyway"));
    }
    health::check(spec)?;
    capabilities(&spec.security)?;
    limits::check(spec, facts)?;
    ports::check(&spec.ports)?;
    mounts::check(spec, paths)?;
    given::check(spec)
}

/// Whether this is a program and its arguments.
///
/// # Errors
/// Invalid, where `whose` command it is.
pub(crate) fn command(whose: &str, command: &[String]) -> Result<(), ApiError> {
    if command.first().is_none_or(String::is_empty) {
        return Err(invalid(format!("{whose} has no command")));
    }
    let bytes: usize = command.iter().map(String::len).sum();
    if command.iter().any(|word| word.contains('\0')) || bytes > MAX_STRING {
        return Err(invalid(format!(
            "the command of {whose} has a NUL byte or more than {MAX_STRING} bytes"
        )));
    }
    Ok(())
}

fn check_strings(spec: &DynoSpec) -> Result<(), ApiError> {
    let mut total = 0;
    let arguments = spec.entrypoint.iter().flatten().chain(&spec.command);
    let variables = spec.env.iter().flat_map(|(name, value)| [name, value]);
    for text in arguments
        .chain(variables)
        .chain(&spec.workdir)
        .chain(&spec.user)
    {
        if text.contains('\0') {
            return Err(invalid(format!("{text:?} contains a NUL byte")));
        }
        if text.len() > MAX_STRING {
            return Err(invalid(format!(
                "an argument or variable of {} bytes; the kernel allows {MAX_STRING}",
                text.len()
            )));
        }
        total += text.len();
    }
    if total > MAX_STRINGS {
        return Err(invalid(format!(
            "{total} bytes of arguments and variables; at most {MAX_STRINGS} fit"
        )));
    }
    if let Some(name) = spec
        .env
        .keys()
        .find(|name| name.is_empty() || name.contains('='))
    {
        return Err(invalid(format!(
            "{name:?} is not the name of an environment variable"
        )));
    }
    let lists = [
        ("ports", spec.ports.len()),
        ("mounts", spec.mounts.len()),
        ("devices", spec.devices.len()),
        ("labels", spec.labels.len()),
        ("env", spec.env.len()),
        ("after", spec.after.len()),
    ];
    match lists.iter().find(|(_, length)| *length > MAX_ENTRIES) {
        Some((list, length)) => Err(invalid(format!(
            "{length} {list}; at most {MAX_ENTRIES} are allowed"
        ))),
        None => check_workdir(spec),
    }
}

fn check_workdir(spec: &DynoSpec) -> Result<(), ApiError> {
    match &spec.workdir {
        Some(path) if !path.starts_with('/') => Err(invalid(format!(
            "the working directory {path:?} is not absolute"
        ))),
        _ => Ok(()),
    }
}

fn check_platform(spec: &DynoSpec, facts: &HostFacts) -> Result<(), ApiError> {
    let Some(platform) = &spec.platform else {
        return Ok(());
    };
    // A variant (`linux/arm64/v8`) narrows the architecture; it is for the image store.
    let base: Vec<&str> = platform.splitn(3, '/').take(2).collect();
    if base.join("/") == facts.platform {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorKind::Unsupported,
        format!("this host runs {}, not {platform}", facts.platform),
    ))
}

fn check_hostname(spec: &DynoSpec) -> Result<(), ApiError> {
    let Some(name) = &spec.hostname else {
        return Ok(());
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // sethostname(2): 64 bytes.
    if name.len() <= 64 && name.split('.').all(label) {
        return Ok(());
    }
    Err(invalid(format!("{name:?} is not a host name"))
        .hint("letters, digits and hyphens, parts joined by dots, at most 64 characters"))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::PathBuf;

    use dyno_api::dyno::PortMapping;

    use super::*;

    pub(crate) fn facts() -> HostFacts {
        HostFacts {
            oom_score_adj: 0,
            memory_bytes: 8 << 30,
            cpus: 4,
            hard_limits: [("nofile".to_owned(), 20_000), ("core".to_owned(), u64::MAX)].into(),
            platform: "linux/amd64".into(),
            kernel: "6.18.0".into(),
            ipv6: true,
            disk: Some(crate::facts::Disk {
                major: 254,
                minor: 0,
            }),
        }
    }

    pub(crate) fn paths() -> Paths {
        Paths {
            state_dir: PathBuf::from("/var/lib/dyno"),
            run_dir: PathBuf::from("/run/dyno"),
        }
    }

    fn refusal(change: impl FnOnce(&mut DynoSpec)) -> ApiError {
        let mut spec = DynoSpec {
            image: "host".into(),
            ..DynoSpec::default()
        };
        assert_eq!(check(&spec, &facts(), &paths()), Ok(()));
        change(&mut spec);
        check(&spec, &facts(), &paths()).unwrap_err()
    }

    #[test]
    fn what_cannot_run_is_refused_with_the_value() {
        assert!(refusal(|s| s.image.clear()).message.contains("image"));
        assert!(
            refusal(|s| s.command = vec!["a\0b".into()])
                .message
                .contains("NUL")
        );
        assert!(
            refusal(|s| s.workdir = Some("tmp".into()))
                .message
                .contains("\"tmp\"")
        );
        assert!(
            refusal(|s| s.hostname = Some("a_b".into()))
                .message
                .contains("a_b")
        );
        assert!(
            refusal(|s| s.stop_signal = Some("FOO".into()))
                .message
                .contains("FOO")
        );
        assert!(
            refusal(|s| s.stop_grace_ms = Some(u64::MAX))
                .message
                .contains("grace")
        );
        assert!(
            refusal(|s| _ = s.env.insert("A=B".into(), "c".into()))
                .message
                .contains("A=B")
        );
        assert!(
            refusal(|s| s.command = vec!["x".repeat(200_000)])
                .message
                .contains("200000")
        );
        let foreign = refusal(|s| s.platform = Some("linux/s390x".into()));
        assert_eq!(foreign.kind, ErrorKind::Unsupported);
        assert!(foreign.message.contains("linux/s390x"));
    }

    #[test]
    fn ports_without_a_network_are_refused() {
        let port = PortMapping {
            address: None,
            host_port: None,
            dyno_port: 80,
            protocol: Default::default(),
        };
        let error = refusal(|s| {
            s.net = NetMode::None;
            s.ports = vec![port];
        });
        assert_eq!(error.kind, ErrorKind::Invalid);
    }

    #[test]
    fn a_variant_of_the_hosts_platform_is_fine() {
        let spec = DynoSpec {
            image: "x".into(),
            platform: Some("linux/amd64/v2".into()),
            ..DynoSpec::default()
        };
        assert_eq!(check(&spec, &facts(), &paths()), Ok(()));
    }
}
