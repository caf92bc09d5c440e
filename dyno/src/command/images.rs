//! `dyno images`: list images.

use clap::Args;
use dyno_api::image::Image;
use jiff::Timestamp;

use super::Context;
use crate::failure::Failure;
use crate::output::Table;
use crate::output::progress::short;
use crate::output::table::Cell;
use crate::value::duration::human_age;
use crate::value::size;

/// List the images that are ready to run
#[derive(Debug, Args)]
pub(crate) struct Images {
    /// Only references
    #[arg(short, long)]
    quiet: bool,
}

impl Images {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let images = context.client().await?.images().await?;
        context
            .output
            .list(&images, self.quiet, |one| one.reference.clone(), table)?;
        Ok(0)
    }
}

fn table(images: &[Image]) -> Table {
    let mut table = Table::new(&[
        "REFERENCE",
        "DIGEST",
        "PLATFORM",
        ">SIZE",
        ">LAYERS",
        "CREATED",
    ]);
    let now = Timestamp::now();
    for image in images {
        let age = image
            .created
            .map(|created| format!("{} ago", human_age(created, now)));
        table.row([
            Cell::from(image.reference.as_str()),
            Cell::from(short(&image.digest)),
            Cell::from(image.platform.as_str()),
            Cell::from(size::human(image.size_bytes)).right(),
            Cell::from(image.layers.to_string()).right(),
            Cell::from(age.unwrap_or_default()),
        ]);
    }
    table
}
