//! `dyno.toml`: from its text to an app.

mod service;

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::{Entry, Item, Node, Place, Problems, Value};
use super::volumes::Volumes;
use super::{App, Draft};
use crate::failure::Failure;

/// The app that a text describes. Relative paths are seen from `folder`.
///
/// # Errors
/// Everything that is wrong with it, each with line and column.
pub(super) fn read(text: &str, file: String, folder: &Path) -> Result<App, Failure> {
    let problems = Problems::new(file);
    let Some(root) = parse(text, &problems) else {
        return problems
            .or(())
            .and(Err(Failure::usage("the file cannot be read")));
    };
    let draft = app(&Item::root(&root, &problems), folder);
    draft.finish(&problems)
}

fn app(root: &Item<'_>, folder: &Path) -> Draft {
    let mut draft = Draft::default();
    let Some(mut fields) = root.fields() else {
        return draft;
    };
    let name = fields.read("name", Item::typed);
    draft.name = name.or_else(|| super::name_of_folder(root, folder));
    let Some(app) = draft.name.clone() else {
        return draft;
    };
    let declared = fields.take("volumes").map(|item| item.entries());
    draft.volumes = Volumes::new(app);
    for (name, item) in declared.into_iter().flatten() {
        draft.volumes.declare(&name, &item);
    }
    match fields.take("services") {
        Some(services) => {
            for (name, item) in services.entries() {
                let name = item.take(name.parse());
                let read = service::read(&item, folder, &mut draft.volumes);
                draft.add(name, read, &item);
            }
        }
        None => root
            .problems
            .note(root.node.place, "services: there is none"),
    }
    fields.finish();
    draft
}

/// The values of a text, or none where what is wrong was noted.
fn parse(text: &str, problems: &Problems) -> Option<Node> {
    let places = Places::of(text);
    match DeTable::parse(text) {
        Ok(table) => Some(node_of_table(table.get_ref(), places.at(0), &places)),
        Err(error) => {
            let place = places.at(error.span().map_or(0, |span| span.start));
            problems.note(place, error.message().trim_end());
            None
        }
    }
}

/// Where each line begins, in bytes.
struct Places<'a> {
    text: &'a str,
    lines: Vec<usize>,
}

impl<'a> Places<'a> {
    fn of(text: &'a str) -> Self {
        let ends = text.match_indices('\n').map(|(index, _)| index + 1);
        Self {
            text,
            lines: std::iter::once(0).chain(ends).collect(),
        }
    }

    fn at(&self, byte: usize) -> Place {
        let line = self.lines.partition_point(|begin| *begin <= byte).max(1);
        let begin = self.lines[line - 1];
        let before = self.text.get(begin..byte).unwrap_or_default();
        Place {
            line,
            column: before.chars().count() + 1,
        }
    }
}

fn node_of_table(table: &DeTable<'_>, place: Place, places: &Places<'_>) -> Node {
    let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let key: &Spanned<std::borrow::Cow<'_, str>> = key;
        Entry {
            key: key.get_ref().to_string(),
            place: places.at(key.span().start),
            value: node(value, places),
        }
    };
    let mut entries: Vec<Entry> = table.iter().map(entry).collect();
    entries.sort_by_key(|entry| entry.place);
    Node {
        place,
        value: Value::Map(entries),
    }
}

fn node(value: &Spanned<DeValue<'_>>, places: &Places<'_>) -> Node {
    let place = places.at(value.span().start);
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => {
            Value::Number(number.as_str().trim_start_matches('+').to_owned())
        }
        DeValue::Integer(number) => {
            let value = u64::from_str_radix(number.as_str(), number.radix());
            // What does not fit is no value of any key: it is refused as it is written.
            Value::Number(value.map_or_else(|_| number.to_string(), |value| value.to_string()))
        }
        DeValue::Float(number) => Value::Number(number.as_str().to_owned()),
        DeValue::Boolean(truth) => Value::Bool(*truth),
        DeValue::Datetime(time) => Value::Text(time.to_string()),
        DeValue::Array(items) => Value::List(items.iter().map(|item| node(item, places)).collect()),
        DeValue::Table(table) => return node_of_table(table, place, places),
    };
    Node { place, value }
}

#[cfg(test)]
mod tests;
