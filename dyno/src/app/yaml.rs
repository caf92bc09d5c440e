//! YAML (1.2.2, core schema): from its text to values with their places. An alias is
//! replaced by what it stands for, and a merge key (`<<`) by what it brings.
//!
//! ```text
//! text ─▶ saphyr_parser ─events─▶ Builder ─▶ Node
//! ```
//! What a text of a few lines can blow up to is bounded here: depth, values and bytes
//! are counted as they are after every alias.

mod scalar;

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Marker, Parser, Tag};

use super::document::{Entry, Node, Place, Problems, Value};

/// Lists and tables within each other.
const MAX_DEPTH: usize = 64;
/// Keys and values of a file.
const MAX_VALUES: usize = 100_000;
/// Bytes of a key: what is wrong is told with all keys that lead to it.
const MAX_KEY: usize = 1024;
/// Bytes of all its texts.
const MAX_BYTES: usize = 8 << 20;

/// Why a text is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum YamlError {
    #[error("{0}")]
    Syntax(String),
    #[error("a second document; a file has one")]
    Documents,
    #[error("duplicate key {0:?}")]
    Duplicate(String),
    #[error("a key is a text of at most {MAX_KEY} bytes")]
    Key,
    #[error("`<<` takes a table, or a list of tables")]
    Merge,
    #[error("an alias within what it stands for")]
    Circle,
    #[error("the tag {0} is not supported")]
    Tag(String),
    #[error("nested deeper than {MAX_DEPTH} levels")]
    Deep,
    #[error("more than {MAX_VALUES} values, or {MAX_BYTES} bytes, where aliases are replaced")]
    Large,
}

/// Why, and where.
type Refused = (Place, YamlError);

/// The values of a text, or none where what is wrong was noted.
pub(super) fn parse(text: &str, problems: &Problems) -> Option<Node> {
    let mut builder = Builder::default();
    match builder.read(text) {
        Ok(()) => Some(builder.root.unwrap_or(Node {
            place: Place { line: 1, column: 1 },
            value: Value::Null,
        })),
        Err((place, error)) => {
            problems.note(place, error);
            None
        }
    }
}

/// What a value comes to with all that is in it.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    values: usize,
    bytes: usize,
    /// Lists and tables within each other.
    height: usize,
}

impl Size {
    /// Both, if that is not too much.
    fn with(self, other: Self) -> Result<Self, YamlError> {
        let both = Self {
            values: self.values + other.values,
            bytes: self.bytes + other.bytes,
            height: self.height.max(other.height),
        };
        match both.values > MAX_VALUES || both.bytes > MAX_BYTES {
            true => Err(YamlError::Large),
            false => Ok(both),
        }
    }
}

/// What an anchor stands for.
#[derive(Debug)]
struct Anchored {
    node: Node,
    size: Size,
}

/// A list or a table that is not at its end.
#[derive(Debug)]
struct Open {
    place: Place,
    /// The number of its anchor; 0 without one.
    anchor: usize,
    size: Size,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    List(Vec<Node>),
    Map(Table),
}

/// A table that is not at its end.
#[derive(Debug, Default)]
struct Table {
    entries: Vec<Entry>,
    /// The key whose value comes next.
    key: Option<Key>,
    keys: BTreeSet<String>,
    /// Tables that its merge key brings; the first that has a key is right.
    merged: Vec<Vec<Entry>>,
}

#[derive(Debug)]
struct Key {
    text: String,
    place: Place,
    merges: bool,
}

/// Puts events together.
#[derive(Debug, Default)]
struct Builder {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Anchored>,
    root: Option<Node>,
    /// All that is in the values so far.
    total: Size,
    /// All that anchors stand for, some of it more than once.
    kept: Size,
}

