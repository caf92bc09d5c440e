//! `dyno volume create`.

use clap::Args;
use dyno_api::name::DynoName;
use dyno_api::volume::{BackupHooks, VolumeSpec};

use super::{BackupArgs, QuotaArgs, written};
use crate::command::Context;
use crate::failure::Failure;

/// Make an empty volume; `run -v` makes one that is missing by itself
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Its name
    name: DynoName,
    #[command(flatten)]
    quota: QuotaArgs,
    #[command(flatten)]
    backup: BackupArgs,
}

impl Create {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let spec = VolumeSpec {
            name: self.name,
            quota: self.quota.into(),
            from: None,
            live: false,
            backup: BackupHooks::default().changed(self.backup.into()),
        };
        let volume = context.client().await?.create_volume(&spec).await?;
        written(context, &volume)
    }
}
