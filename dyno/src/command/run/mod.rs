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
mod spec;

use clap::{Args, ValueEnum};
use dyno_api::client::Client;
use dyno_api::dyno::{Dyno, DynoSpec};
use dyno_api::error::ErrorKind;
use dyno_api::image::PullRequest;
use dyno_api::query::CreateQuery;

use self::spec::SpecArgs;
use super::attach::DetachArgs;
use super::{Context, credentials, pull};
use crate::failure::Failure;
use crate::output::progress::Told;
use crate::session::Streams;
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
enum PullWhen {
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
        let spec = self.spec.into_spec(image, words.collect(), &cwd)?;
        let spec = DynoSpec {
            tty: streams.tty,
            stdin: streams.stdin,
            rm: self.rm,
            ..spec
        };
        let client = context.client().await?;
        if !self.detach {
            return foreground::run(&client, &spec, self.pull, &streams).await;
        }
        let dyno = create(&client, &spec, self.pull, CreateQuery { start: true }).await?;
        if context.output.json {
            context.output.document(&dyno)?;
        } else {
            context.output.line(dyno.id.as_str())?;
        }
        Ok(0)
    }
}

/// Creates the dyno, having pulled its image where that is wanted.
async fn create(
    client: &Client,
    spec: &DynoSpec,
    when: PullWhen,
    query: CreateQuery,
) -> Result<Dyno, Failure> {
    let built_in = spec.image == BUILT_IN_IMAGE;
    if when == PullWhen::Always && !built_in {
        pull_image(client, spec).await?;
    }
    let refusal = match client.create(spec, query).await {
        Ok(dyno) => return Ok(dyno),
        Err(error) => Failure::from(error),
    };
    let image_is_there = built_in || refusal.kind() != Some(ErrorKind::NotFound) || {
        let images = client.images().await?;
        let wanted = reference::full(&spec.image);
        images.iter().any(|image| image.reference == wanted)
    };
    match when {
        PullWhen::Missing if !image_is_there => {
            pull_image(client, spec).await?;
            let created = client.create(spec, query).await;
            created.map_err(|error| started_or_not(error.into(), query))
        }
        _ if image_is_there => Err(started_or_not(refusal, query)),
        _ => Err(refusal),
    }
}

/// A refusal of the dyno itself, or of the execution of its command.
fn started_or_not(refusal: Failure, query: CreateQuery) -> Failure {
    if query.start {
        refusal.not_executed()
    } else {
        refusal
    }
}

async fn pull_image(client: &Client, spec: &DynoSpec) -> Result<(), Failure> {
    let request = PullRequest {
        reference: spec.image.clone(),
        platform: spec.platform.clone(),
        credentials: credentials::of_docker(&spec.image)?,
        plain_http: false,
    };
    pull::pull(client, &request, Told::people()).await.map(drop)
}
