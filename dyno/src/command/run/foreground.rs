//! A run that a person waits for.

use std::io;
use std::time::Duration;

use dyno_api::client::{self, Attached, Client};
use dyno_api::dyno::{AttachRequest, Dyno, ExitStatus, Phase};
use dyno_api::error::ErrorKind;
use dyno_api::query::{KillQuery, StopQuery, WaitQuery};
use tokio::time::{Instant, sleep};

use crate::command::attach::{exit_code, left, lost};
use crate::failure::{Failure, code};
use crate::session::{End, Input, Streams, attend};

/// How long a hostd that went away may take until it is back (an upgrade).
const HOSTD_BACK: Duration = Duration::from_secs(10);

/// Between two tries to reach it.
const PAUSE: Duration = Duration::from_millis(50);

/// Attaches to a created dyno, starts it, and passes everything through until
/// it ends. A dyno that could not be started is removed again.
pub(super) async fn run(client: &Client, dyno: &Dyno, streams: &Streams) -> Result<u8, Failure> {
    // From here on a signal is the dyno's: nothing half-made is left behind.
    let mut input = Input::listen()?;
    match start(client, dyno, streams, &mut input).await {
        Ok(attached) => {
            let end = attend(attached, streams, &mut input).await?;
            ended(client, dyno, streams, &mut input, end).await
        }
        Err(failure) => {
            super::remove(client, dyno).await;
            Err(failure)
        }
    }
}

/// Attaches before it starts: nothing is missed.
async fn start(
    client: &Client,
    dyno: &Dyno,
    streams: &Streams,
    input: &mut Input,
) -> Result<Attached, Failure> {
    let id = dyno.id.as_str();
    let request = AttachRequest {
        start: true,
        ..request(streams)
    };
    tokio::select! {
        started = client.attach(id, &request) => {
            started.map_err(|error| Failure::from(error).not_executed())
        }
        () = input.impatience() => Err(Failure::new("interrupted before it was started")),
    }
}

fn request(streams: &Streams) -> AttachRequest {
    AttachRequest {
        stdin: streams.stdin,
        size: streams.size(),
        start: false,
    }
}

/// What remains to be done after the session; the exit code.
async fn ended(
    client: &Client,
    dyno: &Dyno,
    streams: &Streams,
    input: &mut Input,
    end: End,
) -> Result<u8, Failure> {
    let (id, name) = (dyno.id.as_str(), dyno.name.as_str());
    let end = match end {
        End::Lost => again(client, dyno, streams, input).await?,
        end => end,
    };
    let outcome = match end {
        End::Exit(status) => Ok(exit_code(&status, name)),
        End::Detached => return Ok(left(name)),
        End::Impatient => Ok(kill(client, dyno).await?),
        End::ReaderGone => {
            client.stop(id, &StopQuery::default()).await?;
            Err(Failure::silent(code::PIPE))
        }
        End::Lost => return Err(lost(name)),
    };
    if dyno.spec.rm {
        gone(client, id).await;
    }
    outcome
}

/// Kills a dyno whose person has lost patience; its exit code.
async fn kill(client: &Client, dyno: &Dyno) -> Result<u8, Failure> {
    let id = dyno.id.as_str();
    let signal = Some("KILL".to_owned());
    client.kill(id, &KillQuery { signal }).await?;
    match client.wait(id, WaitQuery::default()).await {
        Ok(status) => Ok(exit_code(&status, dyno.name.as_str())),
        // It was removed as soon as it had ended.
        Err(client::Error::Api(gone)) if gone.kind == ErrorKind::NotFound => Ok(KILLED),
        Err(error) => Err(error.into()),
    }
}

/// 128 + SIGKILL.
const KILLED: u8 = 137;

/// Returns once a dyno with `rm` that has ended is gone: its name and ports are
/// free for whoever comes next.
async fn gone(client: &Client, id: &str) {
    let removed = client.wait(id, WaitQuery { removed: true }).await;
    match removed.map_err(Failure::from) {
        Ok(_) => {}
        // hostd was faster.
        Err(failure) if failure.kind() == Some(ErrorKind::NotFound) => {}
        Err(failure) => failure.render(&mut io::stderr().lock()).unwrap_or_default(),
    }
}

/// hostd went away and the dyno did not: takes part again once it is back.
async fn again(
    client: &Client,
    dyno: &Dyno,
    streams: &Streams,
    input: &mut Input,
) -> Result<End, Failure> {
    let id = dyno.id.as_str();
    let deadline = Instant::now() + HOSTD_BACK;
    while Instant::now() < deadline {
        match client.attach(id, &request(streams)).await {
            Ok(attached) => return attend(attached, streams, input).await,
            // It may have ended meanwhile, or hostd has not taken it up yet.
            Err(client::Error::Api(_)) => {
                if let Some(status) = last_status(client, id).await {
                    return Ok(End::Exit(status));
                }
            }
            Err(_) => {}
        }
        sleep(PAUSE).await;
    }
    Ok(End::Lost)
}

/// How a dyno ended, where it has for good.
async fn last_status(client: &Client, id: &str) -> Option<ExitStatus> {
    let status = client.dyno(id).await.ok()?.status;
    let ended = matches!(status.phase, Phase::Exited | Phase::Failed | Phase::Lost);
    status.exit.filter(|_| ended)
}
