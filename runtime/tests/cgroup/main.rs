//! Cgroups against the kernel, as root, on whichever layout the machine has.
//!
//! Payloads are lines of `/bin/sh`, so that the same binary runs in an empty VM.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;
mod layouts;
mod limits;
mod processes;
