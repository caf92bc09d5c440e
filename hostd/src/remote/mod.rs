//! What it takes to be reached from elsewhere: who may connect, how the host shows who it
//! is, and how a connection ends with the token that it belongs to.
//!
//! ```text
//! authority  the host's own certificates; clients know one of them by its hash
//! gate       who is let in at all: failures and strangers, per address
//! session    one connection and its token
//! cut        the connection's bytes, until its token is over
//! ```
//!
//! The listener itself is in `http::remote`.

pub mod authority;
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
    endpoint: OnceLock<Endpoint>,
}

impl Remote {
    /// Where the host is reached from elsewhere; `None` where it is not.
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.endpoint.get().cloned()
    }

    /// It is reached there from now on.
    pub(crate) fn listens(&self, endpoint: Endpoint) {
        // There is one listener in a process.
        self.endpoint.get_or_init(|| endpoint);
    }
}
