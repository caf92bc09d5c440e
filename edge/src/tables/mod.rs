//! What the edge answers from: hostd's `tables.json`, read again at each change.
//!
//! [`Networks`] is one table, parsed and checked, never changed. [`Live`] holds
//! the one in force and replaces it whole: a query sees the old one or the new
//! one, and a broken file replaces nothing.

mod live;
mod networks;
mod watch;

pub use live::{Live, LoadError};
pub use networks::{Network, Networks, ParseError};
pub use watch::Watch;
