//! Which hosts carry a member of etcd, and how one set of them becomes another.
//!
//! ```text
//!  hosts, members ──▶ next (pure) ──▶ one step ──▶ etcd ──▶ look again
//! ```
//!
//! One member for one or two hosts, three from three on, five from five on: an even
//! number outlives no more failures than one less. A new member learns first, without
//! a vote, and votes once it has caught up; one step at a time, and only while most
//! members answer after it as before. What `next` would not do, people can
//! (`etcdctl`), and it goes on from what it then finds.

mod etcd;
mod next;

pub use etcd::Members;
pub use next::{Decision, Fit, Host, Member, Step, next};
