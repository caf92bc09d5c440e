//! What whoever is not on the host may do there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A part of what can be asked of a host. Each operation belongs to one, and none
/// contains another.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// See what there is and how it is: dynos with their variables, images, volumes, events,
    /// measurements.
    Read,
    /// Read what dynos write.
    Logs,
    /// Create, start, stop and remove dynos, go into them, and keep their images and volumes.
    Run,
    /// Set and remove secrets, give them to dynos, and go into dynos that are given some.
    Secrets,
    /// Do what root of the host can.
    Host,
}

/// Why a text is no [`Scope`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no scope; there are read, logs, run, secrets and host")]
pub struct ScopeError(String);

impl Scope {
    /// Every scope, the weakest first.
    pub const ALL: [Self; 5] = [Self::Read, Self::Logs, Self::Run, Self::Secrets, Self::Host];

    /// Its name, as it travels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Logs => "logs",
            Self::Run => "run",
            Self::Secrets => "secrets",
            Self::Host => "host",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let found = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        found.ok_or_else(|| ScopeError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_travels_by_its_name() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(scope));
            let json = serde_json::to_string(&scope).unwrap();
            assert_eq!(json, format!("{:?}", scope.as_str()));
        }
        let error = "Read".parse::<Scope>().unwrap_err();
        assert!(
            Scope::ALL
                .iter()
                .all(|scope| error.to_string().contains(scope.as_str()))
        );
    }
}
