//! Many hosts as one.
//!
//! ```text
//!  store        what the cluster knows: keys, revisions, leases, watches
//!    ├ embedded   one host, a file on its disk
//!    └ etcd       several hosts
//!  backup       all of a store, in a file or in another store
//!  leader       one at a time, by a lease
//!  members      which hosts carry etcd
//!  scheduler    which host runs which dyno
//! ```

pub mod backup;
pub mod leader;
pub mod members;
pub mod scheduler;
pub mod store;
