//! Who asks, and what they may.

use std::collections::BTreeSet;
use std::fmt;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use dyno_api::dyno::DynoSpec;
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::token::Scope;

use super::answer::Failure;
use super::scope::{self, Operation};
use crate::engine;
use crate::host::Host;

/// Who is at the other end of a connection. The listener says so, and nothing in a
/// request does.
#[derive(Debug, Clone)]
pub(super) enum Peer {
    /// A process of this machine, by the kernel's word.
    Local {
        /// Its user.
        uid: u32,
        /// Its id, where the kernel knows it.
        pid: Option<i32>,
    },
}

/// Who asks for one operation, and what they may.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    who: Peer,
    scopes: BTreeSet<Scope>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid, pid } => {
                write!(f, "user {uid}")?;
                pid.map_or(Ok(()), |pid| write!(f, ", process {pid}"))
            }
        }
    }
}

impl Caller {
    /// Whoever may use the socket may do everything: they can do what root can (P14).
    pub(super) fn local(who: Peer) -> Self {
        Self {
            who,
            scopes: Scope::ALL.into(),
        }
    }

    /// # Errors
    /// Forbidden, with the scope that is missing.
    pub(super) fn may(&self, operation: &Operation) -> Result<(), ApiError> {
        self.has(operation.scope, operation.name)
    }

    /// # Errors
    /// Forbidden, unless they may create such a dyno or go into it.
    pub(super) fn may_choose(&self, spec: &DynoSpec) -> Result<(), ApiError> {
        let what = |scope| match scope {
            Scope::Secrets => "a dyno that is given secrets",
            _ => {
                "a dyno with host folders, host devices, the host's network, more capabilities \
                 or new privileges"
            }
        };
        scope::asked_by(spec)
            .into_iter()
            .try_for_each(|scope| self.has(scope, what(scope)))
    }

    /// The id of a dyno that they may go into. What has its name a moment later may be
    /// another one.
    ///
    /// # Errors
    /// `NotFound`, Conflict, or Forbidden as with [`Caller::may_choose`].
    pub(super) fn may_enter(&self, host: &Host, dyno: &str) -> Result<String, ApiError> {
        let found = engine::find(host, dyno)?;
        let (id, allowed) = found.look(|dyno| (dyno.id.to_string(), self.may_choose(&dyno.spec)));
        allowed.map(|()| id)
    }

    fn has(&self, scope: Scope, what: &str) -> Result<(), ApiError> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        let message = format!("{} may not: {what} needs the scope `{scope}`", self.who);
        Err(ApiError::new(ErrorKind::Forbidden, message).hint(format!(
            "on the host, make a token that has it: `dyno token create NAME --scope {scope}`"
        )))
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parts.extensions.get().cloned().ok_or_else(unknown)
    }
}

/// A way in that says of nobody who they are is a mistake of ours.
pub(super) fn unknown() -> Failure {
    let message = "it is not known who asks";
    Failure(ApiError::new(ErrorKind::Forbidden, message))
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use dyno_api::secret::SecretFile;

    use super::*;

    fn with(scopes: &[Scope]) -> Caller {
        let who = Peer::Local { uid: 7, pid: None };
        Caller {
            who,
            scopes: scopes.iter().copied().collect(),
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let create = scope::operation(&Method::POST, "/v1/dynos").unwrap();
        let refused = with(&[Scope::Read, Scope::Secrets]).may(create);
        let error = refused.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Forbidden);
        assert!(error.message.contains("`run`"), "{error}");
        with(&[Scope::Run]).may(create).unwrap();
    }

    #[test]
    fn a_dyno_with_secrets_and_host_network_needs_both() {
        let file: SecretFile = serde_json::from_str(r#"{"name": "db"}"#).unwrap();
        let spec = DynoSpec {
            secrets: vec![file],
            net: dyno_api::dyno::NetMode::Host,
            ..DynoSpec::default()
        };
        with(&[Scope::Run, Scope::Secrets, Scope::Host])
            .may_choose(&spec)
            .unwrap();
        for (scopes, missing) in [
            ([Scope::Run, Scope::Secrets], "`host`"),
            ([Scope::Run, Scope::Host], "`secrets`"),
        ] {
            let error = with(&scopes).may_choose(&spec).unwrap_err();
            assert!(error.message.contains(missing), "{error}");
        }
    }
}
