//! `dyno volume rollback`.

use clap::Args;
use dyno_api::volume::{RollbackRequest, VolumeSource};

use super::written;
use crate::command::Context;
use crate::failure::Failure;
use crate::value::volume;

/// Give a volume the files of one of its snapshots; those that it has are lost
#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The snapshot
    #[arg(value_name = "VOLUME@SNAPSHOT", value_parser = volume::parse)]
    to: VolumeSource,
}

impl Rollback {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let VolumeSource { volume, snapshot } = self.to;
        let Some(snapshot) = snapshot else {
            return Err(Failure::usage(format!("{volume} names no snapshot"))
                .hint(format!("`dyno volume snapshots {volume}` lists them")));
        };
        let client = context.client().await?;
        let request = RollbackRequest { snapshot };
        written(context, &client.roll_back(volume.as_str(), &request).await?)
    }
}
