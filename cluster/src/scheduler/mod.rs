//! Which host runs which dyno: pure, and the same for the same input.
//!
//! A [`Cluster`] is what there is: hosts, groups of equal asks, and what runs
//! where. [`Cluster::schedule`] makes a [`Plan`] of it: what is placed, moved
//! and stopped, who waits ([`Plan::unplaced`]) and why ([`Plan::explain`]), and
//! whether all would still fit if hosts were lost ([`Plan::capacity`]). There is
//! no clock, no chance and no I/O; how it works is in `docs/scheduler.md`.

mod areas;
mod cluster;
mod explain;
mod frame;
mod model;
mod place;
mod plan;
mod preempt;
mod rules;
mod schedule;
mod score;
mod selectors;
mod state;
mod survive;
mod tree;

pub use cluster::{Cluster, Unwanted};
pub use explain::{Explanation, Refusal, Resource, Verdict};
pub use model::{
    Affinity, Assignment, Availability, Constraint, Count, Direction, Group, Host, Invalid, Policy,
    Port, Protocol, Resources, Selector, Spread, Strength, Test, Within,
};
pub use plan::{Capacity, Cause, Missing, Plan, Step, UnknownHost, Unplaced};
pub use score::Score;
