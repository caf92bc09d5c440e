//! The first process of a dyno, and further ones by `exec`.

use std::collections::BTreeMap;

use dyno_api::dyno::{DynoSpec, ExecRequest, Ulimit};
use dyno_api::error::{ApiError, ErrorKind};
use dyno_images::ImageConfig;
use dyno_images::identity::Identity;
use oci_spec::runtime::{
    Capabilities, LinuxCapabilities, LinuxCapabilitiesBuilder, PosixRlimit, PosixRlimitBuilder,
    Process, ProcessBuilder, User as OciUser, UserBuilder,
};

use super::mounts::NOTIFY_SOCKET;
use super::{BundleError, Inputs};
use crate::admission::{capabilities, rlimit_type};
use crate::facts::HostFacts;
use crate::signal;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Open files where nothing else was asked for.
const DEFAULT_NOFILE: u64 = 1 << 20;

pub(super) fn process(inputs: &Inputs<'_>) -> Result<Process, BundleError> {
    let spec = &inputs.record.spec;
    let caps = capabilities(&spec.security)?.into_iter().collect();
    Ok(ProcessBuilder::default()
        .terminal(spec.tty)
        .user(oci_user(inputs.user)?)
        .args(arguments(spec, &inputs.record.image.config)?)
        .env(environment(inputs)?)
        .cwd(working_directory(spec, &inputs.record.image.config)?)
        .capabilities(identity_capabilities(inputs.user.uid, &caps)?)
        .oom_score_adj(inputs.facts.oom_score_adj)
        .rlimits(rlimits(spec, inputs.facts)?)
        .no_new_privileges(!spec.security.allow_new_privileges)
        .build()?)
}

/// A further process in a dyno whose first one is `first`: the same bounds,
/// never more (P11).
///
/// # Errors
/// [`BundleError::Refused`] for a request that no process can be made of.
pub fn exec_process(
    first: &Process,
    request: &ExecRequest,
    user: &Identity,
) -> Result<Process, BundleError> {
    if request.command.is_empty() {
        return Err(refused("there is no command to execute").into());
    }
    let strings = || {
        request
            .command
            .iter()
            .chain(request.env.values())
            .chain(request.env.keys())
    };
    if strings().any(|text| text.contains('\0')) {
        return Err(refused("a NUL byte in the command or environment").into());
    }
    let mut env = pairs(first.env().iter().flatten())?;
    env.insert("HOME".to_owned(), home(user));
    if request.tty {
        env.entry("TERM".to_owned())
            .or_insert_with(|| "xterm".to_owned());
    }
    env.extend(request.env.clone());
    let cwd = match &request.workdir {
        Some(path) if !path.starts_with('/') => {
            return Err(refused(&format!("the working directory {path:?} is not absolute")).into());
        }
        Some(path) => path.into(),
        None => first.cwd().clone(),
    };
    let bounding = first
        .capabilities()
        .as_ref()
        .and_then(|c| c.bounding().clone())
        .unwrap_or_default();
    let mut process = first.clone();
    process
        .set_terminal(Some(request.tty))
        .set_user(oci_user(user)?)
        .set_args(Some(request.command.clone()))
        .set_env(Some(lines(env)))
        .set_cwd(cwd)
        .set_capabilities(Some(identity_capabilities(user.uid, &bounding)?));
    Ok(process)
}

/// The signal that asks a dyno to end: its own, else its image's, else TERM.
///
/// # Errors
/// Invalid, where the request names none that exists. An image's nonsense is
/// SIGTERM (P6).
pub fn stop_signal(spec: &DynoSpec, config: &ImageConfig) -> Result<u8, ApiError> {
    match (&spec.stop_signal, &config.stop_signal) {
        (Some(name), _) => signal::parse(name),
        (None, Some(name)) => Ok(signal::parse(name).unwrap_or(signal::TERM)),
        (None, None) => Ok(signal::TERM),
    }
}

fn home(user: &Identity) -> String {
    user.home
        .clone()
        .filter(|home| home.starts_with('/'))
        .unwrap_or_else(|| "/".to_owned())
}

fn refused(message: &str) -> ApiError {
    ApiError::new(ErrorKind::Invalid, message)
}

/// As Docker has it: a given entrypoint clears the image's command with it.
fn arguments(spec: &DynoSpec, config: &ImageConfig) -> Result<Vec<String>, ApiError> {
    let arguments: Vec<String> = match &spec.entrypoint {
        Some(entrypoint) => entrypoint.iter().chain(&spec.command).cloned().collect(),
        None if spec.command.is_empty() => config.command(),
        None => config
            .entrypoint
            .iter()
            .chain(&spec.command)
            .cloned()
            .collect(),
    };
    match arguments.first() {
        Some(program) if !program.is_empty() => Ok(arguments),
        _ => Err(
            refused("there is no command: the entrypoint was cleared and none was given")
                .hint("name a command after the image"),
        ),
    }
}

