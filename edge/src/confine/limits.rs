//! Resource limits: what a flood of queries can take at most (P15).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::ConfineError;

/// Room for every upstream socket in flight, every client connection, and the house's own.
const OPEN_FILES: u64 = 4096;
/// Far above what the bounded server can use, far below what hurts a host.
const ADDRESS_SPACE_BYTES: u64 = 512 << 20;

/// Lowers the limits of this process for good.
pub(super) fn set() -> Result<(), ConfineError> {
    let files = getrlimit(Resource::Nofile)
        .maximum
        .map_or(OPEN_FILES, |max| max.min(OPEN_FILES));
    for (resource, limit, step) in [
        (Resource::Nofile, files, "limit open files"),
        (Resource::As, ADDRESS_SPACE_BYTES, "limit the address space"),
        (Resource::Core, 0, "forbid core dumps"),
    ] {
        setrlimit(
            resource,
            Rlimit {
                current: Some(limit),
                maximum: Some(limit),
            },
        )
        .map_err(ConfineError::step(step))?;
    }
    Ok(())
}
