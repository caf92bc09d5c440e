//! `dyno events`: what happens on the host.

use clap::Args;
use dyno_api::event::{Event, What};
use dyno_api::query::EventsQuery;

use super::{Context, status};
use crate::failure::Failure;

/// Show what happens on the host, as it happens
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Begin after the event with this sequence number, as far back as is kept
    #[arg(long, value_name = "SEQUENCE")]
    since: Option<u64>,
    /// End with the events that there are
    #[arg(long)]
    no_follow: bool,
}

impl Events {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let query = EventsQuery {
            since: self.since,
            follow: !self.no_follow,
        };
        let mut events = context.client().await?.events(&query).await?;
        while let Some(event) = events.next().await? {
            if context.output.json {
                context.output.json_line(&event)?;
            } else {
                context.output.line(&text(&event))?;
            }
        }
        Ok(0)
    }
}

fn text(event: &Event) -> String {
    let what = match &event.what {
        What::DynoCreated { name, .. } => format!("dyno {name} created"),
        What::DynoStarted { name, .. } => format!("dyno {name} started"),
        What::DynoExited { name, exit, .. } if exit.oom => {
            format!("dyno {name} exited ({}, out of memory)", exit.code)
        }
        What::DynoExited { name, exit, .. } => format!("dyno {name} exited ({})", exit.code),
        What::DynoRestarting {
            name,
            restarts,
            delay_ms,
            crash_loop,
            ..
        } => {
            let word = if *crash_loop { ", crash loop" } else { "" };
            format!("dyno {name} starts again in {delay_ms} ms (restart {restarts}{word})")
        }
        What::DynoLost { name, .. } => format!("dyno {name} lost: its monitor vanished"),
        What::DynoHealth {
            name,
            health,
            reason,
            ..
        } => {
            let health = status::health_word(*health);
            let why = reason.as_ref().map(|reason| format!(": {reason}"));
            format!("dyno {name} {health}{}", why.unwrap_or_default())
        }
        What::DynoRemoved { name, .. } => format!("dyno {name} removed"),
        What::ImageReady { reference, .. } => format!("image {reference} ready"),
        What::ImageRemoved { reference } => format!("image {reference} removed"),
    };
    format!("{:.3} {} {what}", event.time, event.sequence)
}
