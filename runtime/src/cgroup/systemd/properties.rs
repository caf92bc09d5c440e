//! Limits as properties of a unit, as runc has them (`systemd/v1.go`, `systemd/v2.go`).
//!
//! systemd writes its units' properties anew when it is reloaded, so it must know each
//! limit that it has a word for; all limits are written to the files as well, exactly.
//! Both drivers think alike since the properties are made from what is written.

use std::collections::BTreeMap;

use super::super::settings::{Setting, Version, parse_list};
use super::wire::Value;
use super::{Error, Property, Result};
use crate::device_filter::{Kind, Policy};

/// What systemd takes for no limit.
const INFINITY: u64 = u64::MAX;
/// `cpu.max` of a new group, cgroup-v2.rst.
const DEFAULT_PERIOD: u64 = 100_000;

/// The properties for what is written to a group's files.
pub(super) fn of_settings(settings: &[Setting], version: u32) -> Vec<Property> {
    let files = settings
        .iter()
        .filter_map(|setting| setting.choices.first());
    of_files(
        files.map(|(file, value)| (file.as_str(), value.as_str())),
        version,
    )
}

/// The same by names of files, of which a later one overrides an earlier one.
pub(super) fn of_files<'a>(
    files: impl Iterator<Item = (&'a str, &'a str)>,
    version: u32,
) -> Vec<Property> {
    let files: BTreeMap<&str, &str> = files.collect();
    let mut properties = Vec::new();
    for (file, value) in &files {
        // `name` since `since`.
        let (name, since, value) = match *file {
            "memory.max" => ("MemoryMax", 0, limit(value)),
            "memory.limit_in_bytes" => ("MemoryLimit", 0, limit(value)),
            "memory.high" => ("MemoryHigh", 0, limit(value)),
            "memory.low" => ("MemoryLow", 0, limit(value)),
            "memory.min" => ("MemoryMin", 0, limit(value)),
            "memory.swap.max" => ("MemorySwapMax", 0, limit(value)),
            "pids.max" => ("TasksMax", 0, limit(value)),
            "cpu.shares" => ("CPUShares", 0, limit(value)),
            // Weight 0 is how systemd says idle; it cannot say that it is not.
            "cpu.idle" if *value == "1" => ("CPUWeight", 252, Some(Value::U64(0))),
            "cpu.weight" if files.get("cpu.idle") != Some(&"1") => ("CPUWeight", 0, limit(value)),
            "blkio.weight" | "blkio.bfq.weight" => ("BlockIOWeight", 0, limit(value)),
            "cpuset.cpus" => ("AllowedCPUs", 244, bits(value)),
            "cpuset.mems" => ("AllowedMemoryNodes", 244, bits(value)),
            _ => continue,
        };
        if let Some(value) = value.filter(|_| version >= since) {
            properties.push((name.to_owned(), value));
        }
    }
    properties.extend(quota(&files, version));
    properties
}

fn limit(value: &str) -> Option<Value> {
    match value.trim() {
        "max" | "-1" => Some(Value::U64(INFINITY)),
        number => number.parse().ok().map(Value::U64),
    }
}

/// A list of numbers as a bit for each, the lowest first.
fn bits(list: &str) -> Option<Value> {
    let mut bytes = Vec::new();
    for number in parse_list(list.trim())?.into_iter().flatten() {
        let byte = usize::try_from(number / 8).ok().filter(|at| *at < 8192)?;
        if bytes.len() <= byte {
            bytes.resize(byte + 1, 0_u8);
        }
        bytes[byte] |= 1 << (number % 8);
    }
    let bytes = bytes.into_iter().map(Value::Byte).collect();
    Some(Value::Array("y".into(), bytes))
}

/// systemd counts µs per second, in whole percents: rounded up, so that no quota inside
/// the group that was asked for is refused (runc's `addCpuQuota`).
fn quota(files: &BTreeMap<&str, &str>, version: u32) -> Vec<Property> {
    let (quota, period) = match files.get("cpu.max") {
        Some(both) => {
            let mut parts = both.split_ascii_whitespace();
            (parts.next(), parts.next())
        }
        None => (
            files.get("cpu.cfs_quota_us").copied(),
            files.get("cpu.cfs_period_us").copied(),
        ),
    };
    let period: Option<u64> = period.and_then(|period| period.parse().ok());
    let mut properties = Vec::new();
    if let Some(period) = period.filter(|_| version >= 242) {
        properties.push(("CPUQuotaPeriodUSec".to_owned(), Value::U64(period)));
    }
    if quota.is_some() || period.is_some() {
        let quota = quota.and_then(|quota| quota.parse::<u64>().ok());
        let per_second = quota.map_or(INFINITY, |quota| {
            let period = u128::from(period.unwrap_or(DEFAULT_PERIOD).max(1));
            let exact = u128::from(quota) * 1_000_000 / period;
            u64::try_from(exact.next_multiple_of(10_000)).unwrap_or(INFINITY)
        });
        properties.push(("CPUQuotaPerSecUSec".to_owned(), Value::U64(per_second)));
    }
    properties
}

