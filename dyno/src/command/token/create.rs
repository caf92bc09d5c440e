//! `dyno token create`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use dyno_api::name::DynoName;
use dyno_api::token::{CertificateSpec, Endpoint, Scope, TokenSpec};

use super::key::NewKey;
use crate::command::Context;
use crate::failure::Failure;
use crate::value::duration;

/// Make a token, and show its secret, once
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// What it is good for: read, logs, run, secrets, host; several with commas, or the
    /// option again
    #[arg(
        long = "scope",
        required = true,
        value_name = "SCOPE",
        value_delimiter = ','
    )]
    scopes: Vec<Scope>,
    /// How long it is good, such as 12h or 30d [default: until it is taken away]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    expires: Option<Duration>,
    /// Make a key here and a certificate of it instead of a secret; both go to this new file
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its name
    name: DynoName,
}

impl Create {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let spec = TokenSpec {
            name: self.name,
            scopes: self.scopes.into_iter().collect(),
            expires_in: self.expires.map(|expires| expires.as_secs()),
        };
        if let Some(path) = &self.cert {
            return certify(context, spec, path).await;
        }
        let new = context.client().await?.create_token(&spec).await?;
        if context.output.json {
            context.output.document(&new)?;
            return Ok(0);
        }
        context.output.line(&new.secret)?;
        tell(new.endpoint.as_ref())?;
        Ok(0)
    }
}

/// Makes a key, whose private half stays here, and has its public half signed.
async fn certify(context: &Context, token: TokenSpec, path: &Path) -> Result<u8, Failure> {
    let client = context.client().await?;
    let mut key = NewKey::make(path)?;
    let public_key = key.public.clone();
    let spec = CertificateSpec { token, public_key };
    let new = match client.create_certificate(&spec).await {
        Ok(new) => new,
        Err(error) => return Err(key.withdraw(error.into())),
    };
    key.add(&new.certificate)?;
    if context.output.json {
        context.output.document(&new)?;
        return Ok(0);
    }
    context.output.line(&path.to_string_lossy())?;
    let Endpoint { address, ca } = &new.endpoint;
    writeln!(
        io::stderr(),
        "It is used at https://{address}: dyno ctx add NAME https://{address} --ca {ca} --cert {}",
        path.display()
    )?;
    Ok(0)
}

/// What it is used with, beside the secret, which is alone on the standard output.
fn tell(endpoint: Option<&Endpoint>) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    match endpoint {
        Some(Endpoint { address, ca }) => writeln!(
            stderr,
            "This secret is not shown again. It is used at https://{address}, which shows a \
             certificate signed by {ca}: dyno ctx add NAME https://{address} --ca {ca}"
        ),
        None => writeln!(
            stderr,
            "This secret is not shown again. hostd listens on its socket alone: `hostd serve \
             --listen ADDRESS:PORT` has it be reached from elsewhere."
        ),
    }
}
