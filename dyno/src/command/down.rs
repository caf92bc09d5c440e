//! `dyno down`: take an app away.

use clap::Args;
use dyno_api::client;
use dyno_api::error::ErrorKind;

use super::Context;
use super::up::FileArgs;
use crate::app;
use crate::failure::Failure;

/// End and remove the dynos of an app; volumes stay
///
/// Each is asked to end before those that it comes after.
#[derive(Debug, Args)]
pub(crate) struct Down {
    #[command(flatten)]
    file: FileArgs,
    /// Remove its volumes and their data, too; not those that are external
    #[arg(long)]
    volumes: bool,
}

impl Down {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let app = self.file.load()?;
        let client = context.client().await?;
        let mut gone = app::bring_down(&client, &app.name).await?;
        let volumes = app.volumes.iter().filter(|volume| !volume.external);
        for volume in volumes.filter(|_| self.volumes) {
            match client.remove_volume(volume.name.as_str(), false).await {
                Ok(()) => gone.push(volume.name.to_string()),
                Err(client::Error::Api(error)) if error.kind == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        context.output.names(&gone)?;
        Ok(0)
    }
}
