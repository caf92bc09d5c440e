//! Queries over streams (RFC 7766): one after the other per connection.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::Service;
use super::service::Outcome;

/// How long a whole query may take to arrive, and an answer to leave.
const IDLE: Duration = Duration::from_secs(10);
/// No query that a client means is longer.
const MAX_QUERY_BYTES: u16 = 4096;

/// Serves `listener` until the task is aborted; connections end by themselves.
pub async fn serve(listener: Rc<TcpListener>, service: Rc<Service>) {
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Above the limit the connection is closed at once: the client asks again.
        let Some(place) = service.connect(client.ip()) else {
            continue;
        };
        let service = Rc::clone(&service);
        spawn_local(async move {
            if let Err(error) = converse(stream, client.ip(), &service).await {
                tracing::debug!(%error, %client, "a connection ended");
            }
            drop(place);
        });
    }
}

async fn converse(mut stream: TcpStream, client: IpAddr, service: &Service) -> io::Result<()> {
    loop {
        let Some(query) = timeout(IDLE, read_query(&mut stream)).await?? else {
            return Ok(());
        };
        let answer = match service.begin(client, &query, true) {
            Outcome::Silence => return Ok(()),
            Outcome::Now(answer) => answer,
            Outcome::Later(forwarding) => match service.finish(forwarding).await {
                Some(answer) => answer,
                None => return Ok(()),
            },
        };
        timeout(IDLE, stream.write_all(&framed(&answer))).await??;
    }
}

/// The next query; `None` at the end of the stream.
async fn read_query(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > MAX_QUERY_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "query too long"));
    }
    let mut query = vec![0; usize::from(length)];
    stream.read_exact(&mut query).await?;
    Ok(Some(query))
}

/// A message with its length before it, to leave in one segment.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let message = message.get(..usize::from(u16::MAX)).unwrap_or(message);
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend(length.to_be_bytes());
    framed.extend(message);
    framed
}
