//! One process per dyno: parent of its init, owner of its streams, log, exit
//! status and restarts.

pub mod protocol;
