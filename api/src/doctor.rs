//! What a look at the machine found, `GET /v1/doctor`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One thing that dynos need, and whether it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostCheck {
    /// What was looked at, a word or two.
    pub name: String,
    /// How it is.
    pub state: CheckState,
    /// What was found, a sentence.
    pub found: String,
    /// What to do about it, where that is known.
    pub advice: Option<String>,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// As it should be.
    Ok,
    /// Dynos run; something is less than it could be, or soon will be.
    Warning,
    /// Dynos do not run, or not all that they are promised.
    Failure,
}

impl HostCheck {
    /// All is well.
    #[must_use]
    pub fn ok(name: &str, found: impl Into<String>) -> Self {
        Self::new(name, CheckState::Ok, found)
    }

    /// Something is less than it could be.
    #[must_use]
    pub fn warning(name: &str, found: impl Into<String>) -> Self {
        Self::new(name, CheckState::Warning, found)
    }

    /// Something is missing.
    #[must_use]
    pub fn failure(name: &str, found: impl Into<String>) -> Self {
        Self::new(name, CheckState::Failure, found)
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn advise(self, advice: impl Into<String>) -> Self {
        Self {
            advice: Some(advice.into()),
            ..self
        }
    }

    fn new(name: &str, state: CheckState, found: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            state,
            found: found.into(),
            advice: None,
        }
    }
}
