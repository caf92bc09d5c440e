//! `dyno volume snapshot`.

use clap::Args;
use dyno_api::name::DynoName;
use dyno_api::volume::SnapshotRequest;

use crate::command::Context;
use crate::failure::Failure;

/// Keep a volume's files as they are now; dynos that write to it are paused meanwhile
#[derive(Debug, Args)]
pub(crate) struct TakeSnapshot {
    /// Do not pause them
    #[arg(long)]
    live: bool,
    /// The volume
    volume: DynoName,
    /// Name of the snapshot [default: the time]
    name: Option<DynoName>,
}

impl TakeSnapshot {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let request = SnapshotRequest {
            name: self.name,
            live: self.live,
        };
        let client = context.client().await?;
        let snapshot = client.snapshot(self.volume.as_str(), &request).await?;
        match context.output.json {
            true => context.output.document(&snapshot)?,
            false => context
                .output
                .line(&format!("{}@{}", self.volume, snapshot.name))?,
        }
        Ok(0)
    }
}
