//! A program that is run in a dyno for hostd itself: only how it ends is of interest.

use std::sync::Arc;
use std::time::Duration;

use dyno_api::dyno::{ExecRequest, ExitStatus};
use dyno_api::error::ApiError;
use dyno_api::frame::{HEADER, Kind, header, parse_header};
use dyno_api::name::DynoId;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::begin;
use crate::host::Host;
use crate::monitor::Connection;

/// Characters of what is said that a reason quotes.
pub(crate) const QUOTED: usize = 256;

/// Runs the program and waits for its end; it is killed where it takes longer, or writes
/// more bytes than `most_output`.
///
/// # Errors
/// Where it fails, in words for people: its exit code, and what it said last.
pub(crate) async fn run(
    host: &Arc<Host>,
    dyno: &DynoId,
    command: &[String],
    limit: Duration,
    most_output: usize,
) -> Result<(), String> {
    let request = ExecRequest {
        command: command.to_vec(),
        ..ExecRequest::default()
    };
    let begun = async {
        let begun = begin(host, dyno, request).await;
        begun.map_err(|error| error.message)
    };
    let mut connection = within(limit, begun).await?;
    let ended = within(limit, end(&mut connection, most_output)).await;
    if ended.is_err() {
        kill(&mut connection).await;
    }
    ended
}

/// Reads output until the exit status comes.
async fn end(connection: &mut Connection, most_output: usize) -> Result<(), String> {
    let broken = |error: std::io::Error| format!("its monitor: {error}");
    let (mut said, mut total) = (Vec::new(), 0);
    loop {
        let mut head = [0; HEADER];
        connection.read_exact(&mut head).await.map_err(broken)?;
        let (kind, length) = parse_header(head).map_err(|error| error.to_string())?;
        let mut payload = vec![0; length];
        connection.read_exact(&mut payload).await.map_err(broken)?;
        match kind {
            Kind::Stdout | Kind::Stderr => {
                total += length;
                if total > most_output {
                    return Err(format!("it wrote more than {most_output} bytes"));
                }
                said.extend_from_slice(&payload);
                // The last words say why.
                said.drain(..said.len().saturating_sub(4 * QUOTED));
            }
            Kind::Exit => return verdict(&payload, &said),
            Kind::Error => {
                let error = serde_json::from_slice::<ApiError>(&payload);
                return Err(error.map_or_else(|error| error.to_string(), |error| error.message));
            }
            Kind::Stdin | Kind::Resize | Kind::Signal => {}
        }
    }
}

fn verdict(exit: &[u8], said: &[u8]) -> Result<(), String> {
    let exit: ExitStatus = serde_json::from_slice(exit).map_err(|error| error.to_string())?;
    if exit.code == 0 && !exit.oom {
        return Ok(());
    }
    let said = String::from_utf8_lossy(said);
    let said = said.trim();
    let last: String = said.chars().rev().take(QUOTED).collect();
    let last: String = last.chars().rev().collect();
    let code = exit.code;
    Err(match last.is_empty() {
        true => format!("exit code {code}"),
        false => format!("exit code {code}: {}", printable(&last, QUOTED)),
    })
}

/// Closing the connection would leave it five seconds after a SIGHUP.
async fn kill(connection: &mut Connection) {
    let Ok(head) = header(Kind::Signal, 1) else {
        return;
    };
    let kill = u8::try_from(Signal::KILL.as_raw()).unwrap_or(9);
    let frame = [&head[..], &[kill]].concat();
    if let Err(error) = connection.write_all(&frame).await {
        tracing::debug!(%error, "a program that took too long ends by itself");
    }
}

/// # Errors
/// What `work` says, or that it took longer.
pub(crate) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(format!("no answer within {limit:?}")),
    }
}

/// Hostile text for people: no control characters, so many characters at most.
pub(crate) fn printable(text: &str, most: usize) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut kept: String = text.trim().chars().take(most).map(clean).collect();
    if text.trim().chars().nth(most).is_some() {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: u8) -> Vec<u8> {
        format!(r#"{{"code":{code},"signal":null,"oom":false,"at":"2026-01-01T00:00:00Z"}}"#)
            .into_bytes()
    }

    #[test]
    fn the_exit_code_decides_and_the_last_words_say_why() {
        assert_eq!(verdict(&exit(0), b"all is lost"), Ok(()));
        assert_eq!(verdict(&exit(3), b""), Err("exit code 3".to_owned()));
        let long = format!("{}the\x07 end\n", "x".repeat(5000));
        let reason = verdict(&exit(1), long.as_bytes()).unwrap_err();
        assert!(reason.starts_with("exit code 1: xxx"), "{reason}");
        assert!(
            reason.ends_with("the  end") && reason.len() < 300,
            "{reason}"
        );
        assert!(verdict(b"{", b"").is_err());
    }

    #[test]
    fn what_a_dyno_says_is_cut_and_steers_no_terminal() {
        assert_eq!(printable(" a\x1b[31m\nb ", 10), "a [31m b");
        assert_eq!(printable("äöü", 2), "äö…");
    }
}
