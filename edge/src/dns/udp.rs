//! Queries as datagrams.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::spawn_local;

use super::Service;
use super::service::Outcome;

/// No query that a client means is longer.
const MAX_QUERY_BYTES: usize = 4096;

/// Serves `socket` until the task is aborted; answers in flight are still sent.
pub async fn serve(socket: Rc<UdpSocket>, service: Rc<Service>) {
    let mut buffer = vec![0; MAX_QUERY_BYTES];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "cannot receive queries");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(packet) = buffer.get(..length) else {
            continue;
        };
        match service.begin(client.ip(), packet, false) {
            Outcome::Silence => {}
            Outcome::Now(answer) => send(&socket, &answer, client),
            Outcome::Later(forwarding) => {
                let (socket, service) = (Rc::clone(&socket), Rc::clone(&service));
                spawn_local(async move {
                    if let Some(answer) = service.finish(forwarding).await {
                        send(&socket, &answer, client);
                    }
                });
            }
        }
    }
}

/// Sends without waiting: a client that cannot be reached now asks again, and
/// must not hold up the others.
fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = socket.try_send_to(answer, client) {
        tracing::debug!(%error, %client, "an answer is lost");
    }
}
