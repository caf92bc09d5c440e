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
/// Each is asked to end before those that it comes after. Secrets whose values are in
/// files beside a compose file go, too.
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
            let name = volume.name.as_str();
            gone.extend(if_there(client.remove_volume(name, false).await, name)?);
        }
        for secret in &app.secrets {
            let name = secret.name.as_str();
            gone.extend(if_there(client.remove_secret(name, false).await, name)?);
        }
        context.output.names(&gone)?;
        Ok(0)
    }
}

/// The name of what was removed, where it was there.
fn if_there(removed: Result<(), client::Error>, name: &str) -> Result<Option<String>, Failure> {
    match removed {
        Ok(()) => Ok(Some(name.to_owned())),
        Err(client::Error::Api(error)) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
