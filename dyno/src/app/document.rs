//! What a file says, whatever its format: values with their places, and what is
//! wrong with them. All that is wrong is told at once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::str::FromStr;

use crate::failure::Failure;

/// So many things that are wrong are told.
const MAX_TOLD: usize = 50;
/// So many are kept to choose from: each has the names of all tables that it is in.
const MAX_KEPT: usize = 1000;

/// Line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What a file can say.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Nothing, which only YAML can say.
    Null,
    Bool(bool),
    /// As it is written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// In order; no key is there twice.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) value: Node,
}

/// What is wrong with a file.
#[derive(Debug)]
pub(super) struct Problems {
    /// The file's name, as it was given.
    file: String,
    found: RefCell<Vec<(Place, String)>>,
    /// Those that were not kept.
    more: Cell<usize>,
}

impl Problems {
    pub(super) fn new(file: String) -> Self {
        Self {
            file,
            found: RefCell::default(),
            more: Cell::default(),
        }
    }

    /// Notes that something is wrong there.
    pub(super) fn note(&self, place: Place, what: impl Display) {
        let mut found = self.found.borrow_mut();
        match found.len() < MAX_KEPT {
            true => found.push((place, what.to_string())),
            false => self.more.set(self.more.get() + 1),
        }
    }

    /// What was made of the file, if nothing is wrong with it.
    ///
    /// # Errors
    /// Everything that is.
    pub(super) fn or<T>(&self, made: T) -> Result<T, Failure> {
        let mut found = self.found.borrow().clone();
        if found.is_empty() {
            return Ok(made);
        }
        found.sort();
        let file = &self.file;
        let tell = |(Place { line, column }, what): &(Place, String)| {
            clean(&format!("{what} ({file}:{line}:{column})"))
        };
        let mut lines: Vec<String> = found.iter().take(MAX_TOLD).map(tell).collect();
        let more = found.len() - lines.len() + self.more.get();
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        let message = match &lines[..] {
            [only] => only.clone(),
            lines => format!("{} is refused:\n  {}", clean(file), lines.join("\n  ")),
        };
        Err(Failure::usage(message).hint("docs/up.md lists what such a file can say"))
    }
}

/// What strangers wrote steers no terminal.
pub(super) fn clean(text: &str) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(clean).collect()
}

/// A value, its path in the file, and where to note what is wrong with it.
#[derive(Debug, Clone)]
pub(super) struct Item<'a> {
    pub(super) path: String,
    pub(super) node: &'a Node,
    pub(super) problems: &'a Problems,
}

impl<'a> Item<'a> {
    /// The whole of a file.
    pub(super) fn root(node: &'a Node, problems: &'a Problems) -> Self {
        Self {
            path: String::new(),
            node,
            problems,
        }
    }

    /// Notes what is wrong with it.
    pub(super) fn wrong(&self, what: impl Display) {
        let path = &self.path;
        self.problems
            .note(self.node.place, format_args!("{path}: {what}"));
    }

