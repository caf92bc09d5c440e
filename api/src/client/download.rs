//! Bytes that hostd streams.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::Error;

/// A stream of bytes. Dropping it ends the call.
#[derive(Debug)]
pub struct Download {
    operation: String,
    body: Incoming,
}

impl Download {
    pub(super) fn new(operation: String, body: Incoming) -> Self {
        Self { operation, body }
    }

    /// The next bytes; `None` once hostd has ended the stream. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Http`] where it broke off: what came is not all.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|source| Error::Http {
                operation: self.operation.clone(),
                source,
            })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}
