//! One service of a `dyno.toml`. Its keys are the flags of `dyno run`, with the same
//! notations, `_` for `-`, and lists in the plural.

use std::path::Path;

use dyno_api::dyno::{Limits, LogMode, LogOptions, Mount, NetMode, Security};
use dyno_api::health::Health;

use super::super::count::{self, positive};
use super::super::document::{Expected, Fields, Item};
use super::super::files;
use super::super::volumes::Volumes;
use super::super::words;
use super::super::{Service, ServiceAfter};
use crate::value::{
    after, check, device, duration, given, io, limit, mount, platform, port, restart, size, ulimit,
};

/// The service, without its name; none where it is no table.
pub(super) fn read(item: &Item<'_>, folder: &Path, volumes: &mut Volumes) -> Option<Service> {
    let mut fields = item.fields()?;
    let mut service = Service::new(item);
    let spec = &mut service.spec;
    match fields.read("image", Item::text) {
        Some(image) => spec.image = image,
        None => item.wrong("image: it is missing; name one, or `host` for the built-in image"),
    }
    spec.platform = fields.read("platform", |item| item.parsed(platform::parse));
    spec.entrypoint = fields.read("entrypoint", words::of);
    spec.command = fields.read("command", words::of).unwrap_or_default();
    spec.env = files::variables(&mut fields, "env", folder);
    spec.labels = fields.read("labels", labels).unwrap_or_default();
    spec.user = fields.read("user", Item::text);
    spec.workdir = fields.read("workdir", Item::text);
    spec.hostname = fields.read("hostname", Item::text);
    spec.tty = fields.read("tty", Item::flag).unwrap_or_default();
    spec.stdin = fields.read("stdin", Item::flag).unwrap_or_default();
    spec.read_only = fields.read("read_only", Item::flag).unwrap_or_default();
    spec.init = fields.read("init", Item::flag).unwrap_or_default();
    let restart = fields.read("restart", |item| item.parsed(restart::parse));
    spec.restart = restart.unwrap_or_default();
    spec.priority = fields.read("priority", Item::typed).unwrap_or_default();
    spec.stop_signal = fields.read("stop_signal", Item::text);
    spec.stop_grace_ms = time(&mut fields, "stop_grace");
    spec.net = fields.read("net", net).unwrap_or_default();
    spec.ports = fields.list("ports", |item| item.parsed(port::parse));
    spec.mounts = mounts(&mut fields, folder, volumes);
    spec.shm_size_bytes = bytes(&mut fields, "shm_size");
    spec.limits = Limits {
        memory_bytes: fields.read("memory", |item| item.parsed(size::parse_memory)),
        cpu_millis: fields.read("cpu", |item| item.parsed(limit::parse_cpu)),
        pids: fields.read("pids", |item| item.parsed(positive)),
        io: fields.read("io", |item| item.parsed(io::parse_new)),
        disk_bytes: bytes(&mut fields, "disk"),
    };
    let ulimits = fields.list("ulimits", |item| item.parsed(ulimit::parse));
    spec.ulimits = ulimits.into_iter().collect();
    spec.security = Security {
        cap_add: fields.list("cap_add", Item::text),
        cap_drop: fields.list("cap_drop", Item::text),
        allow_new_privileges: fields
            .read("allow_new_privileges", Item::flag)
            .unwrap_or_default(),
    };
    spec.devices = fields.list("devices", |item| item.parsed(device::parse));
    spec.health = health(&mut fields);
    spec.secrets = fields.list("secrets", |item| item.parsed(given::parse_secret));
    let secret_env = fields.take("secret_env").map(|item| item.entries());
    spec.secret_env = secret_env
        .into_iter()
        .flatten()
        .filter_map(|(name, item)| Some((name, item.typed()?)))
        .collect();
    spec.config_files = fields.list("config_files", |item| {
        let flag = item.parsed(given::parse_config_file)?;
        files::config_file(item, folder, flag)
    });
    spec.log = log(&mut fields);
    service.after = fields.list("after", |item| {
        let dependency = item.parsed(after::parse)?;
        Some(ServiceAfter {
            service: dependency.name,
            until: dependency.until,
        })
    });
    if let Some(count) = fields.read("count", |item| item.parsed(count::copies)) {
        service.count = count;
    }
    fields.finish();
    Some(service)
}

fn mounts(fields: &mut Fields<'_>, folder: &Path, volumes: &mut Volumes) -> Vec<Mount> {
    let named = fields.list("volumes", |item| {
        let mount = item.parsed(mount::parse_volume)?;
        volumes.resolve(mount::absolute(mount, folder), item)
    });
    let tmpfs = fields.list("tmpfs", |item| item.parsed(mount::parse_tmpfs));
    named.into_iter().chain(tmpfs).collect()
}

fn health(fields: &mut Fields<'_>) -> Health {
    let notify = fields.read("notify", Item::flag).unwrap_or_default();
    let watchdog_ms = fields.read("watchdog", |item| {
        if !notify {
            item.wrong("it needs notify = true");
        }
        item.parsed(duration::parse).map(duration::millis)
    });
    Health {
        startup: fields.read("startup", |item| item.parsed(check::parse)),
        liveness: fields.read("liveness", |item| item.parsed(check::parse)),
        readiness: fields.read("readiness", |item| item.parsed(check::parse)),
        start_timeout_ms: time(fields, "start_timeout"),
        notify,
        watchdog_ms,
        ignore_image: fields
            .read("no_healthcheck", Item::flag)
            .unwrap_or_default(),
    }
}

fn log(fields: &mut Fields<'_>) -> LogOptions {
    LogOptions {
        max_bytes: bytes(fields, "log_max_size"),
        max_files: fields.read("log_max_files", |item| item.parsed(positive)),
        max_age_ms: time(fields, "log_max_age"),
        mode: fields.read("log_mode", log_mode).unwrap_or_default(),
    }
}

fn time(fields: &mut Fields<'_>, key: &str) -> Option<u64> {
    let time = fields.read(key, |item| item.parsed(duration::parse));
    time.map(duration::millis)
}

fn bytes(fields: &mut Fields<'_>, key: &str) -> Option<u64> {
    fields.read(key, |item| item.parsed(size::parse))
}

fn labels(item: &Item<'_>) -> Option<std::collections::BTreeMap<String, String>> {
    let entries = item.entries().into_iter();
    Some(
        entries
            .filter_map(|(name, item)| Some((name, item.text()?)))
            .collect(),
    )
}

fn net(item: &Item<'_>) -> Option<NetMode> {
    item.parsed(|text| match text {
        "default" => Ok(NetMode::Default),
        "none" => Ok(NetMode::None),
        "host" => Ok(NetMode::Host),
        _ => Err(Expected("default, none or host")),
    })
}

fn log_mode(item: &Item<'_>) -> Option<LogMode> {
    item.parsed(|text| match text {
        "block" => Ok(LogMode::Block),
        "drop" => Ok(LogMode::Drop),
        _ => Err(Expected("block or drop")),
    })
}