impl Builder {
    fn read(&mut self, text: &str) -> Result<(), Refused> {
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| {
                (
                    place(*error.marker()),
                    YamlError::Syntax(error.info().into()),
                )
            })?;
            let place = place(span.start);
            match event {
                Event::SequenceEnd | Event::MappingEnd => self.end()?,
                event => self.event(event, place).map_err(|error| (place, error))?,
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, place: Place) -> Result<(), YamlError> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => Err(YamlError::Documents),
            Event::Scalar(text, style, anchor, tag) => {
                let merges = scalar::merges(&text, style, tag.as_deref());
                let size = Size {
                    values: 1,
                    bytes: text.len(),
                    height: 0,
                };
                let value = scalar::value(text.into_owned(), style, tag.as_deref())?;
                let node = Node { place, value };
                self.keep(anchor, &node, size)?;
                self.add(node, size, merges)
            }
            Event::SequenceStart(anchor, tag) => {
                known(tag.as_deref(), "seq")?;
                self.begin(place, anchor, Kind::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                known(tag.as_deref(), "map")?;
                self.begin(place, anchor, Kind::Map(Table::default()))
            }
            Event::Alias(anchor) => {
                let anchored = self.anchors.get(&anchor).ok_or(YamlError::Circle)?;
                let size = anchored.size;
                // Before it is copied.
                self.room(size)?;
                let node = anchored.node.clone();
                self.add(node, size, false)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => Ok(()),
        }
    }

    fn begin(&mut self, place: Place, anchor: usize, kind: Kind) -> Result<(), YamlError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(YamlError::Deep);
        }
        self.open.push(Open {
            place,
            anchor,
            size: Size::default(),
            kind,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Refused> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let Open {
            place,
            anchor,
            size,
            kind,
        } = open;
        let value = match kind {
            Kind::List(items) => Value::List(items),
            Kind::Map(table) => Value::Map(table.merge()),
        };
        let node = Node { place, value };
        let whole = Size {
            values: size.values + 1,
            height: size.height + 1,
            ..size
        };
        // What is in it was counted already, and is again with it.
        self.total.values -= size.values;
        self.total.bytes -= size.bytes;
        self.keep(anchor, &node, whole)
            .and_then(|()| self.add(node, whole, false))
            .map_err(|error| (place, error))
    }

    fn keep(&mut self, anchor: usize, node: &Node, size: Size) -> Result<(), YamlError> {
        if anchor > 0 {
            self.kept = self.kept.with(size)?;
            let node = node.clone();
            self.anchors.insert(anchor, Anchored { node, size });
        }
        Ok(())
    }

    /// Whether so much more can be had here.
    fn room(&self, size: Size) -> Result<Size, YamlError> {
        match self.open.len() + size.height > MAX_DEPTH {
            true => Err(YamlError::Deep),
            false => self.total.with(size),
        }
    }

    fn add(&mut self, node: Node, size: Size, merges: bool) -> Result<(), YamlError> {
        self.total = self.room(size)?;
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.size = open.size.with(size)?;
        match &mut open.kind {
            Kind::List(items) => items.push(node),
            Kind::Map(table) => table.add(node, merges)?,
        }
        Ok(())
    }
}

impl Table {
    /// A key, or the value of the last one.
    fn add(&mut self, node: Node, merges: bool) -> Result<(), YamlError> {
        let Some(Key {
            text,
            place,
            merges,
        }) = self.key.take()
        else {
            let text = match node.value {
                Value::Text(text) | Value::Number(text) => text,
                Value::Bool(truth) => truth.to_string(),
                Value::Null | Value::List(_) | Value::Map(_) => return Err(YamlError::Key),
            };
            if text.len() > MAX_KEY {
                return Err(YamlError::Key);
            }
            if !self.keys.insert(text.clone()) {
                return Err(YamlError::Duplicate(text));
            }
            let place = node.place;
            self.key = Some(Key {
                text,
                place,
                merges,
            });
            return Ok(());
        };
        if !merges {
            self.entries.push(Entry {
                key: text,
                place,
                value: node,
            });
            return Ok(());
        }
        let tables = match node.value {
            Value::List(tables) => tables,
            _ => vec![node],
        };
        for table in tables {
            match table.value {
                Value::Map(entries) => self.merged.push(entries),
                _ => return Err(YamlError::Merge),
            }
        }
        Ok(())
    }

    /// Its entries, and of those that are merged the ones that it has not.
    fn merge(mut self) -> Vec<Entry> {
        for entry in self.merged.into_iter().flatten() {
            if self.keys.insert(entry.key.clone()) {
                self.entries.push(entry);
            }
        }
        self.entries
    }
}

/// A tag says no more than what is there.
fn known(tag: Option<&Tag>, kind: &str) -> Result<(), YamlError> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == kind) => {
            Err(YamlError::Tag(tag.to_string()))
        }
        _ => Ok(()),
    }
}

fn place(marker: Marker) -> Place {
    Place {
        line: marker.line(),
        column: marker.col() + 1,
    }
}

#[cfg(test)]
mod tests;
