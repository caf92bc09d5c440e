//! The layer of a dyno: the two folders of what it writes to its own `/`, and what they
//! may take up.
//!
//! Where the file system limits projects every layer has one from the beginning, with a
//! limit or without: a folder gets one while it is empty only, and a limit may be asked for
//! later. overlayfs moves files from `work` to `upper`, which the kernel permits within one
//! project. It writes without CAP_SYS_RESOURCE, whoever mounts it: nobody is above the
//! limit.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use dyno_api::error::{ApiError, ErrorKind};
use dyno_runtime::quota;

use crate::durable::from_io;
use crate::paths::DynoPaths;
use crate::projects;

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
    let (upper, work) = open(own).map_err(failed)?;
    if quota::is_enforced(upper.as_fd()) {
        give_project(own, &upper, &work).map_err(failed)?;
    }
    limit_opened(&upper, most)
}

/// A creation that was cut short may have left them without.
fn give_project(own: &DynoPaths, upper: &File, work: &File) -> io::Result<()> {
    let both = quota::project(upper.as_fd())? != 0 && quota::project(work.as_fd())? != 0;
    let is_empty = |folder: &Path| Ok::<_, io::Error>(fs::read_dir(folder)?.next().is_none());
    if !both && is_empty(&own.upper())? && is_empty(&own.work())? {
        projects::give(&[upper, work])?;
    }
    Ok(())
}

fn open(own: &DynoPaths) -> io::Result<(File, File)> {
    Ok((File::open(own.upper())?, File::open(own.work())?))
}

/// Has the layer take up this many bytes at the most; `None` is no limit. Blocks.
///
/// # Errors
/// Unsupported where the file system enforces none; Conflict where the layer was begun
/// while it did not.
pub fn limit(own: &DynoPaths, most: Option<u64>) -> Result<(), ApiError> {
    let upper = File::open(own.upper());
    let upper = upper.map_err(|error| from_io("cannot open what a dyno has written", &error))?;
    limit_opened(&upper, most)
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

fn limit_opened(upper: &File, most: Option<u64>) -> Result<(), ApiError> {
    match projects::check_enforced(upper, WHOSE) {
        Err(_) if most.is_none() => return Ok(()),
        enforced => enforced?,
    }
    let failed = |error: rustix::io::Errno| from_io("cannot limit a dyno's layer", &error.into());
    match (quota::project(upper.as_fd()).map_err(failed)?, most) {
        (0, None) => Ok(()),
        (0, Some(_)) => Err(ApiError::new(
            ErrorKind::Conflict,
            "the dyno is older than the quotas of its file system, which do not count it",
        )
        .hint("make it anew")),
        (project, most) => quota::limit(upper.as_fd(), project, most, None).map_err(failed),
    }
}

/// What the layer takes up, and may, where the file system counts that.
pub fn usage(own: &DynoPaths) -> Option<quota::Usage> {
    let upper = File::open(own.upper()).ok()?;
    if !quota::is_enforced(upper.as_fd()) {
        return None;
    }
    let project = quota::project(upper.as_fd()).ok().filter(|it| *it != 0)?;
    quota::usage(upper.as_fd(), project).ok()
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
        .map_err(|error| from_io(&format!("cannot make {}", path.display()), &error))
}
