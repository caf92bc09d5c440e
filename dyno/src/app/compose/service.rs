//! One service (Compose Specification, services).

use dyno_api::dyno::{NetMode, RestartPolicy, Security, Until};

use super::super::document::{Expected, Fields, Item, Value};
use super::super::words;
use super::super::{Service, ServiceAfter};
use super::limits::time;
use super::{Scope, health, limits, log, mounts, only, ports, process};
use crate::value::restart::{self, RestartError};
use crate::value::{device, platform, size};

/// Keys that change nothing here: dynos of an app reach each other's ports anyway, and
/// the others are for other commands.
const WITHOUT_EFFECT: [&str; 3] = ["attach", "develop", "expose"];

/// The service, without its name; none where it is no table.
pub(super) fn read(item: &Item<'_>, scope: &mut Scope<'_>) -> Option<Service> {
    let mut fields = item.fields()?;
    let mut service = Service::new(item);
    let spec = &mut service.spec;
    match fields.read("image", Item::text) {
        Some(image) => spec.image = image,
        None => item.wrong("image: it is missing; nothing is built here"),
    }
    spec.platform = fields.read("platform", |item| item.parsed(platform::parse));
    spec.entrypoint = fields.read("entrypoint", words::of);
    spec.command = process::command(&mut fields);
    spec.env = process::variables(&mut fields, scope);
    spec.labels = process::labels(&mut fields);
    spec.user = fields.read("user", Item::text);
    spec.workdir = fields.read("working_dir", Item::text);
    spec.hostname = fields.read("hostname", Item::text);
    spec.tty = fields.read("tty", Item::flag).unwrap_or_default();
    spec.stdin = fields.read("stdin_open", Item::flag).unwrap_or_default();
    spec.read_only = fields.read("read_only", Item::flag).unwrap_or_default();
    spec.init = fields.read("init", Item::flag).unwrap_or_default();
    let restart = fields.read("restart", |item| item.parsed(restart));
    spec.restart = restart.unwrap_or_default();
    spec.stop_signal = fields.read("stop_signal", Item::text);
    spec.stop_grace_ms = time(&mut fields, "stop_grace_period");
    spec.net = fields.read("network_mode", net).unwrap_or_default();
    spec.ports = fields.list("ports", |item| Some(ports::of(item))).concat();
    spec.mounts = mounts::of(&mut fields, scope);
    spec.shm_size_bytes = fields.read("shm_size", |item| item.parsed(size::parse));
    (spec.limits, service.count) = limits::of(&mut fields);
    spec.ulimits = limits::ulimits(&mut fields);
    spec.security = Security {
        cap_add: fields.list("cap_add", Item::text),
        cap_drop: fields.list("cap_drop", Item::text),
        allow_new_privileges: false,
    };
    spec.devices = fields.list("devices", |item| item.parsed(device::parse));
    spec.health = health::of(&mut fields);
    spec.secrets = scope.given.secrets(&mut fields);
    spec.config_files = scope.given.configs(&mut fields, &mut scope.variables);
    spec.log = log::of(&mut fields);
    service.after = fields.read("depends_on", after).unwrap_or_default();
    as_it_is(&mut fields);
    fields.finish();
    Some(service)
}

/// Keys that can only say what is so anyway.
fn as_it_is(fields: &mut Fields<'_>) {
    fields.ignore(|key| WITHOUT_EFFECT.contains(&key) || key.starts_with("x-"));
    only(fields, "privileged", &["false"]);
    only(fields, "oom_kill_disable", &["false"]);
    only(fields, "pull_policy", &["missing", "if_not_present"]);
    fields.list("security_opt", |item| {
        item.parsed(|text| match text {
            "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true" => Ok(()),
            _ => Err(Expected("no-new-privileges:true")),
        })
    });
}

/// A dyno that was stopped by request stays so with `always`, too.
fn restart(text: &str) -> Result<RestartPolicy, RestartError> {
    match text {
        "unless-stopped" => Ok(RestartPolicy::Always),
        other => restart::parse(other),
    }
}

fn net(item: &Item<'_>) -> Option<NetMode> {
    item.parsed(|text| match text {
        "bridge" => Ok(NetMode::Default),
        "none" => Ok(NetMode::None),
        "host" => Ok(NetMode::Host),
        _ => Err(Expected("bridge, none or host")),
    })
}

/// A list of services, or a table that says how far each has to be.
fn after(item: &Item<'_>) -> Option<Vec<ServiceAfter>> {
    if let Value::List(_) = item.node.value {
        let started = |item: &Item<'_>| {
            Some(ServiceAfter {
                service: item.typed()?,
                until: Until::Started,
            })
        };
        return Some(item.items().iter().filter_map(started).collect());
    }
    let entries = item.entries().into_iter();
    let after = entries.filter_map(|(name, item)| {
        let service = item.take(name.parse());
        let mut fields = item.fields()?;
        let until = fields.read("condition", until);
        only(&mut fields, "required", &["true"]);
        only(&mut fields, "restart", &["false"]);
        fields.finish();
        Some(ServiceAfter {
            service: service?,
            until: until.unwrap_or_default(),
        })
    });
    Some(after.collect())
}

fn until(item: &Item<'_>) -> Option<Until> {
    item.parsed(|text| match text {
        "service_started" => Ok(Until::Started),
        "service_healthy" => Ok(Until::Ready),
        _ => Err(Expected("service_started or service_healthy")),
    })
}
