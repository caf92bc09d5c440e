//! One process per dyno: parent of its init, owner of its streams, log, exit
//! status and restarts.

pub mod frame;
pub mod machine;
pub mod policy;
pub mod protocol;