    /// The result, or none where the error was noted.
    pub(super) fn take<T, E: Display>(&self, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.wrong(error)).ok()
    }

    /// Whether it says nothing.
    pub(super) fn is_null(&self) -> bool {
        self.node.value == Value::Null
    }

    /// A text; numbers and truth values are what they are written as.
    pub(super) fn text(&self) -> Option<String> {
        match &self.node.value {
            Value::Text(text) | Value::Number(text) => Some(text.clone()),
            Value::Bool(truth) => Some(truth.to_string()),
            Value::Null | Value::List(_) | Value::Map(_) => {
                self.wrong(format_args!("a text is expected, not {}", self.node.value));
                None
            }
        }
    }

    /// What this parser makes of a text.
    pub(super) fn parsed<T, E: Display>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text()?;
        let parsed = parse(&text);
        parsed
            .map_err(|error| self.wrong(format_args!("{text:?}: {error}")))
            .ok()
    }

    /// What such a text parses to by itself: a name or a number.
    pub(super) fn typed<T: FromStr<Err: Display>>(&self) -> Option<T> {
        self.parsed(str::parse)
    }

    /// `true` or `false`.
    pub(super) fn flag(&self) -> Option<bool> {
        match &self.node.value {
            Value::Bool(truth) => Some(*truth),
            Value::Text(text) => {
                self.take(text.parse().map_err(|_no_truth| Expected("true or false")))
            }
            other => {
                self.wrong(format_args!("true or false is expected, not {other}"));
                None
            }
        }
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Vec<Self> {
        let Value::List(list) = &self.node.value else {
            self.wrong(format_args!("a list is expected, not {}", self.node.value));
            return Vec::new();
        };
        let item = |(index, node): (usize, &'a Node)| Self {
            path: format!("{}[{index}]", self.path),
            node,
            problems: self.problems,
        };
        list.iter().enumerate().map(item).collect()
    }

    /// The items of a list, or the one that stands in its place.
    pub(super) fn one_or_more(&self) -> Vec<Self> {
        match &self.node.value {
            Value::List(_) => self.items(),
            _ => vec![self.clone()],
        }
    }

    /// The entries of a table, in order.
    pub(super) fn entries(&self) -> Vec<(String, Self)> {
        let Value::Map(entries) = &self.node.value else {
            self.wrong(format_args!("a table is expected, not {}", self.node.value));
            return Vec::new();
        };
        let entry = |entry: &'a Entry| (entry.key.clone(), self.below(entry));
        entries.iter().map(entry).collect()
    }

    /// The entries of a table whose keys are known; none where it is no table.
    pub(super) fn fields(&self) -> Option<Fields<'a>> {
        let Value::Map(entries) = &self.node.value else {
            self.wrong(format_args!("a table is expected, not {}", self.node.value));
            return None;
        };
        let known = entries.iter().map(|entry| (entry.key.as_str(), entry));
        Some(Fields {
            of: self.clone(),
            left: known.collect(),
        })
    }

    fn below(&self, entry: &'a Entry) -> Self {
        let path = match self.path.as_str() {
            "" => entry.key.clone(),
            above => format!("{above}.{}", entry.key),
        };
        Self {
            path,
            node: &entry.value,
            problems: self.problems,
        }
    }
}

/// The entries of a table. Those that nobody takes are not supported.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    of: Item<'a>,
    left: BTreeMap<&'a str, &'a Entry>,
}

impl<'a> Fields<'a> {
    /// The value of this key, where it says something.
    pub(super) fn take(&mut self, key: &str) -> Option<Item<'a>> {
        let entry = self.left.remove(key)?;
        Some(self.of.below(entry)).filter(|item| !item.is_null())
    }

    /// What is made of the value of this key.
    pub(super) fn read<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&Item<'a>) -> Option<T>,
    ) -> Option<T> {
        self.take(key).and_then(|item| read(&item))
    }

    /// What is made of each item of the list of this key.
    pub(super) fn list<T>(
        &mut self,
        key: &str,
        read: impl FnMut(&Item<'a>) -> Option<T>,
    ) -> Vec<T> {
        let items = self.take(key).map(|item| item.items());
        items.iter().flatten().filter_map(read).collect()
    }

    /// Takes every key of which nothing is made.
    pub(super) fn ignore(&mut self, which: impl Fn(&str) -> bool) {
        self.left.retain(|key, _| !which(key));
    }

    /// Notes every key that was not taken.
    pub(super) fn finish(self) {
        for entry in self.left.values() {
            let path = self.of.below(entry).path;
            self.of
                .problems
                .note(entry.place, format_args!("{path}: not supported"));
        }
    }
}

/// What would have been right.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("{0} is expected")]
pub(super) struct Expected(pub(super) &'static str);

impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => write!(f, "nothing"),
            Self::Bool(truth) => write!(f, "{truth}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List(_) => write!(f, "a list"),
            Self::Map(_) => write!(f, "a table"),
        }
    }
}
