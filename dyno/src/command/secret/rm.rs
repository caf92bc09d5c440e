//! `dyno secret rm`.

use clap::Args;

use crate::command::Context;
use crate::failure::Failure;

/// Remove secrets
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Also those that dynos are given: they cannot be started again then
    #[arg(short, long)]
    force: bool,
    /// Names
    #[arg(required = true, value_name = "SECRET")]
    secrets: Vec<String>,
}

impl Rm {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let force = self.force;
        context
            .each(self.secrets, move |client, secret| async move {
                client.remove_secret(&secret, force).await
            })
            .await
    }
}
