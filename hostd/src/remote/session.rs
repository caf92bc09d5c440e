//! One connection from elsewhere, and the token that it belongs to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::AbortHandle;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::gate::Stranger;
use crate::tokens::Live;

/// One connection. It belongs to the token of its first request, and ends with it.
#[derive(Debug)]
pub struct Session {
    address: SocketAddr,
    certificate: Option<CertificateDer<'static>>,
    owner: OnceLock<Owner>,
    stranger: Mutex<Option<Stranger>>,
    over: watch::Sender<bool>,
}

#[derive(Debug)]
struct Owner {
    token: Arc<Live>,
    waits: AbortHandle,
    /// One of those that the token may have.
    _connection: OwnedSemaphorePermit,
}

/// Why a connection is not this token's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is another one's.
    Belongs,
    /// The token has as many as it may have.
    Crowded,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.waits.abort();
    }
}

impl Session {
    /// That of a connection which has not said yet who it is, except by a certificate that
    /// the host's authority has signed.
    pub fn new(
        address: SocketAddr,
        stranger: Stranger,
        certificate: Option<CertificateDer<'static>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            address,
            certificate,
            owner: OnceLock::new(),
            stranger: Mutex::new(Some(stranger)),
            over: watch::Sender::new(false),
        })
    }

    /// Where it comes from.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that it was made with.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.certificate.as_ref()
    }

    /// Has it belong to this token where it belonged to none. Within a tokio runtime.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn belong_to(&self, token: &Arc<Live>) -> Result<(), Refused> {
        if self.owner.get().is_none() {
            let owner = self.owner(token).ok_or(Refused::Crowded)?;
            // Requests come one after the other: nobody else has set it meanwhile.
            self.owner.get_or_init(|| owner);
            let mut stranger = self.stranger.lock().unwrap_or_else(PoisonError::into_inner);
            stranger.take();
        }
        match self.owner.get() {
            Some(owner) if owner.token.id() == token.id() => Ok(()),
            _ => Err(Refused::Belongs),
        }
    }

    fn owner(&self, token: &Arc<Live>) -> Option<Owner> {
        let connection = token.connection()?;
        let (over, waited) = (self.over.clone(), token.clone());
        let waits = tokio::spawn(async move {
            waited.over().await;
            over.send_replace(true);
        });
        Some(Owner {
            token: token.clone(),
            waits: waits.abort_handle(),
            _connection: connection,
        })
    }

    /// Comes back once the connection is to end.
    pub async fn over(self: Arc<Self>) {
        let mut over = self.over.subscribe();
        // The sender is ours.
        over.wait_for(|over| *over).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::{Duration, Instant};

    use jiff::{SignedDuration, Timestamp};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;
    use crate::remote::{Cut, Gate};

    fn session(gate: &Arc<Gate>) -> Arc<Session> {
        let address: SocketAddr = "192.0.2.1:9".parse().unwrap();
        let stranger = gate.admit(IpAddr::from([192, 0, 2, 1]), Instant::now());
        Session::new(address, stranger.unwrap(), None)
    }

    fn token(number: u8, expires: Option<Timestamp>) -> Arc<Live> {
        Arc::new(Live::with(number, &[], expires))
    }

    #[tokio::test]
    async fn a_connection_belongs_to_its_first_token() {
        let gate = Arc::new(Gate::default());
        let session = session(&gate);
        let (first, other) = (token(1, None), token(2, None));
        session.belong_to(&first).unwrap();
        session.belong_to(&first).unwrap();
        assert_eq!(session.belong_to(&other), Err(Refused::Belongs));
    }

    #[tokio::test]
    async fn whoever_reads_is_woken_when_the_token_is_over() {
        let gate = Arc::new(Gate::default());
        let session = session(&gate);
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut cut = Cut::new(ours, session.clone());
        theirs.write_all(b"x").await.unwrap();
        assert_eq!(cut.read_u8().await.unwrap(), b'x');
        let soon = Timestamp::now() + SignedDuration::from_millis(200);
        session.belong_to(&token(1, Some(soon))).unwrap();
        let read = timeout(Duration::from_secs(20), cut.read_u8()).await;
        let error = read.unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
        assert!(cut.write_all(b"x").await.is_err());
    }
}