/// On v1 systemd would open all devices again when it is reloaded, if it did not know
/// which are allowed. On v2 our program stays whatever systemd does.
pub(super) fn of_devices(policy: &Policy, devices: Version) -> Vec<Property> {
    if devices == Version::V2 {
        return Vec::new();
    }
    let entry =
        |path: String, access: String| Value::Struct(vec![Value::Str(path), Value::Str(access)]);
    let mut entries = Vec::new();
    for (nodes, access) in policy
        .exceptions
        .iter()
        .filter(|_| !policy.allow_by_default)
    {
        let kind = match nodes.kind {
            Kind::Block => "block",
            Kind::Char => "char",
        };
        // systemd.resource-control(5), DeviceAllow=. It has no word for any major with a
        // certain minor; what it does not know it forbids until we write it again.
        let path = match (nodes.major, nodes.minor) {
            (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
            (Some(major), None) => format!("{kind}-{major}"),
            (None, None) => format!("{kind}-*"),
            (None, Some(_)) => continue,
        };
        entries.push(entry(path, access.letters()));
    }
    let mode = if policy.allows_everything() {
        "auto"
    } else {
        "strict"
    };
    let empty = Value::Array("(ss)".into(), Vec::new());
    let mut properties = vec![
        ("DevicePolicy".to_owned(), Value::str(mode)),
        // Lists are appended to; an empty one begins anew.
        ("DeviceAllow".to_owned(), empty),
    ];
    if !entries.is_empty() {
        let entries = Value::Array("(ss)".into(), entries);
        properties.push(("DeviceAllow".to_owned(), entries));
    }
    properties
}

/// `org.systemd.property.NAME` of a configuration's annotations: values in GVariant's
/// text form, as runc takes them; seconds become microseconds.
pub(super) fn of_annotation(name: &str, text: &str) -> Result<Property> {
    let refused = |reason| Error::Annotation {
        name: name.to_owned(),
        value: text.to_owned(),
        reason,
    };
    if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
        return Err(refused(
            "the name has at least three letters and nothing else",
        ));
    }
    let value = parse(text.trim()).ok_or_else(|| {
        refused("expected 'text', true, a number, or a type before it such as uint64 5")
    })?;
    let seconds = name
        .strip_suffix("Sec")
        .filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase()));
    let Some(stem) = seconds else {
        return Ok((name.to_owned(), value));
    };
    let micros = match value {
        Value::U32(number) => u64::from(number).checked_mul(1_000_000),
        Value::U64(number) => number.checked_mul(1_000_000),
        Value::I32(number) => u64::try_from(number).ok().map(|number| number * 1_000_000),
        Value::I64(number) => u64::try_from(number)
            .ok()
            .and_then(|number| number.checked_mul(1_000_000)),
        _ => None,
    };
    let micros = micros.ok_or_else(|| refused("seconds are a whole number"))?;
    Ok((format!("{stem}USec"), Value::U64(micros)))
}

fn parse(text: &str) -> Option<Value> {
    if let Some(list) = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        let elements = list.split(',').map(|one| parse(one.trim()));
        let elements: Vec<Value> = elements.collect::<Option<_>>()?;
        let texts = elements.iter().all(|one| matches!(one, Value::Str(_)));
        return texts.then(|| Value::Array("s".into(), elements));
    }
    for quote in ['\'', '"'] {
        if let Some(rest) = text.strip_prefix(quote) {
            let inner = rest.strip_suffix(quote)?;
            // Escapes are for what no property needs.
            let plain = !inner.contains([quote, '\\', '\0']);
            return plain.then(|| Value::str(inner));
        }
    }
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    let Some((kind, number)) = text.split_once(' ') else {
        return text.parse().ok().map(Value::I32);
    };
    let number = number.trim();
    match kind {
        "byte" => number.parse().ok().map(Value::Byte),
        "int32" => number.parse().ok().map(Value::I32),
        "uint32" => number.parse().ok().map(Value::U32),
        "int64" => number.parse().ok().map(Value::I64),
        "uint64" => number.parse().ok().map(Value::U64),
        "double" => number.parse().ok().map(Value::F64),
        "boolean" => number.parse().ok().map(Value::Bool),
        "string" => parse(number).filter(|value| matches!(value, Value::Str(_))),
        _ => None,
    }
}
