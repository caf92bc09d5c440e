//! One try. What answers is hostile: every read has a limit of size and of
//! time (P15), nothing is resolved, no redirect is followed.

mod command;
mod grpc;
mod http;
mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use dyno_api::health::Probe;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::cycle::Subject;
use super::plan::Planned;

/// Characters of an answer that a reason quotes.
const QUOTED: usize = 256;
/// Characters of a reason.
const REASON: usize = 1000;

/// Makes a check once.
///
/// # Errors
/// Why it failed, in words for people.
pub(super) async fn make(subject: &Subject, check: &Planned) -> Result<(), String> {
    let made = match &check.probe {
        Probe::Command { command } => command::run(subject, command, check.timeout).await,
        Probe::Tcp { port } => within(check.timeout, connect(subject, *port))
            .await
            .map(drop),
        Probe::Http(probe) => {
            let asked = async {
                let (stream, address) = connect(subject, probe.port).await?;
                match probe.tls {
                    true => {
                        let stream = tls::open(stream, probe.host.as_deref(), &tls::HTTP_1).await?;
                        http::ask(stream, probe, address).await
                    }
                    false => http::ask(stream, probe, address).await,
                }
            };
            within(check.timeout, asked).await
        }
        Probe::Grpc(probe) => {
            let asked = async {
                let (stream, address) = connect(subject, probe.port).await?;
                match probe.tls {
                    true => {
                        let stream = tls::open(stream, probe.host.as_deref(), &tls::HTTP_2).await?;
                        grpc::ask(stream, probe, address).await
                    }
                    false => grpc::ask(stream, probe, address).await,
                }
            };
            within(check.timeout, asked).await
        }
    };
    made.map_err(|reason| printable(&reason, REASON))
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(format!("no answer within {limit:?}")),
    }
}

async fn connect(subject: &Subject, port: u16) -> Result<(TcpStream, SocketAddr), String> {
    let address = subject.address.ok_or("it has no address")?;
    let address = SocketAddr::new(address, port);
    match TcpStream::connect(address).await {
        Ok(stream) => Ok((stream, address)),
        Err(error) => Err(format!("connect to {address}: {error}")),
    }
}

/// Hostile text for people: no control characters, so many characters at most.
fn printable(text: &str, most: usize) -> String {
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

    #[test]
    fn what_a_dyno_says_is_cut_and_steers_no_terminal() {
        assert_eq!(printable(" a\x1b[31m\nb ", 10), "a [31m b");
        assert_eq!(printable("äöü", 2), "äö…");
    }
}
