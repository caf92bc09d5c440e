//! The command line as a person uses it: the program `dyno` against a real
//! hostd, dynos of the built-in image, and a terminal where one is needed.
#![expect(
    clippy::unwrap_used,
    reason = "a rig that cannot be set up fails its test"
)]

mod alone;
mod daily;
mod doctor;
mod refusals;
mod remote;
mod rig;
mod sandbox;
mod streams;
mod terminal;
