//! Numbers of things: copies of a service, processes, files.

use super::document::Expected;

/// Copies of one service.
const MAX_COPIES: u32 = 100;

/// Why a text is no number of copies.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("a number of copies is expected, from 0 to {MAX_COPIES}")]
pub(super) struct CopiesError;

/// How many copies of a service run.
pub(super) fn copies(text: &str) -> Result<u32, CopiesError> {
    match text.parse() {
        Ok(count) if count <= MAX_COPIES => Ok(count),
        _ => Err(CopiesError),
    }
}

/// How many there are of what makes no sense without one.
pub(super) fn positive(text: &str) -> Result<u32, Expected> {
    match text.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err(Expected("a number from 1 on")),
    }
}
