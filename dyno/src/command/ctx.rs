//! `dyno ctx`: machines by name, and the one that commands are for.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Context;
use crate::failure::Failure;
use crate::hostd::{ContextName, Contexts, Destination, LOCAL};
use crate::output::Table;
use crate::output::table::Cell;

/// Name machines, and choose one
#[derive(Debug, Args)]
#[command(
    after_help = "A command is for the machine of --socket, --host or --ctx, else of \
                        DYNO_SOCKET, DYNO_HOST or DYNO_CTX, else for the one that was chosen."
)]
pub(crate) struct Ctx {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Give a machine a name
    Add(Add),
    /// Choose the machine that commands are for
    Use(Named),
    /// List machines; the chosen one has a star
    Ls(Ls),
    /// Forget machines
    Rm(Rm),
}

#[derive(Debug, Args)]
struct Add {
    /// Its name
    name: ContextName,
    /// As ssh calls it, USER@HOST:PORT, or ssh://HOST/SOCKET
    host: Destination,
    /// Choose it as well
    #[arg(long)]
    r#use: bool,
}

#[derive(Debug, Args)]
struct Named {
    /// A name; local is this machine
    name: ContextName,
}

#[derive(Debug, Args)]
struct Ls {
    /// Only names
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct Rm {
    /// Names of machines
    #[arg(required = true, value_name = "NAME")]
    names: Vec<ContextName>,
}

/// A machine as `ctx ls --json` writes it.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    /// None for this machine.
    host: Option<String>,
    current: bool,
}

impl Ctx {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut contexts = Contexts::load()?;
        match self.command {
            Command::Ls(ls) => return ls.run(&contexts, context),
            Command::Add(add) => {
                contexts.add(add.name.clone(), add.host)?;
                if add.r#use {
                    contexts.choose(add.name)?;
                }
            }
            Command::Use(Named { name }) => contexts.choose(name)?,
            Command::Rm(rm) => rm.names.iter().try_for_each(|name| contexts.remove(name))?,
        }
        contexts.save()?;
        Ok(0)
    }
}

impl Ls {
    fn run(self, contexts: &Contexts, context: &Context) -> Result<u8, Failure> {
        let local = (LOCAL.to_owned(), None);
        let others = contexts
            .all()
            .map(|(name, host)| (name.to_string(), Some(host.to_string())));
        let rows: Vec<Row> = std::iter::once(local)
            .chain(others)
            .map(|(name, host)| Row {
                current: name == contexts.current(),
                name,
                host,
            })
            .collect();
        if self.quiet {
            let names: Vec<String> = rows.into_iter().map(|row| row.name).collect();
            context.output.names(&names)?;
            return Ok(0);
        }
        if context.output.json {
            context.output.document(&rows)?;
            return Ok(0);
        }
        let mut table = Table::new(&["", "NAME", "HOST"]);
        for row in &rows {
            table.row([
                Cell::from(if row.current { "*" } else { "" }),
                Cell::from(row.name.as_str()),
                Cell::from(row.host.as_deref().unwrap_or("this machine")),
            ]);
        }
        context.output.table(&table)?;
        Ok(0)
    }
}
