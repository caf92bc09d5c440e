//! What a service may take up, and how many copies of it run: its own keys, and those
//! of `deploy`, which may not contradict each other (Compose Specification, deploy).

use std::collections::BTreeMap;

use dyno_api::dyno::{Limits, Ulimit};

use super::super::count::{self, positive};
use super::super::document::{Fields, Item, Value};
use super::only;
use crate::value::ulimit::{self, UlimitError};
use crate::value::{duration, limit, size};

/// Limits and copies; one where nothing is said.
pub(super) fn of(fields: &mut Fields<'_>) -> (Limits, u32) {
    let own = Limits {
        memory_bytes: fields.read("mem_limit", memory),
        cpu_millis: fields.read("cpus", cpu),
        pids: fields.read("pids_limit", pids),
        io: None,
        disk_bytes: storage(fields),
    };
    let scale = fields.read("scale", copies);
    let Some(item) = fields.take("deploy") else {
        return (own, scale.unwrap_or(1));
    };
    let (deployed, replicas) = deploy(&item).unwrap_or_default();
    let limits = Limits {
        memory_bytes: one(&item, "memory", own.memory_bytes, deployed.memory_bytes),
        cpu_millis: one(&item, "cpus", own.cpu_millis, deployed.cpu_millis),
        pids: one(&item, "pids", own.pids, deployed.pids),
        ..own
    };
    (limits, one(&item, "replicas", scale, replicas).unwrap_or(1))
}

fn deploy(item: &Item<'_>) -> Option<(Limits, Option<u32>)> {
    let mut fields = item.fields()?;
    let replicas = fields.read("replicas", copies);
    only(&mut fields, "mode", &["replicated"]);
    let mut limits = Limits::default();
    if let Some(mut resources) = fields.take("resources").and_then(|item| item.fields()) {
        if let Some(mut most) = resources.take("limits").and_then(|item| item.fields()) {
            limits = Limits {
                memory_bytes: most.read("memory", memory),
                cpu_millis: most.read("cpus", cpu),
                pids: most.read("pids", pids),
                ..limits
            };
            most.finish();
        }
        resources.finish();
    }
    fields.ignore(|key| key.starts_with("x-"));
    fields.finish();
    Some((limits, replicas))
}

/// `storage_opt: {size: 1G}`.
fn storage(fields: &mut Fields<'_>) -> Option<u64> {
    let item = fields.take("storage_opt")?;
    let mut options = item.fields()?;
    let size = options.read("size", |item| item.parsed(size::parse));
    options.finish();
    size
}

/// What is said here or there, or at both places alike.
fn one<T: PartialEq>(deploy: &Item<'_>, what: &str, own: Option<T>, there: Option<T>) -> Option<T> {
    if own.is_some() && there.is_some() && own != there {
        deploy.wrong(format_args!("{what}: the service itself says otherwise"));
    }
    own.or(there)
}

/// The `ulimits` of a service: `nofile: 1024`, or soft and hard.
pub(super) fn ulimits(fields: &mut Fields<'_>) -> BTreeMap<String, Ulimit> {
    let entries = super::entries(fields, "ulimits").into_iter();
    entries
        .filter_map(|(name, item)| ulimit_of(&name, &item))
        .collect()
}

fn ulimit_of(name: &str, item: &Item<'_>) -> Option<(String, Ulimit)> {
    let parse =
        |values: &str| -> Result<_, UlimitError> { ulimit::parse(&format!("{name}={values}")) };
    let Value::Map(_) = item.node.value else {
        return item.parsed(parse);
    };
    let mut fields = item.fields()?;
    let (soft, hard) = (
        fields.read("soft", Item::text),
        fields.read("hard", Item::text),
    );
    fields.finish();
    let (Some(soft), Some(hard)) = (soft, hard) else {
        item.wrong("soft and hard are expected");
        return None;
    };
    item.take(parse(&format!("{soft}:{hard}")))
}

fn memory(item: &Item<'_>) -> Option<u64> {
    item.parsed(size::parse_memory)
}

fn cpu(item: &Item<'_>) -> Option<u32> {
    item.parsed(limit::parse_cpu)
}

fn pids(item: &Item<'_>) -> Option<u32> {
    item.parsed(positive)
}

fn copies(item: &Item<'_>) -> Option<u32> {
    item.parsed(count::copies)
}

/// Milliseconds.
pub(super) fn time(fields: &mut Fields<'_>, key: &str) -> Option<u64> {
    let time = fields.read(key, |item| item.parsed(duration::parse));
    time.map(duration::millis)
}
