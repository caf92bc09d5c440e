//! Typed calls to hostd over its unix socket, by way of a program that speaks for the
//! hostd of another machine, or by TLS.
//!
//! Each call has a connection of its own: a connect on a unix socket costs
//! microseconds, and a stream never holds up another call. The first one may be
//! made before there is anything to ask, which shows whether hostd is there.
//!
//! ```text
//! Client ──▶ connection   connect, HTTP/1.1 handshake, send
//!              ├─▶ bridge  a program whose streams are the connection
//!              ├─▶ tls     a host that is known by its authority's hash
//!              ├─▶ body    what travels to hostd
//!              ├─▶ lines   JSON lines that hostd streams back
//!              └─▶ attach  frames after an upgrade
//! ```
//!
//! The calls need a tokio runtime with I/O enabled; a current-thread one will do.

mod attach;
mod body;
mod bridge;
mod connection;
mod download;
mod drains;
mod dynos;
mod error;
mod host;
mod images;
mod lines;
mod path;
mod pin;
mod proof;
mod secret;
mod secrets;
mod stream;
mod tls;
mod tokens;
mod volumes;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use attach::{Attached, FrameReader, FrameWriter, Output};
pub use bridge::{Bridge, GREETING};
pub use download::Download;
pub use error::Error;
pub use lines::Lines;
pub use pin::{Pin, PinError};
pub use proof::{Identity, IdentityError, Proof};
pub use secret::{Secret, SecretError};
use stream::Stream;
use tls::Tls;
pub use tls::{Remote, TlsError};

/// How long a connection is used without a call: hostd closes one that is
/// silent for ten seconds.
const READY: Duration = Duration::from_secs(5);

/// A client of one hostd.
#[derive(Debug, Clone)]
pub struct Client {
    way: Way,
    /// A connection for the next call and since when; shared by all clones.
    ready: Arc<Mutex<Option<(Instant, Stream)>>>,
}

/// How a connection comes about.
#[derive(Debug, Clone)]
enum Way {
    Socket(PathBuf),
    Bridge(Arc<Bridge>),
    Tls(Arc<Tls>),
}

impl Client {
    /// A client of the hostd behind `socket`; nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self::by(Way::Socket(socket.into()))
    }

    /// A client of the hostd that this program speaks for; it is not run yet.
    pub fn through(bridge: Bridge) -> Self {
        Self::by(Way::Bridge(Arc::new(bridge)))
    }

    /// A client of a hostd that listens with TLS; nothing is connected yet.
    ///
    /// # Errors
    /// [`Error::Tls`] where a certificate and its key do not belong together.
    pub fn at(remote: Remote) -> Result<Self, Error> {
        Ok(Self::by(Way::Tls(Arc::new(Tls::new(remote)?))))
    }

    fn by(way: Way) -> Self {
        Self {
            way,
            ready: Arc::default(),
        }
    }

    /// The same, connected for its first call.
    ///
    /// # Errors
    /// [`Error::Connect`] where no hostd listens, [`Error::Bridge`] where the
    /// program does not get that far, [`Error::Tls`] where TLS does not stand.
    pub async fn connected(self) -> Result<Self, Error> {
        let stream = self.connect().await?;
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), stream));
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

    /// Answers one call on each connection that comes.
    async fn serve(listener: &UnixListener) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(ANSWER).await.unwrap();
    }

    #[tokio::test]
    async fn the_first_call_takes_the_connection_that_is_ready() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let client = Client::new(folder.path().join("s"));
        let client = client.connected().await.unwrap();
        for _ in 0..2 {
            let call = connection::Call::new(http::Method::GET, "/");
            let (done, ()) = tokio::join!(client.done(call), serve(&listener));
            done.unwrap();
        }
        // Two calls, two connections: none was made in vain.
        let more = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
        assert!(more.is_err(), "{more:?}");
    }

    #[tokio::test]
    async fn where_nobody_listens_nothing_is_connected() {
        let folder = tempfile::tempdir().unwrap();
        let client = Client::new(folder.path().join("s"));
        let refused = client.connected().await.unwrap_err();
        assert!(refused.is_absent(), "{refused}");
    }
}
