//! A secret whose value an app's file brings along.

use std::fmt;

use dyno_api::secret::SecretName;

/// A secret that `up` sets.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct OwnSecret {
    /// Its name on the host.
    pub(crate) name: SecretName,
    /// What nobody is shown.
    pub(crate) value: Vec<u8>,
}

impl fmt::Debug for OwnSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnSecret")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
