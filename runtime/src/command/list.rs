//! `list` and `ps`: which containers there are, and who runs in one.

use std::io::Write;
use std::process::Command;

use serde_json::{Value, json};

use super::{Failure, lifecycle};
use crate::cgroup::Cgroup;
use crate::state::{StateDir, StateRoot};

/// How lists are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

/// Prints all containers of the root.
pub(super) fn list(states: &StateRoot, format: Format, quiet: bool) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for id in states.ids()? {
        // One that goes meanwhile, or is half-made, is not listed.
        if let Ok(row) = states
            .open(&id)
            .map_err(Failure::from)
            .and_then(|dir| described(&dir))
        {
            rows.push(row);
        }
    }
    let mut out = std::io::stdout().lock();
    if quiet {
        for row in &rows {
            writeln!(out, "{}", plain(&row["id"]))?;
        }
        return Ok(());
    }
    if format == Format::Json {
        writeln!(out, "{}", Value::Array(rows))?;
        return Ok(());
    }
    let columns = ["id", "pid", "status", "bundle", "created", "owner"];
    let mut table = vec![columns.map(str::to_uppercase).to_vec()];
    table.extend(
        rows.iter()
            .map(|row| columns.map(|column| plain(&row[column])).to_vec()),
    );
    print(&mut out, &table)
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn print(out: &mut impl Write, table: &[Vec<String>]) -> Result<(), Failure> {
    let width = |column: usize| table.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..table[0].len()).map(width).collect();
    for row in table {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        writeln!(out, "{}", line.join("   ").trim_end())?;
    }
    Ok(())
}

/// What is told of one container.
pub(super) fn described(dir: &StateDir) -> Result<Value, Failure> {
    let record = dir.read()?;
    let status = record.status(dir)?;
    let mut state = record.oci_state(status.as_str(), record.pid_in(status));
    state["rootfs"] = json!(record.rootfs);
    state["created"] = json!(record.created.to_string());
    state["owner"] = json!(owner(record.owner));
    Ok(state)
}

/// The owner's name, by the host's own passwd(5); nothing where it has none.
fn owner(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    found.unwrap_or_default()
}

/// Prints the processes of a container: their ids, or what ps(1) of the host says.
pub(super) fn ps(
    states: &StateRoot,
    id: &str,
    format: Format,
    options: &[String],
) -> Result<(), Failure> {
    let (state, record) = lifecycle::opened(states, id)?;
    let pids = match record.cgroup.absent {
        true => lifecycle::members(&state, &record)?,
        false => Cgroup::open(record.cgroup)?.procs()?,
    };
    let mut pids: Vec<i32> = pids.iter().map(|pid| pid.as_raw_nonzero().get()).collect();
    pids.sort_unstable();
    let mut out = std::io::stdout().lock();
    if format == Format::Json {
        writeln!(out, "{}", json!(pids))?;
        return Ok(());
    }
    let usual = ["-ef".to_owned()];
    let options = if options.is_empty() { &usual } else { options };
    let ps = Command::new("ps").args(options).output();
    let ps = ps.map_err(|error| format!("execute ps: {error}; --format json needs no ps"))?;
    if !ps.status.success() {
        return Err(format!("ps: {}", String::from_utf8_lossy(&ps.stderr).trim()).into());
    }
    let text = String::from_utf8_lossy(&ps.stdout).into_owned();
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|title| title == "PID");
    let column = column.ok_or("ps shows no PID with these options")?;
    writeln!(out, "{header}")?;
    for line in lines {
        let pid = line
            .split_whitespace()
            .nth(column)
            .and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}
