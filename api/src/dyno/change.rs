//! What a dyno has changed of its image's files.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One difference between a dyno's files and its image's,
/// `GET /v1/dynos/{dyno}/changes` (JSON lines).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// What became of it.
    pub kind: ChangeKind,
    /// Absolute path inside; bytes that are not UTF-8 are replaced.
    pub path: String,
}

/// What became of a file of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// The image has no such path.
    Added,
    /// It, its attributes, or something in the folder is another than the image's.
    Changed,
    /// The image has it and the dyno does not. What was in a folder that is
    /// deleted goes without saying.
    Deleted,
}
