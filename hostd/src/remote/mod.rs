//! What it takes to be reached from elsewhere: who may connect, how the host shows who it
//! is, and how a connection ends with the token that it belongs to.
//!
//! ```text
//! authority  the host's own certificates; clients know one of them by its hash
//! client     certificates that clients show instead of a secret
//! gate       who is let in at all: failures and strangers, per address
//! session    one connection and its token
//! cut        the connection's bytes, until its token is over
//! ```
//!
//! The listener itself is in `http::remote`.

pub mod authority;
pub mod client;
pub mod cut;
pub mod gate;
pub mod session;

use std::sync::{Arc, OnceLock};

use dyno_api::token::Endpoint;

pub use authority::{Authority, AuthorityError};
pub use cut::Cut;
pub use gate::Gate;
pub use session::{Refused, Session};

/// What the listener and the API share.
#[derive(Debug, Default)]
pub struct Remote {
    /// Who is let in.
    pub gate: Arc<Gate>,
    open: OnceLock<(Endpoint, Arc<Authority>)>,
}

impl Remote {
    /// Where the host is reached from elsewhere; `None` where it is not.
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.open.get().map(|(endpoint, _)| endpoint.clone())
    }

    /// Who signs for it; `None` where it is not reached from elsewhere.
    pub fn authority(&self) -> Option<&Arc<Authority>> {
        self.open.get().map(|(_, authority)| authority)
    }

    /// It is reached there from now on.
    pub(crate) fn listens(&self, endpoint: Endpoint, authority: Arc<Authority>) {
        // There is one listener in a process.
        self.open.get_or_init(|| (endpoint, authority));
    }
}
