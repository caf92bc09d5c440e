//! Values of flags, parsed without acting: each file is one notation.
//!
//! A parser is a pure function from the text to a type of the API. Its error
//! says what is wrong with the text and what is accepted; clap adds the flag
//! and the text itself.

pub(crate) mod after;
pub(crate) mod check;
pub(crate) mod decimal;
pub(crate) mod detach;
pub(crate) mod device;
pub(crate) mod duration;
pub(crate) mod env;
pub(crate) mod given;
pub(crate) mod io;
pub(crate) mod limit;
pub(crate) mod mount;
pub(crate) mod platform;
pub(crate) mod port;
pub(crate) mod reference;
pub(crate) mod restart;
pub(crate) mod size;
pub(crate) mod ulimit;
pub(crate) mod volume;
pub(crate) mod words;
