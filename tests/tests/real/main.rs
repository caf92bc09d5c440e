//! Real servers from real images out of a real registry, reached as clients reach them.
#![expect(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod crowd;
mod database;
mod web;
