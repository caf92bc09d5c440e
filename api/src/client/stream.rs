//! The bytes of a connection, by whatever way they go.

use std::fmt::Debug;

use tokio::io::{AsyncRead, AsyncWrite};

/// What a connection can be made of.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Debug + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Debug + Send + Unpin> Duplex for S {}

/// A connection to hostd.
pub(super) type Stream = Box<dyn Duplex>;
