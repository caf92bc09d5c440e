//! `dyno up`: bring up the dynos of an app.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use dyno_api::client::Client;
use dyno_api::name::DynoName;

use super::Context;
use super::run::{self, PullWhen};
use crate::app::{self, App, CarryOut, Plan, There};
use crate::failure::Failure;
use crate::value::duration;

/// Bring up the dynos of an app, as its file describes them
///
/// What is as it shall be is left alone, what differs is replaced, and dynos of the
/// app that are not in the file any more are removed. Returns once all of them run,
/// and are ready where they have a check for that.
#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    file: FileArgs,
    /// When to pull images
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pull: PullWhen,
    /// Time until all have to be up
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration::parse)]
    timeout: Duration,
    /// Only these services and those that they come after [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<DynoName>,
}

/// Which app.
#[derive(Debug, Args)]
pub(super) struct FileArgs {
    /// File that describes the app [default: dyno.toml or compose.yaml here]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl FileArgs {
    pub(super) fn load(&self) -> Result<App, Failure> {
        let loaded = app::load(self.file.as_deref())?;
        for note in loaded.notes {
            eprintln!("note: {note}");
        }
        Ok(loaded.app)
    }
}

impl Up {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let app = self.file.load()?;
        let chosen = app.with_those_before(&self.services)?;
        let client = context.client().await?;
        if self.pull == PullWhen::Always {
            for image in app.images(&chosen) {
                run::pull_image(&client, &image).await?;
            }
        }
        let there = look(&client, &app).await?;
        let plan = app::plan(&app, &there, &chosen, self.services.is_empty())?;
        show(context, &plan)?;
        let carry_out = CarryOut {
            client: &client,
            app: &app,
            plan,
            pull: self.pull,
            timeout: self.timeout,
        };
        carry_out.run().await?;
        Ok(0)
    }
}

/// What is on the host.
pub(super) async fn look(client: &Client, app: &App) -> Result<There, Failure> {
    let mut there = There {
        dynos: client.dynos().await?,
        volumes: client
            .volumes()
            .await?
            .into_iter()
            .map(|volume| volume.name)
            .collect(),
        images: client.images().await?,
        secrets: BTreeSet::new(),
    };
    if !app.secrets.is_empty() {
        let secrets = client.secrets().await?.into_iter();
        there.secrets = secrets.map(|secret| secret.name).collect();
    }
    for dyno in &mut there.dynos {
        // Lists do not tell what files hold.
        let of_app = dyno
            .spec
            .service
            .as_ref()
            .is_some_and(|s| s.app == app.name);
        if of_app && !dyno.spec.config_files.is_empty() {
            *dyno = client.dyno(dyno.id.as_str()).await?;
        }
    }
    Ok(there)
}

/// Writes a plan.
pub(super) fn show(context: &Context, plan: &Plan) -> Result<(), Failure> {
    match context.output.json {
        true => context.output.document(plan),
        false => context.output.line(&plan.to_string()),
    }
}
