//! What a service runs: its command and its variables (Compose Specification, command,
//! entrypoint, environment, env_file, labels).

use std::collections::{BTreeMap, BTreeSet};

use super::super::document::{Expected, Fields, Item, Value};
use super::super::words;
use super::Scope;
use crate::command::run::environment;
use crate::value::env::{self, Variable};

/// The words of `command`.
pub(super) fn command(fields: &mut Fields<'_>) -> Vec<String> {
    let Some(item) = fields.take("command") else {
        return Vec::new();
    };
    let words = words::of(&item);
    if words.as_ref().is_some_and(Vec::is_empty) {
        item.wrong("an empty command is not supported; without the key, it is the image's");
    }
    words.unwrap_or_default()
}

/// The variables of `env_file` and of `environment`, which goes before files. One without
/// a value has that of the caller, or of `.env`.
pub(super) fn variables(
    fields: &mut Fields<'_>,
    scope: &mut Scope<'_>,
) -> BTreeMap<String, String> {
    let files = fields.take("env_file").map(|item| item.one_or_more());
    let mut variables = Vec::new();
    for item in files.iter().flatten() {
        variables.extend(env_file(item, scope));
    }
    let own = fields.take("environment").map(|item| pairs(&item));
    let own = own.unwrap_or_default();
    // Also one that is not set goes before files.
    let names: BTreeSet<&str> = own.iter().map(|one| one.name.as_str()).collect();
    variables.retain(|of_file| !names.contains(of_file.name.as_str()));
    variables.extend(own);
    environment::resolve(variables, |name| scope.variables.get(name))
}

/// `NAME=value` lines, or a table of them.
fn pairs(item: &Item<'_>) -> Vec<Variable> {
    if let Value::List(_) = item.node.value {
        let items = item.items();
        return items
            .iter()
            .filter_map(|item| item.parsed(env::parse))
            .collect();
    }
    let entries = item.entries().into_iter();
    entries
        .filter_map(|(name, item)| {
            let variable = item.take(env::parse(&name));
            let value = match item.is_null() {
                true => None,
                false => Some(item.text()?),
            };
            match variable? {
                Variable { value: Some(_), .. } => {
                    item.wrong("the name of a variable has no `=`");
                    None
                }
                Variable { name, .. } => Some(Variable { name, value }),
            }
        })
        .collect()
}

/// A path, or a table with it and with how it is to be read.
fn env_file(item: &Item<'_>, scope: &mut Scope<'_>) -> Vec<Variable> {
    let path;
    let (mut required, mut raw) = (true, false);
    if let Value::Map(_) = item.node.value {
        let Some(mut fields) = item.fields() else {
            return Vec::new();
        };
        path = fields.read("path", Item::text);
        if path.is_none() {
            item.wrong("path: it is missing");
        }
        required = fields.read("required", Item::flag).unwrap_or(true);
        let format = fields.read("format", |item| {
            item.parsed(|text| match text {
                "raw" => Ok(true),
                _ => Err(Expected("raw, or no format,")),
            })
        });
        raw = format.unwrap_or_default();
        fields.finish();
    } else {
        path = item.text();
    }
    let Some(path) = path.map(|path| scope.folder.join(path)) else {
        return Vec::new();
    };
    if !required && !path.exists() {
        return Vec::new();
    }
    let read = match raw {
        true => scope.variables.of_raw_file(&path),
        false => scope.variables.of_file(&path),
    };
    item.take(read).unwrap_or_default()
}

/// `labels`: a table, or a list of `name=value`.
pub(super) fn labels(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    let Some(item) = fields.take("labels") else {
        return BTreeMap::new();
    };
    if let Value::List(_) = item.node.value {
        let items = item.items();
        let labels = items
            .iter()
            .filter_map(|item| item.parsed(env::parse_label));
        return labels.collect();
    }
    let label = |(name, item): (String, Item<'_>)| match item.is_null() {
        true => Some((name, String::new())),
        false => Some((name, item.text()?)),
    };
    item.entries().into_iter().filter_map(label).collect()
}
