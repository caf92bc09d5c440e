//! Dynos that belong together.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::name::DynoName;

/// The service that a dyno is a copy of. All copies that run are found by
/// `NAME.APP`, and by `NAME` alone from within the app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The app: what is described by one file and brought up together.
    pub app: DynoName,
    /// The process type within the app.
    pub name: DynoName,
    /// Digest of the image's manifest when the client looked it up. Kept as it is, for
    /// the client to find out whether the reference means another image since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
}

impl Service {
    /// The name that all copies answer to, beneath the domain of their network.
    pub fn host(&self) -> String {
        format!("{}.{}", self.name, self.app)
    }
}
