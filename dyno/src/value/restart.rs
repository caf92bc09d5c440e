//! Restart policies: `no`, `on-failure[:N]`, `always`.

use dyno_api::dyno::RestartPolicy;

/// Why a text is not a restart policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RestartError {
    #[error("accepted are no, on-failure, on-failure:N and always")]
    Policy,
    #[error("{0:?} is not a number of retries; accepted are 1 and more")]
    Retries(String),
}

/// A restart policy.
pub(crate) fn parse(text: &str) -> Result<RestartPolicy, RestartError> {
    match text.split_once(':') {
        None => match text {
            "no" => Ok(RestartPolicy::No),
            "on-failure" => Ok(RestartPolicy::OnFailure { max_retries: None }),
            "always" => Ok(RestartPolicy::Always),
            _ => Err(RestartError::Policy),
        },
        Some(("on-failure", retries)) => match retries.parse::<u32>() {
            Ok(max) if max > 0 => Ok(RestartPolicy::OnFailure {
                max_retries: Some(max),
            }),
            _ => Err(RestartError::Retries(retries.to_owned())),
        },
        Some(_) => Err(RestartError::Policy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_form_parses() {
        assert_eq!(parse("no"), Ok(RestartPolicy::No));
        assert_eq!(parse("always"), Ok(RestartPolicy::Always));
        let failure = |max_retries| Ok(RestartPolicy::OnFailure { max_retries });
        assert_eq!(parse("on-failure"), failure(None));
        assert_eq!(parse("on-failure:5"), failure(Some(5)));
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for bad in ["", "yes", "Always", "always:3", "unless-stopped"] {
            assert_eq!(parse(bad), Err(RestartError::Policy), "{bad:?}");
        }
        for bad in ["0", "", "-1", "many"] {
            let refusal = Err(RestartError::Retries(bad.to_owned()));
            assert_eq!(parse(&format!("on-failure:{bad}")), refusal);
        }
    }
}
