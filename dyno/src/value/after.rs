//! Whom a dyno comes after: `NAME[:started|:ready]`.

use dyno_api::dyno::{Dependency, Until};
use dyno_api::name::NameError;

/// Why a text names nobody to come after.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AfterError {
    #[error("{0}")]
    Name(#[from] NameError),
    #[error("{0:?} is neither `started` nor `ready`")]
    Until(String),
}

/// A dependency.
pub(crate) fn parse(text: &str) -> Result<Dependency, AfterError> {
    let (name, until) = text.split_once(':').unwrap_or((text, "started"));
    let until = match until {
        "started" => Until::Started,
        "ready" => Until::Ready,
        other => return Err(AfterError::Until(other.to_owned())),
    };
    let name = name.parse()?;
    Ok(Dependency { name, until })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_is_started() {
        for (text, until) in [
            ("db", Until::Started),
            ("db:started", Until::Started),
            ("db:ready", Until::Ready),
        ] {
            let dependency = parse(text).unwrap();
            assert_eq!((dependency.name.as_str(), dependency.until), ("db", until));
        }
        assert_eq!(parse("db:up"), Err(AfterError::Until("up".to_owned())));
        assert!(matches!(parse("My_DB"), Err(AfterError::Name(_))));
    }
}
