//! The name server (RFC 1035): own names from the tables, the rest forwarded.
//!
//! ```text
//! udp ─┐                    ┌─ Ignore
//!      ├─▶ Service ▸ decide ┼─ Reply            from the tables, or an error code
//! tcp ─┘      │     (pure)  └─ Forward ─▶ forward ─▶ upstream: udp, and tcp when truncated
//!          limits: in all, per client (P15)
//! ```

mod decide;
mod encode;
mod forward;
mod limits;
mod service;
mod tcp;
mod udp;

pub use decide::{Decision, decide};
pub use service::Service;
pub use tcp::serve as serve_tcp;
pub use udp::serve as serve_udp;

/// The domain under which the names of a network are qualified.
pub const DOMAIN: &str = "dyno.internal.";

/// How long a client may remember an answer from the tables, in seconds:
/// dynos come and go.
pub const TTL_SECONDS: u32 = 5;

/// What we tell others to send at most over UDP, and send at most ourselves:
/// it is never fragmented (RFC 9715).
pub const UDP_PAYLOAD_BYTES: u16 = 1232;
