//! `dyno drain`: where what dynos write is sent.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use dyno_api::drain::{self, DrainSpec};
use dyno_api::name::DynoName;

use super::Context;
use crate::failure::Failure;
use crate::output::Table;
use crate::output::table::Cell;

/// Send what dynos write elsewhere
#[derive(Debug, Args)]
pub(crate) struct Drain {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send output from now on
    Add(Add),
    /// List drains and how they are
    Ls(Ls),
    /// Send nothing more there
    Rm(Rm),
}

#[derive(Debug, Args)]
struct Add {
    /// syslog+tls://HOST or https://HOST/PATH; without encryption
    /// syslog+tcp://HOST:PORT or http://HOST/PATH
    url: String,
    /// One dyno [default: all]
    #[arg(long, value_name = "DYNO")]
    dyno: Option<String>,
    /// Name [default: made up]
    #[arg(long)]
    name: Option<DynoName>,
    /// Certificates (PEM) to trust instead of those that the host trusts
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Ls {
    /// Only names
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct Rm {
    /// Names of drains
    #[arg(required = true, value_name = "DRAIN")]
    drains: Vec<String>,
}

impl Drain {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self.command {
            Command::Add(add) => add.run(context).await,
            Command::Ls(ls) => ls.run(context).await,
            Command::Rm(rm) => {
                let remove = |client: dyno_api::client::Client, drain: String| async move {
                    client.remove_drain(&drain).await
                };
                context.each(rm.drains, remove).await
            }
        }
    }
}

impl Add {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let read = |path: PathBuf| {
            fs::read_to_string(&path)
                .map_err(|error| Failure::io(format!("cannot read {}", path.display()), &error))
        };
        let spec = DrainSpec {
            name: self.name,
            url: self.url,
            dyno: self.dyno,
            ca: self.ca.map(read).transpose()?,
        };
        let drain = context.client().await?.add_drain(&spec).await?;
        if context.output.json {
            context.output.document(&drain)?;
        } else {
            context.output.line(drain.name.as_str())?;
        }
        Ok(0)
    }
}

impl Ls {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let drains = context.client().await?.drains().await?;
        context
            .output
            .list(&drains, self.quiet, |one| one.name.to_string(), table)?;
        Ok(0)
    }
}

fn table(drains: &[drain::Drain]) -> Table {
    let header = ["NAME", "DYNO", "URL", "STATUS", ">SENT", ">DROPPED"];
    let mut table = Table::new(&header);
    for drain in drains {
        let dyno = drain.dyno_name.as_ref().map_or("all", DynoName::as_str);
        table.row([
            Cell::from(drain.name.as_str()),
            Cell::from(dyno),
            Cell::from(drain.url.as_str()),
            Cell::from(status(drain)),
            Cell::from(drain.status.sent.to_string()).right(),
            Cell::from(dropped(drain)).right(),
        ]);
    }
    table
}

fn status(drain: &drain::Drain) -> String {
    match &drain.status.error {
        Some(error) => error.clone(),
        None if drain.status.connected => "connected".to_owned(),
        None => "waiting".to_owned(),
    }
}

/// Files that went unread are there beside what could be counted.
fn dropped(drain: &drain::Drain) -> String {
    match drain.status.missed_files {
        0 => drain.status.dropped.to_string(),
        files => format!("{} + {files} files", drain.status.dropped),
    }
}
