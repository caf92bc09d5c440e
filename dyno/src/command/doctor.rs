//! `dyno doctor`: has the host what dynos need?

use std::io;
use std::process::{Command, Stdio};

use clap::Args;
use dyno_api::doctor::{CheckState, HostCheck};

use super::Context;
use crate::failure::{Failure, code};
use crate::hostd;
use crate::output::table::Cell;
use crate::output::{Table, style};

/// Look whether the host has what dynos need, and say what to do
#[derive(Debug, Args)]
#[command(after_help = "The exit code is 7 where something is missing, 0 with warnings.")]
pub(crate) struct Doctor {}

impl Doctor {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let checks = match context.place()?.running().await? {
            Some(client) => {
                let mut checks = vec![HostCheck::ok("hostd", "runs")];
                checks.extend(client.doctor().await?);
                checks
            }
            None => without_hostd()?,
        };
        if context.output.json {
            context.output.document(&checks)?;
        } else {
            context.output.table(&table(&checks))?;
        }
        let missing = |check: &HostCheck| check.state == CheckState::Failure;
        Ok(match checks.iter().any(missing) {
            true => code::UNSUPPORTED,
            false => 0,
        })
    }
}

/// What hostd's program sees: it may be why none runs.
fn without_hostd() -> Result<Vec<HostCheck>, Failure> {
    let program = hostd::program().ok_or_else(hostd::no_program)?;
    let output = Command::new(&program)
        .args(["doctor", "--json"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::io(format!("cannot execute {}", program.display()), &error))?;
    let found: Vec<HostCheck> = serde_json::from_slice(&output.stdout).map_err(|error| {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Failure::io(
            format!("{}: {said}", program.display()),
            &io::Error::from(error),
        )
    })?;
    let absent = HostCheck::warning("hostd", "does not run")
        .advise("sudo hostd install, or the next command of root starts it");
    Ok([vec![absent], found].concat())
}

fn table(checks: &[HostCheck]) -> Table {
    let mut table = Table::facts();
    for check in checks {
        let (word, style) = match check.state {
            CheckState::Ok => ("ok", style::GOOD),
            CheckState::Warning => ("warning", style::WARNING),
            CheckState::Failure => ("missing", style::BAD),
        };
        table.row([
            Cell::from(word).style(style),
            Cell::from(check.name.as_str()),
            Cell::from(check.found.as_str()),
        ]);
        if let Some(advice) = &check.advice {
            table.row([
                Cell::from(""),
                Cell::from(""),
                Cell::from(advice.as_str()).style(style::FAINT),
            ]);
        }
    }
    table
}
