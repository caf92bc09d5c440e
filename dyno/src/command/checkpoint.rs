//! `dyno checkpoint`: save the processes of a dyno.

use clap::Args;
use dyno_api::checkpoint::CheckpointRequest;
use dyno_api::name::DynoName;

use super::Context;
use crate::failure::Failure;

/// Save the processes of a dyno that runs, by CRIU; it ends then, and `dyno restore` brings it back
#[derive(Debug, Args)]
pub(crate) struct Checkpoint {
    /// Let it run on
    #[arg(long)]
    leave_running: bool,
    /// With the TCP connections that it has
    #[arg(long)]
    tcp_established: bool,
    /// Id or name
    #[arg(value_name = "DYNO")]
    dyno: String,
    /// Name of the checkpoint [default: the time]
    name: Option<DynoName>,
}

impl Checkpoint {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let request = CheckpointRequest {
            name: self.name,
            leave_running: self.leave_running,
            tcp_established: self.tcp_established,
        };
        let client = context.client().await?;
        let made = client.checkpoint(&self.dyno, &request).await?;
        match context.output.json {
            true => context.output.document(&made)?,
            false => context
                .output
                .line(&format!("{}@{}", self.dyno, made.name))?,
        }
        Ok(0)
    }
}
