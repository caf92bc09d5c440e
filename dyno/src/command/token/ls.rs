//! `dyno token ls`.

use clap::Args;
use dyno_api::token::{Scope, Token};
use jiff::Timestamp;

use crate::command::Context;
use crate::failure::Failure;
use crate::output::Table;
use crate::output::table::Cell;
use crate::value::duration::human_age;

/// List tokens, without secrets; those that a certificate stands for are among them
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Only names
    #[arg(short, long)]
    quiet: bool,
}

impl Ls {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let tokens = context.client().await?.tokens().await?;
        context
            .output
            .list(&tokens, self.quiet, |one| one.name.to_string(), table)?;
        Ok(0)
    }
}

fn table(tokens: &[Token]) -> Table {
    let mut table = Table::new(&["ID", "NAME", "SCOPES", "CREATED", "EXPIRES", "LAST USED"]);
    let now = Timestamp::now();
    for token in tokens {
        let scopes: Vec<&str> = token
            .scopes
            .iter()
            .map(|scope| Scope::as_str(*scope))
            .collect();
        table.row([
            Cell::from(token.id.as_str()),
            Cell::from(token.name.as_str()),
            Cell::from(scopes.join(",")),
            Cell::from(format!("{} ago", human_age(token.created, now))),
            Cell::from(ends(token, now)),
            Cell::from(token.last_used.map_or_else(
                || "never".to_owned(),
                |used| format!("{} ago", human_age(used, now)),
            )),
        ]);
    }
    table
}

fn ends(token: &Token, now: Timestamp) -> String {
    match token.expires {
        None => "never".to_owned(),
        Some(expires) if expires <= now => "expired".to_owned(),
        Some(expires) => format!("in {}", human_age(now, expires)),
    }
}
