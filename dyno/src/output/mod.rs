//! What is written to the standard output: tables, values, lines, JSON.
//!
//! Everything goes through one locked handle and may fail: a reader that went
//! away (`dyno ps | head -0`) ends the command and is no panic.

pub(crate) mod progress;
pub(crate) mod style;
pub(crate) mod table;

use std::io::{self, Write};

use serde::Serialize;

use crate::failure::Failure;

pub(crate) use table::Table;

/// How results are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// Machines read it.
    pub(crate) json: bool,
}

impl Output {
    /// One line of text.
    pub(crate) fn line(self, line: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        Ok(writeln!(stdout, "{line}")?)
    }

    /// Bytes as they are.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        Ok(stdout.flush()?)
    }

    /// One JSON document, readable.
    pub(crate) fn document(self, value: &impl Serialize) -> Result<(), Failure> {
        let json = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
        self.line(&json)
    }

    /// One JSON value of a stream, on one line.
    pub(crate) fn json_line(self, value: &impl Serialize) -> Result<(), Failure> {
        let json = serde_json::to_string(value).map_err(io::Error::from)?;
        self.line(&json)
    }

    /// Names of what was done, one per line, or as one JSON array.
    pub(crate) fn names(self, names: &[String]) -> Result<(), Failure> {
        if self.json {
            return self.document(&names);
        }
        names.iter().try_for_each(|name| self.line(name))
    }

    /// What there is: its names where nothing else is wanted, JSON, or a table.
    pub(crate) fn list<T: Serialize>(
        self,
        items: &[T],
        names_only: bool,
        name: impl Fn(&T) -> String,
        table: impl FnOnce(&[T]) -> Table,
    ) -> Result<(), Failure> {
        match names_only {
            true => self.names(&items.iter().map(name).collect::<Vec<_>>()),
            false if self.json => self.document(&items),
            false => self.table(&table(items)),
        }
    }

    /// A table.
    pub(crate) fn table(self, table: &Table) -> Result<(), Failure> {
        self.bytes(table.render(style::stdout_has_colour()).as_bytes())
    }
}
