//! `dyno audit`: who changed what on the host, when, and how it ended.

use clap::Args;
use dyno_api::audit::{AuditCaller, AuditEntry, AuditState};
use dyno_api::query::AuditQuery;
use jiff::Timestamp;

use super::Context;
use crate::failure::Failure;
use crate::output::Table;
use crate::output::table::Cell;
use crate::value::duration::{self, Since};

/// Operations that are shown unless told otherwise.
const LAST: usize = 100;
const HEADINGS: [&str; 7] = [
    "TIME",
    "ID",
    "CALLER",
    "OPERATION",
    "TARGET",
    "OUTCOME",
    ">TOOK",
];

/// Show who changed what on the host, when, and how it ended
#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Go on with operations as they end
    #[arg(short, long)]
    follow: bool,
    /// Only the last N operations, 10000 at the most
    #[arg(short = 'n', long, value_name = "N", default_value_t = LAST)]
    limit: usize,
    /// All operations that are kept
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Only operations begun from then on: a duration ago (10m) or a time (RFC 3339)
    #[arg(long, value_name = "WHEN", value_parser = duration::parse_since)]
    since: Option<Since>,
    /// Only operations begun before then: a duration ago (10m) or a time (RFC 3339)
    #[arg(long, value_name = "WHEN", value_parser = duration::parse_since)]
    until: Option<Since>,
    /// Only one operation (dyno.create), or those of one kind (dyno)
    #[arg(long, value_name = "NAME")]
    operation: Option<String>,
    /// Only those of one caller: the number of a user, or the name or id of a token
    #[arg(long, value_name = "CALLER")]
    caller: Option<String>,
}

impl Audit {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let now = Timestamp::now();
        let query = AuditQuery {
            since: self.since.map(|since| since.at(now)),
            until: self.until.map(|until| until.at(now)),
            limit: (!self.all).then_some(self.limit),
            operation: self.operation,
            caller: self.caller,
            follow: self.follow,
        };
        let mut entries = context.client().await?.audit(&query).await?;
        // What has an end and a size is a table.
        let mut table = (!self.follow && !self.all).then(|| Table::new(&HEADINGS));
        while let Some(entry) = entries.next().await? {
            if context.output.json {
                context.output.json_line(&entry)?;
            } else if let Some(table) = &mut table {
                let [others @ .., took] = cells(&entry).map(Cell::from);
                table.row(others.into_iter().chain([took.right()]));
            } else {
                context.output.line(&line(&entry))?;
            }
        }
        if let (Some(table), false) = (table, context.output.json) {
            context.output.table(&table)?;
        }
        Ok(0)
    }
}

fn cells(entry: &AuditEntry) -> [String; 7] {
    let took = entry.took_us.map(|micros| match micros {
        0..10_000_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        _ => format!("{} s", micros / 1_000_000),
    });
    [
        format!("{:.3}", entry.time),
        entry.id.to_string(),
        caller(&entry.caller),
        entry.operation.clone(),
        entry.target.clone().unwrap_or_default(),
        outcome(entry),
        took.unwrap_or_default(),
    ]
}

fn line(entry: &AuditEntry) -> String {
    let cells = cells(entry);
    let said = cells.iter().filter(|cell| !cell.is_empty());
    let said: Vec<&str> = said.map(String::as_str).collect();
    said.join("  ").replace(|c: char| c.is_control(), " ")
}

fn caller(caller: &AuditCaller) -> String {
    match caller {
        AuditCaller::User { uid, pid: None } => format!("user {uid}"),
        AuditCaller::User {
            uid,
            pid: Some(pid),
        } => format!("user {uid} (process {pid})"),
        AuditCaller::Token { name, address, .. } => format!("token {name} ({address})"),
        AuditCaller::Hostd => "hostd".to_owned(),
    }
}

/// `201`, `409 conflict`, `200 upstream`, `running`.
fn outcome(entry: &AuditEntry) -> String {
    let status = entry.status.map(|status| status.to_string());
    let error = entry.error.map(|error| {
        let name = serde_json::to_value(error).unwrap_or_default();
        name.as_str().unwrap_or_default().replace('_', " ")
    });
    let state = match entry.state {
        AuditState::Running => Some("running".to_owned()),
        AuditState::Unknown => Some("not known".to_owned()),
        AuditState::Done => None,
    };
    let said: Vec<String> = [status, error, state].into_iter().flatten().collect();
    said.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(more: &str) -> AuditEntry {
        let json = format!(
            r#"{{"id": 7, "time": "2026-11-28T00:00:00.123456789Z", "request": "a",
            "caller": {{"by": "user", "uid": 0, "pid": 12}}, "operation": "dyno.create" {more}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn an_entry_is_a_line() {
        let done = entry(r#", "state": "done", "status": 201, "target": "web", "took_us": 8345"#);
        assert_eq!(
            line(&done),
            "2026-11-28T00:00:00.123Z  7  user 0 (process 12)  dyno.create  web  201  8.3 ms"
        );
        let failed = entry(r#", "state": "done", "status": 404, "error": "not_found""#);
        assert_eq!(outcome(&failed), "404 not found");
        assert_eq!(outcome(&entry(r#", "state": "unknown""#)), "not known");
        let hostile = entry(r#", "state": "running", "target": "a\u001b[2Jb""#);
        assert!(line(&hostile).ends_with("a [2Jb  running"));
    }
}
