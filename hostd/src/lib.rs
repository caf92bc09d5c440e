//! The host engine: image → bundle → monitor → network → start, and the API
//! over it.

pub mod admission;
pub mod bundle;
pub mod desired;
pub mod durable;
pub mod edge;
pub mod events;
pub mod facts;
pub mod identity;
pub mod logs;
pub mod monitor;
pub mod network;
pub mod paths;
pub mod signal;
pub mod supervisor;
pub mod uids;
