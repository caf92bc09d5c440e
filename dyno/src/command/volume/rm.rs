//! `dyno volume rm`.

use clap::Args;

use crate::command::Context;
use crate::failure::Failure;

/// Remove volumes that no dyno mounts, or snapshots
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// With their snapshots
    #[arg(short, long)]
    force: bool,
    /// Volumes, or snapshots
    #[arg(required = true, value_name = "VOLUME[@SNAPSHOT]")]
    volumes: Vec<String>,
}

impl Rm {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let force = self.force;
        context
            .each(self.volumes, move |client, name| async move {
                match name.split_once('@') {
                    Some((volume, snapshot)) => client.remove_snapshot(volume, snapshot).await,
                    None => client.remove_volume(&name, force).await,
                }
            })
            .await
    }
}
