//! `dyno volume import`.

use clap::Args;
use dyno_api::name::DynoName;
use dyno_api::query::QuotaQuery;

use super::{QuotaArgs, written};
use crate::command::{Context, load};
use crate::failure::Failure;

/// Make a volume of a tar archive, plain or compressed
#[derive(Debug, Args)]
pub(crate) struct Import {
    #[command(flatten)]
    quota: QuotaArgs,
    /// Name of the volume
    name: DynoName,
    /// The archive; - is the standard input
    #[arg(default_value = "-")]
    file: String,
}

impl Import {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let archive = load::open(&self.file).await?;
        let query = QuotaQuery {
            quota_bytes: self.quota.quota,
            quota_inodes: self.quota.inodes,
        };
        let client = context.client().await?;
        let volume = client
            .import_volume(self.name.as_str(), &query, archive)
            .await?;
        written(context, &volume)
    }
}
