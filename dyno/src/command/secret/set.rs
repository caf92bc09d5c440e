//! `dyno secret set`: its value never is an argument, which others can see.

use clap::Args;
use dyno_api::secret::{SECRET_MAX_BYTES, SecretName};
use tokio::io::AsyncReadExt;

use crate::command::{Context, load};
use crate::failure::Failure;

/// Set a secret's value; dynos get it at their next start
#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Name: letters, digits, `.`, `_` and `-`
    name: SecretName,
    /// File of the value, as it is; - is the standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    file: String,
}

impl Set {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let source = load::open_for(&self.file, "a value").await?;
        let most = u64::try_from(SECRET_MAX_BYTES).unwrap_or(u64::MAX) + 1;
        let mut value = Vec::new();
        source
            .take(most)
            .read_to_end(&mut value)
            .await
            .map_err(|error| Failure::io("cannot read the value", &error))?;
        if value.len() > SECRET_MAX_BYTES {
            let message = format!("a secret holds at most {SECRET_MAX_BYTES} bytes");
            return Err(Failure::usage(message));
        }
        let client = context.client().await?;
        let secret = client.set_secret(self.name.as_str(), value.into()).await?;
        match context.output.json {
            true => context.output.document(&secret)?,
            false => context.output.line(secret.name.as_str())?,
        }
        Ok(0)
    }
}
