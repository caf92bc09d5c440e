//! The control socket: hostd hands over sockets, asks for the status, stops the edge.

pub mod protocol;
