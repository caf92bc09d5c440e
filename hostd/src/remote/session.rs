//! One connection from elsewhere, and the token that it belongs to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::watch;
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

    /// Whether it belongs to this token; it does where it belonged to none. Within a tokio
    /// runtime.
    pub fn belongs_to(&self, token: &Arc<Live>) -> bool {
        let owner = self.owner.get_or_init(|| {
            let (over, waited) = (self.over.clone(), token.clone());
            let waits = tokio::spawn(async move {
                waited.over().await;
                over.send_replace(true);
            });
            Owner {
                token: token.clone(),
                waits: waits.abort_handle(),
            }
        });
        let is_owner = owner.token.id() == token.id();
        if is_owner {
            let mut stranger = self.stranger.lock().unwrap_or_else(PoisonError::into_inner);
            stranger.take();
        }
        is_owner
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
        assert!(session.belongs_to(&first));
        assert!(session.belongs_to(&first));
        assert!(!session.belongs_to(&other));
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
        assert!(session.belongs_to(&token(1, Some(soon))));
        let read = timeout(Duration::from_secs(20), cut.read_u8()).await;
        let error = read.unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
        assert!(cut.write_all(b"x").await.is_err());
    }
}
