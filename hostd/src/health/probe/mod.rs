//! One try. What answers is hostile: every read has a limit of size and of
//! time (P15), nothing is resolved, no redirect is followed.

mod grpc;
mod http;
mod tls;

use std::net::SocketAddr;

use dyno_api::health::Probe;
use tokio::net::TcpStream;

use super::cycle::Subject;
use super::plan::Planned;
use crate::exec::{self, QUOTED, printable, within};

/// P15: a program that writes more checks nothing.
const MOST_OUTPUT: usize = 256 * 1024;
/// Characters of a reason.
const REASON: usize = 1000;

/// Makes a check once.
///
/// # Errors
/// Why it failed, in words for people.
pub(super) async fn make(subject: &Subject, check: &Planned) -> Result<(), String> {
    let made = match &check.probe {
        Probe::Command { command } => {
            let (host, id) = (&subject.host, &subject.id);
            exec::run(host, id, command, check.timeout, MOST_OUTPUT).await
        }
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

async fn connect(subject: &Subject, port: u16) -> Result<(TcpStream, SocketAddr), String> {
    let address = subject.address.ok_or("it has no address")?;
    let address = SocketAddr::new(address, port);
    match TcpStream::connect(address).await {
        Ok(stream) => Ok((stream, address)),
        Err(error) => Err(format!("connect to {address}: {error}")),
    }
}
