//! The layer of a dyno: the two folders of what it writes to its own `/`, and what they
//! may take up.
//!
//! Where the file system limits projects every layer has one from the beginning, with a
//! limit or without: a folder gets one while it is empty only, and a limit may be asked for
//! later. overlayfs moves files from `work` to `upper`, which the kernel permits within one
//! project. It writes without CAP_SYS_RESOURCE, whoever mounts it: nobody is above the
//! limit.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use dyno_api::error::{ApiError, ErrorKind};

use crate::durable::{from_io, from_io_at};
use crate::paths::DynoPaths;
use crate::quota::{self, Limits, Usage};

const WHOSE: &str = "what dynos write";

/// Makes the folders where they are missing, and has their limit be this one.
///
/// # Errors
/// What the file system says; as [`limit`].
pub fn make(own: &DynoPaths, most: Option<u64>) -> Result<(), ApiError> {
    // The upper folder is the dyno's `/`: its mode shows inside.
    make_folder(&own.upper(), 0o755)?;
    make_folder(&own.work(), 0o700)?;
    let failed = |error: io::Error| from_io("cannot count what a dyno writes", &error);
    if quota::is_enforced(&own.upper()).map_err(failed)? {
        give_project(own).map_err(failed)?;
    }
    limit(own, most)
}

/// A creation that was cut short may have left them without.
fn give_project(own: &DynoPaths) -> io::Result<()> {
    let (upper, work) = (own.upper(), own.work());
    let both = quota::project(&upper)?.is_some() && quota::project(&work)?.is_some();
    let is_empty = |folder: &Path| Ok::<_, io::Error>(fs::read_dir(folder)?.next().is_none());
    if !both && is_empty(&upper)? && is_empty(&work)? {
        quota::give(&[&upper, &work])?;
    }
    Ok(())
}

/// Has the layer take up this many bytes at the most; `None` is no limit. Blocks.
///
/// # Errors
/// Unsupported where the file system enforces none; Conflict where the layer was begun
/// while it did not.
pub fn limit(own: &DynoPaths, most: Option<u64>) -> Result<(), ApiError> {
    let upper = own.upper();
    match quota::must_be_enforced(&upper, WHOSE) {
        Err(_) if most.is_none() => return Ok(()),
        enforced => enforced?,
    }
    let failed = |error: io::Error| from_io("cannot limit a dyno's layer", &error);
    let limits = Limits {
        bytes: most,
        inodes: None,
    };
    match (quota::project(&upper).map_err(failed)?, most) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(ApiError::new(
            ErrorKind::Conflict,
            "the dyno is older than the quotas of its file system, which do not count it",
        )
        .hint("make it anew")),
        (Some(project), _) => quota::set(&upper, project, limits).map_err(failed),
    }
}

/// The same, where that is no less than it takes up already.
///
/// # Errors
/// As [`limit`]; Conflict where it is.
pub fn limit_anew(own: &DynoPaths, most: Option<u64>) -> Result<(), ApiError> {
    if let (Some(most), Some(used)) = (most, usage(own))
        && used.bytes > most
    {
        let used = used.bytes;
        let message = format!("the dyno has written {used} bytes, more than the limit of {most}");
        return Err(ApiError::new(ErrorKind::Conflict, message)
            .hint("remove files in it first, or ask for more"));
    }
    limit(own, most)
}

/// What the layer takes up, and may, where the file system counts that.
pub(crate) fn usage(own: &DynoPaths) -> Option<Usage> {
    let upper = own.upper();
    if !quota::is_enforced(&upper).ok()? {
        return None;
    }
    quota::used(&upper, quota::project(&upper).ok()??).ok()
}

/// Takes the limit from a layer that is about to be removed: its project is free again when
/// the last of its files is gone.
pub fn forget(own: &DynoPaths) {
    if usage(own).is_some_and(|usage| usage.bytes_most.is_some())
        && let Err(error) = limit(own, None)
    {
        tracing::warn!(%error, folder = %own.state.display(), "the limit of a project stays");
    }
}

pub(crate) fn make_folder(path: &Path, mode: u32) -> Result<(), ApiError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|error| from_io_at("cannot make", path, &error))
}
