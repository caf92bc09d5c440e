//! Commands: a list of words, or a line that is split into words as a shell does it.

use super::document::{Item, Value};
use crate::value::words::split;

/// The words of a list or a line.
pub(super) fn of(item: &Item<'_>) -> Option<Vec<String>> {
    match &item.node.value {
        Value::List(_) => Some(item.items().iter().filter_map(Item::text).collect()),
        _ => item.parsed(split),
    }
}
