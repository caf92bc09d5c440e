//! `dyno volume`: data that outlives dynos.

mod clone;
mod create;
mod export;
mod import;
mod info;
mod ls;
mod rm;
mod rollback;
mod set;
mod snapshot;
mod snapshots;

use std::time::Duration;

use clap::{Args, Subcommand};
use dyno_api::volume::{BackupChange, Volume as Made, VolumeQuota};

use super::Context;
use crate::failure::Failure;
use crate::value::limit::or_none;
use crate::value::words::{self, Words};
use crate::value::{duration, size};

/// Keep data that outlives dynos
#[derive(Debug, Args)]
pub(crate) struct Volume {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an empty volume
    Create(create::Create),
    /// List volumes
    Ls(ls::Ls),
    /// Show all about a volume, as JSON
    Info(info::Info),
    /// Change a volume while dynos use it
    Set(set::Set),
    /// Remove volumes or snapshots
    Rm(rm::Rm),
    /// Keep a volume's files as they are now
    Snapshot(snapshot::TakeSnapshot),
    /// List the snapshots of a volume
    Snapshots(snapshots::Snapshots),
    /// Make a volume of the files of another one, or of a snapshot
    Clone(clone::CloneVolume),
    /// Give a volume the files of one of its snapshots
    Rollback(rollback::Rollback),
    /// Write a volume's files, or a snapshot's, as a tar archive
    Export(export::Export),
    /// Make a volume of a tar archive
    Import(import::Import),
}

impl Volume {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self.command {
            Command::Create(command) => command.run(context).await,
            Command::Ls(command) => command.run(context).await,
            Command::Info(command) => command.run(context).await,
            Command::Set(command) => command.run(context).await,
            Command::Rm(command) => command.run(context).await,
            Command::Snapshot(command) => command.run(context).await,
            Command::Snapshots(command) => command.run(context).await,
            Command::Clone(command) => command.run(context).await,
            Command::Rollback(command) => command.run(context).await,
            Command::Export(command) => command.run(context).await,
            Command::Import(command) => command.run(context).await,
        }
    }
}

/// What a new volume may take up.
#[derive(Debug, Default, Args)]
struct QuotaArgs {
    /// What it may take up on disk, such as 10G; the file system has to enforce it
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    quota: Option<u64>,
    /// How many files, folders and links it may have
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    inodes: Option<u64>,
}

impl From<QuotaArgs> for VolumeQuota {
    fn from(quota: QuotaArgs) -> Self {
        Self {
            bytes: quota.quota,
            inodes: quota.inodes,
        }
    }
}

/// What dynos do before and after a copy of a volume.
#[derive(Debug, Default, Args)]
struct BackupArgs {
    /// What each dyno that writes to it runs before a snapshot, clone or export, such as
    /// "psql -c CHECKPOINT"; where it fails nothing is copied
    #[arg(long, value_name = "COMMAND|none", value_parser = words::parse)]
    before_backup: Option<Words>,
    /// What each of them runs afterwards, whatever came of it
    #[arg(long, value_name = "COMMAND|none", value_parser = words::parse)]
    after_backup: Option<Words>,
    /// How long each of these may take [default: 1m]
    #[arg(long, value_name = "DURATION|none", value_parser = or_none(duration::parse))]
    backup_timeout: Option<Duration>,
}

impl From<BackupArgs> for BackupChange {
    fn from(args: BackupArgs) -> Self {
        Self {
            before: args.before_backup.map(|words| words.0),
            after: args.after_backup.map(|words| words.0),
            timeout_ms: args.backup_timeout.map(duration::millis),
        }
    }
}

/// Writes the volume that was made.
fn written(context: &Context, volume: &Made) -> Result<u8, Failure> {
    match context.output.json {
        true => context.output.document(volume)?,
        false => context.output.line(volume.name.as_str())?,
    }
    Ok(0)
}
