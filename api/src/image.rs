//! Images as the API shows them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One image that is ready to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// The full reference, e.g. `docker.io/library/debian:12`; the built-in image is `host`.
    pub reference: String,
    /// Digest of the manifest, `sha256:…`; empty for the built-in image.
    pub digest: String,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// Bytes of the unpacked layers; a layer that images share counts for each.
    pub size_bytes: u64,
    /// Number of layers.
    pub layers: usize,
    /// When the image says it was made.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created: Option<Timestamp>,
}

/// `POST /v1/images/pull`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PullRequest {
    /// The reference as the user wrote it.
    pub reference: String,
    /// `os/architecture[/variant]`; the host's own when absent.
    #[serde(default)]
    pub platform: Option<String>,
    /// Registry credentials (RFC 7617), for the registry of `reference` only.
    #[serde(default)]
    pub credentials: Option<Credentials>,
    /// Speak plain http to this registry. Never a silent fall-back; allowed
    /// without being asked for only where the registry is a loopback address.
    #[serde(default)]
    pub plain_http: bool,
}

/// User name and password for one registry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// One line of the JSON-lines answer of pull, load and import; the last line
/// is `Done` or `Failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "progress", rename_all = "snake_case")]
pub enum Progress {
    /// Bytes of a blob that arrived.
    Download {
        /// Digest of the blob.
        digest: String,
        /// Bytes that are here.
        done_bytes: u64,
        /// Its size.
        total_bytes: u64,
    },
    /// Compressed bytes of a layer that were unpacked.
    Unpack {
        /// Digest of the blob.
        digest: String,
        /// Compressed bytes that were read.
        done_bytes: u64,
        /// Its size.
        total_bytes: u64,
    },
    /// The layer was there already.
    Exists {
        /// Digest of the blob.
        digest: String,
    },
    /// The image is ready.
    Done {
        /// As it is listed from now on.
        image: Image,
    },
    /// It failed; nothing half-made is left.
    Failed {
        /// Why.
        error: crate::error::ApiError,
    },
}
