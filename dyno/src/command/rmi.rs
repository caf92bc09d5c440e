//! `dyno rmi`: remove images.

use clap::Args;

use super::Context;
use crate::failure::Failure;

/// Remove images, and the layers that no other image needs
#[derive(Debug, Args)]
pub(crate) struct Rmi {
    /// References
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Rmi {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        context
            .each(self.images, |client, image| async move {
                client.remove_image(&image).await
            })
            .await
    }
}
