//! What this runtime supports, as callers ask for it (OCI runtime spec, features.md).

use crate::plan;

/// Every mount option that is not a file system's own, sorted.
pub fn mount_options() -> Vec<String> {
    plan::known_mount_options()
}
