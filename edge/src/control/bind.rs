//! Making the control socket, so that its name always leads to a serving edge.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The control socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A system call failed.
    #[error("cannot {step} {path:?}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Binds a listening socket under a temporary name and renames it to `path`,
/// in place of what a predecessor left there. Who connects finds the old edge
/// or the new one, never a socket that nobody listens on.
///
/// # Errors
/// When a step fails; the temporary name is then removed again.
pub fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let result = bind_and_rename(&temporary, path);
    if result.is_err()
        && let Err(error) = std::fs::remove_file(&temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %temporary.display(), %error, "cannot remove");
    }
    result
}

fn bind_and_rename(temporary: &Path, path: &Path) -> Result<UnixListener, BindError> {
    let step = |step, path: &Path| {
        let path = path.to_owned();
        move |source| BindError::Step { step, path, source }
    };
    let listener = UnixListener::bind(temporary).map_err(step("bind", temporary))?;
    // P14. Nobody knows the temporary name between the two calls, and the
    // server checks its peers besides.
    std::fs::set_permissions(temporary, std::fs::Permissions::from_mode(0o600))
        .map_err(step("set the mode of", temporary))?;
    listener
        .set_nonblocking(true)
        .map_err(step("make non-blocking", temporary))?;
    std::fs::rename(temporary, path).map_err(step("rename to", path))?;
    Ok(listener)
}
