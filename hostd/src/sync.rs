//! What threads and tasks of hostd share and wait by. `tests/threads` puts primitives in
//! their place whose every order can be tried.

pub(crate) use std::sync::{Mutex, MutexGuard};

pub(crate) use tokio::sync::{Notify, watch};
