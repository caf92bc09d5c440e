//! Resource limits: `--ulimit nofile=1024[:2048]`.

use dyno_api::dyno::Ulimit;

/// The names that setrlimit(2) knows, lower case.
const NAMES: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Why a text is not a resource limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UlimitError {
    #[error("accepted is name=soft[:hard], such as nofile=1024:2048")]
    Syntax,
    #[error("{0:?} is not a resource limit; accepted are {list}", list = NAMES.join(", "))]
    Name(String),
    #[error("{0:?} is not a value; accepted are numbers and unlimited")]
    Value(String),
    #[error("the soft limit {soft} exceeds the hard limit {hard}")]
    Order { soft: u64, hard: u64 },
}

/// Name and values of a limit; one value is soft and hard.
pub(crate) fn parse(text: &str) -> Result<(String, Ulimit), UlimitError> {
    let (name, values) = text.split_once('=').ok_or(UlimitError::Syntax)?;
    if !NAMES.contains(&name) {
        return Err(UlimitError::Name(name.to_owned()));
    }
    Ok((name.to_owned(), parse_values(values)?))
}

/// Soft and hard value of a limit; one value is both.
pub(crate) fn parse_values(values: &str) -> Result<Ulimit, UlimitError> {
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let limit = Ulimit {
        soft: value(soft)?,
        hard: value(hard)?,
    };
    if limit.soft > limit.hard {
        return Err(UlimitError::Order {
            soft: limit.soft,
            hard: limit.hard,
        });
    }
    Ok(limit)
}

fn value(text: &str) -> Result<u64, UlimitError> {
    match text {
        "unlimited" | "-1" => Ok(u64::MAX),
        _ if text.starts_with('+') => Err(UlimitError::Value(text.to_owned())),
        number => number
            .parse()
            .map_err(|_no_number| UlimitError::Value(number.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_value_is_both() {
        let limit = |soft, hard| Ok(("nofile".to_owned(), Ulimit { soft, hard }));
        assert_eq!(parse("nofile=1024:2048"), limit(1024, 2048));
        assert_eq!(parse("nofile=1024"), limit(1024, 1024));
        assert_eq!(parse("nofile=1024:unlimited"), limit(1024, u64::MAX));
        assert_eq!(parse("nofile=-1"), limit(u64::MAX, u64::MAX));
    }

    #[test]
    fn what_is_no_limit_is_refused_by_name() {
        assert_eq!(parse("nofile"), Err(UlimitError::Syntax));
        assert_eq!(parse("files=3"), Err(UlimitError::Name("files".to_owned())));
        assert_eq!(
            parse("nofile=many"),
            Err(UlimitError::Value("many".to_owned()))
        );
        assert_eq!(
            parse("nofile=3:2"),
            Err(UlimitError::Order { soft: 3, hard: 2 })
        );
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in ".{0,24}") {
            drop(parse(&text));
        }
    }
}
