//! `dyno volume clone`.

use clap::Args;
use dyno_api::name::DynoName;
use dyno_api::volume::{BackupHooks, VolumeSource, VolumeSpec};

use super::{QuotaArgs, written};
use crate::command::Context;
use crate::failure::Failure;
use crate::value::volume;

/// Make a volume of the files of another one, or of a snapshot
#[derive(Debug, Args)]
pub(crate) struct CloneVolume {
    /// Do not pause the dynos that write to it meanwhile
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    quota: QuotaArgs,
    /// The volume or snapshot
    #[arg(value_name = "VOLUME[@SNAPSHOT]", value_parser = volume::parse)]
    from: VolumeSource,
    /// Name of the new volume
    name: DynoName,
}

impl CloneVolume {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let spec = VolumeSpec {
            name: self.name,
            quota: self.quota.into(),
            from: Some(self.from),
            live: self.live,
            backup: BackupHooks::default(),
        };
        let volume = context.client().await?.create_volume(&spec).await?;
        written(context, &volume)
    }
}
