//! `dyno ctx`: machines by name, and the one that commands are for.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use dyno_api::client::Secret;
use serde::Serialize;

use super::Context;
use crate::failure::Failure;
use crate::hostd::{ContextName, Contexts, Entry, LOCAL, Machine, https};
use crate::output::Table;
use crate::output::table::Cell;
use crate::terminal;

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
    /// As ssh calls it, USER@HOST:PORT, or ssh://HOST/SOCKET; https://HOST:PORT where
    /// hostd listens itself
    host: Machine,
    /// Choose it as well
    #[arg(long)]
    r#use: bool,
    /// With https: who signs for it, sha256:HEX or a file of the certificate, also DYNO_CA
    #[arg(long, value_name = "HASH|FILE")]
    ca: Option<String>,
    /// With https: file of the token's secret [default: DYNO_TOKEN, else the standard input]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// With https: file of a certificate and its key, instead of a token; it stays where it is
    #[arg(long, value_name = "FILE", conflicts_with = "token_file")]
    cert: Option<PathBuf>,
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
            Command::Add(add) => return add.run(contexts),
            Command::Use(Named { name }) => contexts.choose(name)?,
            Command::Rm(rm) => {
                for name in &rm.names {
                    contexts.remove(name)?;
                    https::forget(name)?;
                }
            }
        }
        contexts.save()?;
        Ok(0)
    }
}

impl Add {
    fn run(self, mut contexts: Contexts) -> Result<u8, Failure> {
        let Self {
            name,
            host,
            ca,
            token_file,
            cert,
            ..
        } = self;
        let ca = match &host {
            Machine::Https(to) => {
                let ca = ca
                    .or_else(|| std::env::var(https::CA).ok())
                    .ok_or_else(|| {
                        Failure::usage(format!("{to} needs the hash of its authority"))
                            .hint("--ca sha256:…, as `dyno token create` tells it on the host")
                    })?;
                Some(https::authority(&ca)?)
            }
            Machine::Ssh(_) if ca.is_some() || token_file.is_some() || cert.is_some() => {
                let message = format!("{host} is reached over ssh: it has no --ca and no token");
                return Err(Failure::usage(message).hint("https://HOST:PORT"));
            }
            Machine::Ssh(_) => None,
        };
        let cert = match cert {
            Some(path) => Some(usable(&path)?),
            None => None,
        };
        let is_shown_a_secret = ca.is_some() && cert.is_none();
        contexts.add(name.clone(), Entry { host, ca, cert })?;
        if self.r#use {
            contexts.choose(name.clone())?;
        }
        if is_shown_a_secret {
            https::keep(&name, &secret(token_file)?)?;
        }
        match contexts.save() {
            Ok(()) => Ok(0),
            Err(failure) => https::forget(&name).and(Err(failure)),
        }
    }
}

/// The whole path of a file that has a certificate and its key.
fn usable(path: &Path) -> Result<PathBuf, Failure> {
    https::identity(path)?;
    std::path::absolute(path)
        .map_err(|error| Failure::io(format!("cannot find {}", path.display()), &error))
}

/// From where others do not see it: a file, a variable, the standard input.
fn secret(file: Option<PathBuf>) -> Result<Secret, Failure> {
    if let Some(path) = file {
        return https::secret_in(&path);
    }
    if let Some(secret) = std::env::var_os(https::TOKEN).filter(|value| !value.is_empty()) {
        return https::secret_of(&secret.to_string_lossy(), https::TOKEN);
    }
    if terminal::is_interactive() {
        return Err(Failure::usage("a token is not typed at a terminal")
            .hint("--token-file FILE, DYNO_TOKEN=…, or pipe it in"));
    }
    let mut text = String::new();
    let most = 4096;
    let read = io::stdin().take(most).read_to_string(&mut text);
    read.map_err(|error| Failure::io("cannot read a token from the standard input", &error))?;
    https::secret_of(&text, "the standard input")
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
        context
            .output
            .list(&rows, self.quiet, |one| one.name.clone(), table)?;
        Ok(0)
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&["", "NAME", "HOST"]);
    for row in rows {
        table.row([
            Cell::from(if row.current { "*" } else { "" }),
            Cell::from(row.name.as_str()),
            Cell::from(row.host.as_deref().unwrap_or("this machine")),
        ]);
    }
    table
}
