//! Limits on a disk: `read=10M,write=5M,reads=200,writes=100`, each for a second.

use dyno_api::dyno::IoLimits;

use super::size;

/// Why a text names no limits on a disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IoError {
    #[error("{0:?} is no limit; accepted are read=10M,write=5M,reads=200,writes=100")]
    Syntax(String),
    #[error("{0} is given twice")]
    Twice(String),
}

/// Some of the four. `none` is 0, which takes a limit away.
pub(crate) fn parse(text: &str) -> Result<IoLimits, IoError> {
    let mut limits = IoLimits::default();
    for part in text.split(',') {
        let syntax = || IoError::Syntax(part.to_owned());
        let (name, value) = part.split_once('=').ok_or_else(syntax)?;
        let (place, is_bytes) = match name {
            "read" => (&mut limits.read_bytes, true),
            "write" => (&mut limits.write_bytes, true),
            "reads" => (&mut limits.read_ops, false),
            "writes" => (&mut limits.write_ops, false),
            _ => return Err(syntax()),
        };
        let value = match (value, is_bytes) {
            ("none", _) => Some(0),
            (value, true) => size::parse(value).ok().filter(|bytes| *bytes > 0),
            (value, false) => value.parse().ok().filter(|count| *count > 0),
        };
        let value = value.ok_or_else(syntax)?;
        if place.replace(value).is_some() {
            return Err(IoError::Twice(name.to_owned()));
        }
    }
    Ok(limits)
}

/// Takes every limit away.
pub(crate) const NONE: IoLimits = IoLimits {
    read_bytes: Some(0),
    write_bytes: Some(0),
    read_ops: Some(0),
    write_ops: Some(0),
};

/// For a dyno that is made now: there is nothing to take away.
pub(crate) fn parse_new(text: &str) -> Result<IoLimits, IoError> {
    match text.split(',').find(|part| part.ends_with("=none")) {
        Some(part) => Err(IoError::Syntax(part.to_owned())),
        None => parse(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_of_four_limits_are_given() {
        let limits = parse("read=10M,writes=7,write=none").unwrap();
        let expected = IoLimits {
            read_bytes: Some(10 << 20),
            write_bytes: Some(0),
            read_ops: None,
            write_ops: Some(7),
        };
        assert_eq!(limits, expected);
    }

    #[test]
    fn what_is_no_limit_is_named() {
        for bad in [
            "", "read", "read=", "read=0", "reads=-1", "io=1M", "read=1M,",
        ] {
            assert!(matches!(parse(bad), Err(IoError::Syntax(_))), "{bad:?}");
        }
        assert_eq!(parse("read=1M,read=2M"), Err(IoError::Twice("read".into())));
        assert!(parse_new("read=1M,write=none").is_err());
    }
}
