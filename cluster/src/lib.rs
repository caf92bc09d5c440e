//! Many hosts as one.
//!
//! ```text
//!  store        what the cluster knows: keys, revisions, leases, watches
//!    ├ embedded   one host, a file on its disk
//!    └ etcd       several hosts
//! ```

pub mod store;
