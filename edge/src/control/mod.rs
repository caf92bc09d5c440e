//! The control socket: hostd hands over sockets, asks for the status, stops the edge.

mod bind;
mod lines;
mod predecessor;
pub mod protocol;
mod server;

pub use bind::{BindError, bind};
pub use predecessor::{Predecessor, PredecessorError};
pub use server::{Server, Stop};
