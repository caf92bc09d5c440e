//! `checkpoint` and `restore`: refused, in the words of what is missing. Both are
//! CRIU's work, which nobody asks it for yet; a caller that is refused keeps its
//! container.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Failure;

/// Arguments of either; whatever runc's are, they cannot be honoured.
#[derive(Debug, clap::Args)]
pub(super) struct Checkpoint {
    /// runc's options and the container
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Says why it is not done.
pub(super) fn refuse(verb: &str, _args: &Checkpoint) -> Result<(), Failure> {
    let missing = match criu() {
        None => {
            "there is no criu in PATH (Debian's package is criu), and this runtime does \
                 not drive it yet"
        }
        Some(_) => "this runtime does not drive CRIU yet",
    };
    Err(format!("cannot {verb}: {missing}; the container is left as it is").into())
}

/// Where CRIU is.
fn criu() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = |folder: &Path| folder.join("criu").is_file();
    std::env::split_paths(&path).find(|folder| found(folder))
}
