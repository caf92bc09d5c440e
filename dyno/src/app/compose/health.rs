//! The `healthcheck` of a service: a readiness check, as an image's own is. It takes a
//! dyno out of service and ends none (Compose Specification, healthcheck).

use dyno_api::health::{Check, Health, Probe};

use super::super::count::positive;
use super::super::document::{Expected, Fields, Item, Value};
use super::limits::time;

/// Docker's defaults.
const MILLIS: u64 = 30_000;

/// How it is found out whether a service works.
pub(super) fn of(fields: &mut Fields<'_>) -> Health {
    let check = fields.take("healthcheck");
    check.and_then(|check| read(&check)).unwrap_or_default()
}

fn read(item: &Item<'_>) -> Option<Health> {
    let mut fields = item.fields()?;
    let disabled = fields.read("disable", Item::flag).unwrap_or_default();
    let test = fields.take("test");
    if test.is_none() && !disabled {
        item.wrong("test: it is missing");
    }
    let test = test.and_then(|item| test_of(&item));
    let interval = time(&mut fields, "interval");
    let timeout = time(&mut fields, "timeout");
    let failures = fields.read("retries", |item| item.parsed(positive));
    // A dyno is not in service before its first success, and failures end none.
    time(&mut fields, "start_period");
    fields.ignore(|key| key.starts_with("x-"));
    fields.finish();
    let command = test.filter(|command| !command.is_empty() && !disabled);
    Some(Health {
        ignore_image: command.is_none(),
        readiness: command.map(|command| Check {
            probe: Probe::Command { command },
            interval_ms: Some(interval.unwrap_or(MILLIS)),
            timeout_ms: Some(timeout.unwrap_or(MILLIS)),
            failures,
            successes: None,
        }),
        ..Health::default()
    })
}

/// The words of the check; none at all for `NONE`.
fn test_of(item: &Item<'_>) -> Option<Vec<String>> {
    let shell = |line: String| vec!["/bin/sh".to_owned(), "-c".to_owned(), line];
    if !matches!(item.node.value, Value::List(_)) {
        return item.text().map(shell);
    }
    let words: Vec<String> = item.items().iter().filter_map(Item::text).collect();
    let words = match words.split_first() {
        Some((kind, [])) if kind == "NONE" => Ok(Vec::new()),
        Some((kind, words @ [_, ..])) if kind == "CMD" => Ok(words.to_vec()),
        Some((kind, [line])) if kind == "CMD-SHELL" => Ok(shell(line.clone())),
        _ => Err(Expected("[NONE], [CMD, program, …] or [CMD-SHELL, line]")),
    };
    item.take(words)
}
