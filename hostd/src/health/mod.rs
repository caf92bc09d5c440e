//! Whether dynos work: checks that are made again and again.
//!
//! ```text
//!  spec, image ─▶ plan ─▶ cycle ─▶ probe ─▶ the dyno
//!                           │ outcomes
//!                           ▼
//!              supervisor: course (pure) ─▶ what is shown, service, monitor
//! ```
//! Everything is decided on outcomes, never on time alone: a hostd that was
//! away, or stopped for minutes, has found nothing out and ends no dyno.

pub mod course;
mod cycle;
pub mod plan;
mod probe;
mod saved;

pub use cycle::{Outcome, Subject, spawn};
pub use saved::Saved;
