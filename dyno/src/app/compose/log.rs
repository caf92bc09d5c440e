//! The `logging` of a service: Docker's driver of files, which is what hostd does.

use dyno_api::dyno::{LogMode, LogOptions};

use super::super::count::positive;
use super::super::document::{Expected, Fields, Item};
use super::only;
use crate::value::size;

/// How a service's output is kept.
pub(super) fn of(fields: &mut Fields<'_>) -> LogOptions {
    let logging = fields.take("logging");
    logging.and_then(|item| read(&item)).unwrap_or_default()
}

fn read(item: &Item<'_>) -> Option<LogOptions> {
    let mut fields = item.fields()?;
    only(&mut fields, "driver", &["json-file", "local"]);
    let mut log = LogOptions::default();
    if let Some(mut options) = fields.take("options").and_then(|item| item.fields()) {
        log.max_bytes = options.read("max-size", |item| item.parsed(size::parse));
        log.max_files = options.read("max-file", |item| item.parsed(positive));
        log.mode = options.read("mode", mode).unwrap_or_default();
        options.finish();
    }
    fields.ignore(|key| key.starts_with("x-"));
    fields.finish();
    Some(log)
}

fn mode(item: &Item<'_>) -> Option<LogMode> {
    item.parsed(|text| match text {
        "blocking" => Ok(LogMode::Block),
        "non-blocking" => Ok(LogMode::Drop),
        _ => Err(Expected("blocking or non-blocking")),
    })
}
