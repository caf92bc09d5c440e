//! Who asks, and what they may.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use dyno_api::dyno::DynoSpec;
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::token::Scope;
use jiff::Timestamp;

use super::answer::Failure;
use super::scope::{self, Operation};
use crate::engine;
use crate::host::Host;
use crate::remote::Session;
use crate::tokens::Live;

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
    /// Somebody elsewhere, who has a token or is nobody.
    Remote(Arc<Session>),
}

/// Who asks for one operation.
#[derive(Debug, Clone)]
pub(super) enum Caller {
    /// A process of this machine. Whoever may use the socket may do everything: they can do
    /// what root can (P14).
    Local {
        /// Its user.
        uid: u32,
        /// Its id, where the kernel knows it.
        pid: Option<i32>,
    },
    /// Whoever has this token.
    Remote {
        /// The token.
        token: Arc<Live>,
        /// Where they are.
        address: SocketAddr,
    },
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid, pid: None } => write!(f, "user {uid}"),
            Self::Local {
                uid,
                pid: Some(pid),
            } => write!(f, "user {uid} (process {pid})"),
            Self::Remote { token, address } => write!(f, "the token {} ({address})", token.name()),
        }
    }
}

impl Caller {
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

    /// Whether they may say what dynos run of whom they know nothing: whichever mount a
    /// volume later, with whatever they have.
    ///
    /// # Errors
    /// Forbidden, unless they may create and enter every dyno.
    pub(super) fn may_have_run(&self) -> Result<(), ApiError> {
        let what = "a command that every dyno with the volume runs";
        self.has(Scope::Host, what)?;
        self.has(Scope::Secrets, what)
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

    /// Nobody makes a token that is good for more than their own, or for longer.
    ///
    /// # Errors
    /// Forbidden, with what is too much.
    pub(super) fn may_grant(
        &self,
        scopes: &BTreeSet<Scope>,
        expires: Option<Timestamp>,
    ) -> Result<(), ApiError> {
        let what = "a token with a scope that its maker has not";
        scopes.iter().try_for_each(|scope| self.has(*scope, what))?;
        let own = match self {
            Self::Local { .. } => return Ok(()),
            Self::Remote { token, .. } => token.expires(),
        };
        match (own, expires) {
            (Some(own), expires) if expires.is_none_or(|expires| expires > own) => {
                let message = format!("{self} expires at {own:.0} and makes none that ends later");
                Err(ApiError::new(ErrorKind::Forbidden, message)
                    .hint("ask for a shorter time (`--expires`)"))
            }
            _ => Ok(()),
        }
    }

    fn has(&self, scope: Scope, what: &str) -> Result<(), ApiError> {
        match self {
            Self::Local { .. } => return Ok(()),
            Self::Remote { token, .. } if token.scopes().contains(&scope) => return Ok(()),
            Self::Remote { .. } => {}
        }
        let message = format!("{self} may not: {what} needs the scope `{scope}`");
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
        until(scopes, None)
    }

    fn until(scopes: &[Scope], expires: Option<Timestamp>) -> Caller {
        Caller::Remote {
            token: Arc::new(Live::with(1, scopes, expires)),
            address: "192.0.2.1:9".parse().unwrap(),
        }
    }

    #[test]
    fn nobody_grants_more_than_they_have() {
        let now = Timestamp::now();
        let later = now + jiff::SignedDuration::from_secs(60);
        let caller = until(&[Scope::Host, Scope::Read], Some(now));
        let grant = |scope: Scope, expires| caller.may_grant(&[scope].into(), expires);
        grant(Scope::Read, Some(now)).unwrap();
        for (scope, expires) in [
            (Scope::Run, Some(now)),
            (Scope::Read, Some(later)),
            (Scope::Read, None),
        ] {
            let error = grant(scope, expires).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Forbidden, "{scope} {expires:?}");
        }
        let local = Caller::Local { uid: 0, pid: None };
        local.may_grant(&Scope::ALL.into(), None).unwrap();
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