fn environment(inputs: &Inputs<'_>) -> Result<Vec<String>, ApiError> {
    let spec = &inputs.record.spec;
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
        ("HOME".to_owned(), home(inputs.user)),
    ]);
    if spec.tty {
        env.insert("TERM".to_owned(), "xterm".to_owned());
    }
    env.extend(pairs(inputs.record.image.config.env.iter())?);
    let hostname = spec
        .hostname
        .clone()
        .unwrap_or_else(|| inputs.record.name.to_string());
    env.insert("HOSTNAME".to_owned(), hostname);
    if spec.health.notify {
        env.insert("NOTIFY_SOCKET".to_owned(), NOTIFY_SOCKET.to_owned());
    }
    if let Some(watchdog) = spec.health.watchdog_ms {
        let microseconds = watchdog.saturating_mul(1000).to_string();
        env.insert("WATCHDOG_USEC".to_owned(), microseconds);
    }
    env.extend(spec.env.clone());
    Ok(lines(env))
}

/// P6: an image's variables are variables or the image is refused.
fn pairs<'a>(
    lines: impl Iterator<Item = &'a String>,
) -> Result<BTreeMap<String, String>, ApiError> {
    lines
        .map(|line| match line.split_once('=') {
            Some((name, value)) if !name.is_empty() && !line.contains('\0') => {
                Ok((name.to_owned(), value.to_owned()))
            }
            _ => Err(refused(&format!(
                "the image's variable {line:?} is not NAME=value"
            ))),
        })
        .collect()
}

fn lines(env: BTreeMap<String, String>) -> Vec<String> {
    env.into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

fn working_directory(spec: &DynoSpec, config: &ImageConfig) -> Result<String, ApiError> {
    let path = match (&spec.workdir, config.workdir.as_str()) {
        (Some(path), _) => path.clone(),
        (None, "") => "/".to_owned(),
        (None, path) => path.to_owned(),
    };
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(path);
    }
    Err(refused(&format!(
        "the image's working directory {path:?} is not absolute"
    )))
}

fn oci_user(user: &Identity) -> Result<OciUser, BundleError> {
    Ok(UserBuilder::default()
        .uid(user.uid)
        .gid(user.gid)
        .additional_gids(user.additional_gids.clone())
        .build()?)
}

/// P11: inheritable and ambient sets are empty; who is not root has none at all.
fn identity_capabilities(
    uid: u32,
    bounding: &Capabilities,
) -> Result<LinuxCapabilities, BundleError> {
    let held = if uid == 0 {
        bounding.clone()
    } else {
        Capabilities::default()
    };
    Ok(LinuxCapabilitiesBuilder::default()
        .bounding(bounding.clone())
        .effective(held.clone())
        .permitted(held)
        .inheritable(Capabilities::default())
        .ambient(Capabilities::default())
        .build()?)
}

/// How many files each process may have open where nothing else was asked for.
pub fn default_nofile(facts: &HostFacts) -> Ulimit {
    let most = facts.hard_limits.get("nofile").copied();
    let nofile = DEFAULT_NOFILE.min(most.unwrap_or(DEFAULT_NOFILE));
    Ulimit {
        soft: nofile,
        hard: nofile,
    }
}

/// A resource limit as the runtime has it; none where there is no such limit.
///
/// # Errors
/// [`BundleError::Spec`] where it has no form.
pub fn rlimit(name: &str, limit: Ulimit) -> Result<Option<PosixRlimit>, BundleError> {
    let Some(typ) = rlimit_type(name) else {
        return Ok(None);
    };
    let built = PosixRlimitBuilder::default()
        .typ(typ)
        .soft(limit.soft)
        .hard(limit.hard);
    Ok(Some(built.build()?))
}

fn rlimits(spec: &DynoSpec, facts: &HostFacts) -> Result<Vec<PosixRlimit>, BundleError> {
    let mut limits = BTreeMap::from([("nofile", default_nofile(facts))]);
    limits.extend(
        spec.ulimits
            .iter()
            .map(|(name, limit)| (name.as_str(), *limit)),
    );
    let mut built = Vec::new();
    for (name, limit) in limits {
        built.extend(rlimit(name, limit)?);
    }
    Ok(built)
}
