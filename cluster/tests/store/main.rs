//! Both stores against the same promises, each against its own faults.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "tests: a failure ends them"
)]

mod backups;
mod embedded;
mod etcd;
mod etcd_rig;
mod growth;
mod leaders;
mod lies;
mod suite;
