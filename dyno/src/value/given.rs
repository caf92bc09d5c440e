//! What a dyno is given as files and variables:
//! `NAME[:target=PATH,mode=0400,uid=N,gid=N]`, `VARIABLE=NAME` and
//! `FILE:/path[:mode=0444]`.

use std::path::PathBuf;

use dyno_api::secret::{SecretFile, SecretName, SecretNameError};

/// Why a text is none of these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GivenError {
    #[error(transparent)]
    Name(#[from] SecretNameError),
    #[error("{0:?} is no option; accepted are target=PATH, mode=0400, uid=N and gid=N")]
    Option(String),
    #[error("{0:?} is no mode; accepted are permission bits in octal, such as 0440")]
    Mode(String),
    #[error("{0:?} is no id; accepted are numbers up to 65535")]
    Id(String),
    #[error("accepted is VARIABLE=SECRET")]
    Variable,
    #[error("accepted is FILE:/path[:mode=0444]")]
    Syntax,
}

/// A secret as a file.
pub(crate) fn parse_secret(text: &str) -> Result<SecretFile, GivenError> {
    let (name, options) = match text.split_once(':') {
        Some((name, options)) => (name, Some(options)),
        None => (text, None),
    };
    let mut file = SecretFile {
        name: name.parse()?,
        target: None,
        mode: None,
        uid: None,
        gid: None,
    };
    for option in options.into_iter().flat_map(|options| options.split(',')) {
        match option.split_once('=') {
            Some(("target", path)) if !path.is_empty() => file.target = Some(path.to_owned()),
            Some(("mode", mode)) => file.mode = Some(parse_mode(mode)?),
            Some(("uid", id)) => file.uid = Some(parse_id(id)?),
            Some(("gid", id)) => file.gid = Some(parse_id(id)?),
            _ => return Err(GivenError::Option(option.to_owned())),
        }
    }
    Ok(file)
}

/// A secret as a variable.
pub(crate) fn parse_variable(text: &str) -> Result<(String, SecretName), GivenError> {
    match text.split_once('=') {
        Some((variable, name)) if !variable.is_empty() => Ok((variable.to_owned(), name.parse()?)),
        _ => Err(GivenError::Variable),
    }
}

/// A file of this machine, and where a copy of it is in the dyno.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigFileFlag {
    pub(crate) source: PathBuf,
    pub(crate) target: String,
    pub(crate) mode: Option<u32>,
}

/// A configuration file.
pub(crate) fn parse_config_file(text: &str) -> Result<ConfigFileFlag, GivenError> {
    let mut parts = text.split(':');
    let (source, target, option) = (parts.next(), parts.next(), parts.next());
    let (Some(source), Some(target), None) = (source, target, parts.next()) else {
        return Err(GivenError::Syntax);
    };
    if source.is_empty() || !target.starts_with('/') {
        return Err(GivenError::Syntax);
    }
    let mode = match option.map(|option| option.split_once('=')) {
        None => None,
        Some(Some(("mode", mode))) => Some(parse_mode(mode)?),
        Some(_) => return Err(GivenError::Syntax),
    };
    Ok(ConfigFileFlag {
        source: source.into(),
        target: target.to_owned(),
        mode,
    })
}

/// Permission bits, in octal.
pub(crate) fn parse_mode(text: &str) -> Result<u32, GivenError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match u32::from_str_radix(text, 8) {
        Ok(mode) if digits && mode <= 0o777 => Ok(mode),
        _ => Err(GivenError::Mode(text.to_owned())),
    }
}

/// A user's or a group's number inside.
pub(crate) fn parse_id(text: &str) -> Result<u32, GivenError> {
    match text.parse::<u16>() {
        Ok(id) if !text.starts_with('+') => Ok(id.into()),
        _ => Err(GivenError::Id(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_a_name_and_maybe_options() {
        let plain = parse_secret("db_password").unwrap();
        assert_eq!(plain.path(), "/run/secrets/db_password");
        assert_eq!((plain.mode, plain.uid, plain.gid), (None, None, None));
        let full = parse_secret("tls.key:target=/etc/tls/key,mode=0440,uid=101,gid=102").unwrap();
        assert_eq!(full.path(), "/etc/tls/key");
        assert_eq!(
            (full.mode, full.uid, full.gid),
            (Some(0o440), Some(101), Some(102))
        );
    }

    #[test]
    fn what_is_no_secret_is_refused_by_name() {
        assert!(matches!(parse_secret(""), Err(GivenError::Name(_))));
        assert!(matches!(parse_secret("a/b"), Err(GivenError::Name(_))));
        for bad in ["a:", "a:ro", "a:target=", "a:mode=0400,"] {
            assert!(
                matches!(parse_secret(bad), Err(GivenError::Option(_))),
                "{bad}"
            );
        }
        for bad in ["a:mode=888", "a:mode=4755", "a:mode=+7", "a:mode="] {
            assert!(
                matches!(parse_secret(bad), Err(GivenError::Mode(_))),
                "{bad}"
            );
        }
        assert!(matches!(
            parse_secret("a:uid=65536"),
            Err(GivenError::Id(_))
        ));
    }

    #[test]
    fn a_variable_is_given_the_value_of_a_secret() {
        let (variable, name) = parse_variable("PGPASSWORD=db").unwrap();
        assert_eq!((variable.as_str(), name.as_str()), ("PGPASSWORD", "db"));
        for bad in ["db", "=db", "X="] {
            assert!(parse_variable(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_configuration_file_is_a_path_here_and_one_inside() {
        let flag = parse_config_file("./app.toml:/etc/app.toml:mode=0440").unwrap();
        assert_eq!(flag.source, PathBuf::from("./app.toml"));
        assert_eq!(
            (flag.target.as_str(), flag.mode),
            ("/etc/app.toml", Some(0o440))
        );
        for bad in ["", "x", "x:y", ":/y", "x:/y:ro", "x:/y:mode=0444:z"] {
            assert!(parse_config_file(bad).is_err(), "{bad}");
        }
    }
}
