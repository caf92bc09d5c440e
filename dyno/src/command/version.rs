//! `dyno version`: versions of both sides.

use clap::Args;
use dyno_api::host::Version;
use serde::Serialize;

use super::Context;
use crate::failure::{Failure, code};
use crate::output::Table;

/// Show the versions of dyno and hostd; starts nothing
#[derive(Debug, Args)]
pub(crate) struct VersionCommand {}

#[derive(Debug, Serialize)]
struct Versions {
    dyno: &'static str,
    hostd: Option<Version>,
}

impl VersionCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let hostd = match context.place()?.running().await? {
            Some(client) => Some(client.version().await?),
            None => None,
        };
        // Half an answer is written, and told by the exit code.
        let code = if hostd.is_some() { 0 } else { code::NO_HOSTD };
        let versions = Versions {
            dyno: env!("CARGO_PKG_VERSION"),
            hostd,
        };
        if context.output.json {
            context.output.document(&versions)?;
            return Ok(code);
        }
        let mut table = Table::facts();
        table.fact("dyno", versions.dyno);
        match versions.hostd {
            Some(hostd) => table.fact("hostd", format!("{} (API {})", hostd.version, hostd.api)),
            None => table.fact("hostd", "not running"),
        }
        context.output.table(&table)?;
        Ok(code)
    }
}
