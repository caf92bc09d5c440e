//! A run that a person waits for.

use std::time::Duration;

use dyno_api::client::{self, Client};
use dyno_api::dyno::{AttachRequest, Dyno, ExitStatus};
use dyno_api::error::ErrorKind;
use dyno_api::query::{KillQuery, StopQuery};
use tokio::time::{Instant, sleep};

use crate::command::attach::{exit_code, left, lost};
use crate::failure::{Failure, code};
use crate::session::{End, Streams, attend};

/// How long a hostd that went away may take until it is back (an upgrade).
const HOSTD_BACK: Duration = Duration::from_secs(10);

/// Between two tries to reach it.
const PAUSE: Duration = Duration::from_millis(50);

/// Attaches to a created dyno, starts it, and passes everything through until
/// it ends. A dyno that could not be started is removed again.
pub(super) async fn run(client: &Client, dyno: &Dyno, streams: &Streams) -> Result<u8, Failure> {
    match start(client, dyno, streams).await {
        Ok(end) => ended(client, dyno, streams, end).await,
        Err(failure) => {
            super::remove(client, dyno).await;
            Err(failure)
        }
    }
}

/// A run that was begun, until its session ends. `Err` where nothing runs.
async fn start(
    client: &Client,
    dyno: &Dyno,
    streams: &Streams,
) -> Result<Result<End, Failure>, Failure> {
    let id = dyno.id.as_str();
    // From here on a signal is the dyno's: nothing half-made is left behind.
    let mut signals = super::signals()?;
    let request = AttachRequest {
        stdin: streams.stdin,
        size: streams.size(),
    };
    let starting = async {
        let attached = client.attach(id, &request).await?;
        match client.start(id).await {
            Ok(_) => Ok(attached),
            Err(error) => Err(Failure::from(error).not_executed()),
        }
    };
    let attached = tokio::select! {
        started = starting => started?,
        () = signals.impatience() => return Err(Failure::new("interrupted before it was started")),
    };
    Ok(attend(attached, streams, signals).await)
}

/// What remains to be done after the session; the exit code.
async fn ended(
    client: &Client,
    dyno: &Dyno,
    streams: &Streams,
    end: Result<End, Failure>,
) -> Result<u8, Failure> {
    let (id, name) = (dyno.id.as_str(), dyno.name.as_str());
    match end? {
        End::Exit(status) => Ok(exit_code(&status, name)),
        End::Detached => Ok(left(name)),
        End::Impatient => {
            let kill = KillQuery {
                signal: Some("KILL".to_owned()),
            };
            client.kill(id, &kill).await?;
            match client.wait(id).await {
                Ok(status) => Ok(exit_code(&status, name)),
                // It was removed as soon as it had ended.
                Err(client::Error::Api(gone)) if gone.kind == ErrorKind::NotFound => Ok(KILLED),
                Err(error) => Err(error.into()),
            }
        }
        End::ReaderGone => {
            client.stop(id, &StopQuery::default()).await?;
            Err(Failure::silent(code::PIPE))
        }
        End::Lost => match again(client, dyno, streams).await? {
            End::Exit(status) => Ok(exit_code(&status, name)),
            End::Detached => Ok(left(name)),
            _ => Err(lost(name)),
        },
    }
}

/// 128 + SIGKILL.
const KILLED: u8 = 137;

/// hostd went away and the dyno did not: takes part again once it is back.
async fn again(client: &Client, dyno: &Dyno, streams: &Streams) -> Result<End, Failure> {
    let id = dyno.id.as_str();
    let deadline = Instant::now() + HOSTD_BACK;
    let signals = super::signals()?;
    let request = AttachRequest {
        stdin: streams.stdin,
        size: streams.size(),
    };
    loop {
        match client.attach(id, &request).await {
            Ok(attached) => return attend(attached, streams, signals).await,
            Err(client::Error::Api(_)) => return Ok(last_status(client, id).await),
            Err(_) if Instant::now() < deadline => sleep(PAUSE).await,
            Err(_) => return Ok(End::Lost),
        }
    }
}

/// How a dyno ended that cannot be attached to any more.
async fn last_status(client: &Client, id: &str) -> End {
    let ended: Option<ExitStatus> = match client.dyno(id).await {
        Ok(dyno) => dyno.status.exit,
        Err(_) => None,
    };
    ended.map_or(End::Lost, End::Exit)
}
