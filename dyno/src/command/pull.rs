//! `dyno pull`: fetch an image.

use std::io::Read;

use clap::Args;
use dyno_api::client::Client;
use dyno_api::image::{Credentials, Image, PullRequest};

use super::{Context, credentials};
use crate::failure::Failure;
use crate::output::progress::Told;
use crate::value::platform;

/// The longest password that is read, in bytes.
const PASSWORD_MAX: u64 = 64 * 1024;

/// Fetch an image from its registry
///
/// Credentials are those of the flags, else those that `docker login` keeps for
/// that registry in config.json; none are sent anywhere else.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// User name for the registry
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    username: Option<String>,
    /// Read the password from the standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Speak plain http to this registry
    #[arg(long)]
    plain_http: bool,
    /// os/architecture[/variant] [default: the host's own]
    #[arg(long, value_name = "PLATFORM", value_parser = platform::parse)]
    platform: Option<String>,
    /// Reference, such as debian:12 or registry.example/app@sha256:…
    reference: String,
}

impl Pull {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let credentials = match self.username {
            Some(username) => Some(Credentials {
                username,
                password: read_password()?,
            }),
            None => credentials::of_docker(&self.reference)?,
        };
        let request = PullRequest {
            reference: self.reference,
            platform: self.platform,
            credentials,
            plain_http: self.plain_http,
        };
        let client = context.client().await?;
        let images = pull(&client, &request, Told::for_output(context.output)).await?;
        written(context, &images)
    }
}

/// Pulls, tells the progress, and returns the image.
pub(super) async fn pull(
    client: &Client,
    request: &PullRequest,
    told: Told,
) -> Result<Vec<Image>, Failure> {
    told.follow(client.pull(request).await?).await
}

/// Writes which images are ready, unless the progress told it.
pub(super) fn written(context: &Context, images: &[Image]) -> Result<u8, Failure> {
    if !context.output.json {
        for image in images {
            context
                .output
                .line(&format!("{} {}", image.reference, image.digest))?;
        }
    }
    Ok(0)
}

fn read_password() -> Result<String, Failure> {
    let mut password = String::new();
    std::io::stdin()
        .take(PASSWORD_MAX)
        .read_to_string(&mut password)
        .map_err(|error| Failure::io("cannot read the password from the standard input", &error))?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Failure::usage("the standard input holds no password")
            .hint("dyno pull --username NAME --password-stdin IMAGE < FILE"));
    }
    Ok(password.to_owned())
}
