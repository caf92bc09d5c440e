//! `dyno run`: create a dyno and start it.
//!
//! ```text
//! (pull) ─▶ create ─▶ start                          -d
//! (pull) ─▶ create ─▶ attach ─▶ start ─▶ streams     foreground
//! ```
//! The order of the second line is what makes it whole: who attaches before
//! the start misses nothing.

pub(crate) mod environment;
mod foreground;
mod given;
mod health;
mod logs;
mod spec;

use std::io;

use clap::{Args, ValueEnum};
use dyno_api::client::{self, Client};
use dyno_api::drain::DrainSpec;
use dyno_api::dyno::{Dyno, DynoSpec};
use dyno_api::error::ErrorKind;
use dyno_api::image::PullRequest;
use dyno_api::query::{CreateQuery, RemoveQuery};

use self::spec::SpecArgs;
use super::attach::DetachArgs;
use super::{Context, credentials, pull};
use crate::failure::Failure;
use crate::output::progress::Told;
use crate::session::{Input, Streams};
use crate::value::reference;

/// The image that is always there and comes from no registry.
const BUILT_IN_IMAGE: &str = "host";

/// Create a dyno and start it
///
/// In the foreground its standard streams, signals and exit code are passed
/// through. Flags go before the image; what follows it is the dyno's.
#[derive(Debug, Args)]
#[command(override_usage = "dyno run [OPTIONS] IMAGE [COMMAND [ARG]...]")]
pub(crate) struct Run {
    /// Forward the standard input
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Start it and leave, writing its id
    #[arg(short, long)]
    detach: bool,
    /// Remove it once it has ended
    #[arg(long)]
    rm: bool,
    /// Send what it writes there, too: syslog+tls://HOST, https://HOST/PATH
    #[arg(long, value_name = "URL")]
    drain: Vec<String>,
    /// When to pull the image
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pull: PullWhen,
    #[command(flatten)]
    keys: DetachArgs,
    #[command(flatten)]
    spec: SpecArgs,
    /// Image reference, or `host` for this machine's own programs; then the
    /// program and its arguments [default: the image's]
    // One list: what stands behind its first word is never a flag of ours.
    #[arg(required = true, value_name = "IMAGE", trailing_var_arg = true)]
    words: Vec<String>,
}

/// When an image is pulled before a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullWhen {
    /// Where it is not here
    #[default]
    Missing,
    /// Each time
    Always,
    /// Not at all
    Never,
}

impl Run {
    /// Image, program and arguments.
    #[cfg(test)]
    pub(crate) fn words(&self) -> &[String] {
        &self.words
    }

    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        self.create_and_start(context)
            .await
            .map_err(Failure::not_run)
    }

    async fn create_and_start(self, context: &Context) -> Result<u8, Failure> {
        let streams = Streams {
            tty: self.tty,
            stdin: self.interactive,
            detach_keys: self.keys.detach_keys,
        };
        let cwd = std::env::current_dir()
            .map_err(|error| Failure::io("cannot tell the working directory", &error))?;
        let mut words = self.words.into_iter();
        let image = words.next().unwrap_or_default();
        let spec = self
            .spec
            .into_spec(image, crate::command::command(words), &cwd)?;
        let spec = DynoSpec {
            tty: streams.tty,
            stdin: streams.stdin,
            rm: self.rm,
            ..spec
        };
        let client = context.client().await?;
        let dyno = create(&client, &spec, self.pull).await?;
        for url in self.drain {
            if let Err(error) = add_drain(&client, &dyno, url).await {
                remove(&client, &dyno).await;
                return Err(error.into());
            }
        }
        if !self.detach {
            return foreground::run(&client, &dyno, &streams).await;
        }
        let dyno = start(&client, &dyno).await?;
        if context.output.json {
            context.output.document(&dyno)?;
        } else {
            context.output.line(dyno.id.as_str())?;
        }
        Ok(0)
    }
}

/// Creates the dyno, having pulled its image where that is wanted.
async fn create(client: &Client, spec: &DynoSpec, when: PullWhen) -> Result<Dyno, Failure> {
    let unstarted = CreateQuery { start: false };
    let built_in = spec.image == BUILT_IN_IMAGE;
    if when == PullWhen::Always {
        pull_image(client, spec).await?;
    }
    let refusal = match client.create(spec, unstarted).await {
        Ok(dyno) => return Ok(dyno),
        Err(error) => Failure::from(error),
    };
    let not_found = refusal.kind() == Some(ErrorKind::NotFound) && !built_in;
    if when != PullWhen::Missing || !not_found || is_there(client, spec).await? {
        return Err(refusal);
    }
    pull_image(client, spec).await?;
    Ok(client.create(spec, unstarted).await?)
}

/// Whether the image is on the host.
pub(crate) async fn is_there(client: &Client, spec: &DynoSpec) -> Result<bool, Failure> {
    if spec.image == BUILT_IN_IMAGE {
        return Ok(true);
    }
    let wanted = reference::full(&spec.image);
    let here = client.images().await?;
    Ok(here.iter().any(|image| {
        let platform = spec.platform.as_ref();
        image.reference == wanted && platform.is_none_or(|platform| *platform == image.platform)
    }))
}

/// Sends what the dyno writes somewhere, from its first line on.
async fn add_drain(client: &Client, dyno: &Dyno, url: String) -> Result<(), client::Error> {
    let spec = DrainSpec {
        url,
        dyno: Some(dyno.id.to_string()),
        ..DrainSpec::default()
    };
    client.add_drain(&spec).await.map(drop)
}

/// Starts what was created. What cannot be started is removed again.
async fn start(client: &Client, dyno: &Dyno) -> Result<Dyno, Failure> {
    // A signal between the two steps waits for the second.
    let input = Input::listen()?;
    let started = client.start(dyno.id.as_str()).await;
    drop(input);
    match started {
        Ok(dyno) => Ok(dyno),
        Err(error) => {
            remove(client, dyno).await;
            Err(Failure::from(error).not_executed())
        }
    }
}

/// Removes what could not be started.
async fn remove(client: &Client, dyno: &Dyno) {
    let removed = client
        .remove(dyno.id.as_str(), RemoveQuery { force: true })
        .await;
    match removed.map_err(Failure::from) {
        Ok(()) => {}
        Err(failure) if failure.kind() == Some(ErrorKind::NotFound) => {}
        Err(failure) => failure.render(&mut io::stderr().lock()).unwrap_or_default(),
    }
}

/// Pulls the image, which may be the built-in one.
pub(crate) async fn pull_image(client: &Client, spec: &DynoSpec) -> Result<(), Failure> {
    if spec.image == BUILT_IN_IMAGE {
        return Ok(());
    }
    let request = PullRequest {
        reference: spec.image.clone(),
        platform: spec.platform.clone(),
        credentials: credentials::of_docker(&spec.image)?,
        plain_http: false,
    };
    pull::pull(client, &request, Told::people()).await.map(drop)
}
