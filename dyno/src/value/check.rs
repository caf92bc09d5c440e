//! Health checks: `[OPTION=VALUE …] CHECK`.
//!
//! ```text
//! tcp://:5432
//! interval=5s timeout=1s failures=3 http://:8080/health
//! status=200-299 host=example.org contains=ok https://:8443/
//! grpc://:50051/shop.Basket            a server, or one of its services
//! exec:pg_isready -U postgres          words as they are
//! sh:test -e /tmp/ready && echo well   a line for /bin/sh
//! ```

use dyno_api::health::{Check, GrpcProbe, HttpProbe, Probe};

use super::duration;

/// Why a text is not a check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CheckError {
    #[error(
        "accepted are tcp://:PORT, http://:PORT/PATH, https://:PORT/PATH, grpc://:PORT/SERVICE, grpcs://:PORT/SERVICE, exec:PROGRAM and sh:LINE"
    )]
    Kind,
    #[error("{0:?} is not a port; accepted are 1 to 65535")]
    Port(String),
    #[error("a check goes to the dyno itself: write {0}://:PORT, with host=NAME for a name")]
    Host(&'static str),
    #[error(
        "there is no option {0:?}; there are interval, timeout, failures, successes, status, host and contains"
    )]
    Option(String),
    #[error("{option}={value} is not understood")]
    Value { option: String, value: String },
    #[error("{0}= is for http and https only")]
    NotHttp(&'static str),
    #[error("host= is for http, https, grpc and grpcs only")]
    NoHost,
}

/// A check.
pub(crate) fn parse(text: &str) -> Result<Check, CheckError> {
    let (options, probe) = split(text.trim());
    let mut check = Check {
        probe: self::probe(probe)?,
        interval_ms: None,
        timeout_ms: None,
        failures: None,
        successes: None,
    };
    for (option, value) in options {
        set(&mut check, option, value)?;
    }
    Ok(check)
}

/// Options are the words with a `=` in front of the check; a check begins with
/// a word that has a `:` before any `=`.
fn split(text: &str) -> (Vec<(&str, &str)>, &str) {
    let (mut options, mut rest) = (Vec::new(), text);
    loop {
        let (word, tail) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        match word.split_once('=') {
            Some((option, value)) if !option.contains(':') => options.push((option, value)),
            _ => return (options, rest),
        }
        rest = tail.trim_start();
    }
}

fn probe(text: &str) -> Result<Probe, CheckError> {
    let Some((kind, rest)) = text.split_once(':') else {
        return Err(CheckError::Kind);
    };
    let words = |words: &mut dyn Iterator<Item = &str>| words.map(str::to_owned).collect();
    match kind {
        "tcp" => match address("tcp", rest)? {
            (port, "") => Ok(Probe::Tcp { port }),
            _ => Err(CheckError::Kind),
        },
        "http" => Ok(http(address("http", rest)?, false)),
        "https" => Ok(http(address("https", rest)?, true)),
        "grpc" => Ok(grpc(address("grpc", rest)?, false)),
        "grpcs" => Ok(grpc(address("grpcs", rest)?, true)),
        "exec" => Ok(Probe::Command {
            command: words(&mut rest.split_whitespace()),
        }),
        "sh" => Ok(Probe::Command {
            command: words(&mut ["/bin/sh", "-c", rest.trim()].into_iter()),
        }),
        _ => Err(CheckError::Kind),
    }
}

/// `//:8080/health` → 8080, `/health`.
fn address<'a>(kind: &'static str, text: &'a str) -> Result<(u16, &'a str), CheckError> {
    let text = text.strip_prefix("//").ok_or(CheckError::Kind)?;
    let text = text.strip_prefix(':').ok_or(CheckError::Host(kind))?;
    let (port, path) = text.split_at(text.find('/').unwrap_or(text.len()));
    match port.parse() {
        Ok(port @ 1..) => Ok((port, path)),
        _ => Err(CheckError::Port(port.to_owned())),
    }
}

fn http((port, path): (u16, &str), tls: bool) -> Probe {
    Probe::Http(HttpProbe {
        port,
        tls,
        path: (!path.is_empty()).then(|| path.to_owned()),
        ..HttpProbe::default()
    })
}

fn grpc((port, service): (u16, &str), tls: bool) -> Probe {
    let service = service.trim_start_matches('/');
    Probe::Grpc(GrpcProbe {
        port,
        tls,
        service: (!service.is_empty()).then(|| service.to_owned()),
        host: None,
    })
}

fn set(check: &mut Check, option: &str, value: &str) -> Result<(), CheckError> {
    let bad = || CheckError::Value {
        option: option.to_owned(),
        value: value.to_owned(),
    };
    let time = || match duration::parse(value) {
        Ok(time) => Ok(Some(duration::millis(time))),
        Err(_) => Err(bad()),
    };
    let count = || value.parse().map(Some).map_err(|_not_a_number| bad());
    match option {
        "interval" => check.interval_ms = time()?,
        "timeout" => check.timeout_ms = time()?,
        "failures" => check.failures = count()?,
        "successes" => check.successes = count()?,
        "host" => match &mut check.probe {
            Probe::Http(HttpProbe { host, .. }) | Probe::Grpc(GrpcProbe { host, .. }) => {
                *host = Some(value.to_owned());
            }
            Probe::Tcp { .. } | Probe::Command { .. } => return Err(CheckError::NoHost),
        },
        "status" | "contains" => return set_http(&mut check.probe, option, value),
        other => return Err(CheckError::Option(other.to_owned())),
    }
    Ok(())
}

fn set_http(probe: &mut Probe, option: &str, value: &str) -> Result<(), CheckError> {
    let Probe::Http(probe) = probe else {
        return Err(CheckError::NotHttp(match option {
            "status" => "status",
            _ => "contains",
        }));
    };
    match option {
        "contains" => probe.contains = Some(value.to_owned()),
        _ => {
            let (least, most) = value.split_once('-').unwrap_or((value, value));
            let (Ok(least), Ok(most)) = (least.parse(), most.parse()) else {
                return Err(CheckError::Value {
                    option: option.to_owned(),
                    value: value.to_owned(),
                });
            };
            (probe.status_min, probe.status_max) = (Some(least), Some(most));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn command(text: &str) -> Vec<String> {
        match parse(text).unwrap().probe {
            Probe::Command { command } => command,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_documented_form_parses() {
        assert_eq!(
            parse("tcp://:5432").unwrap().probe,
            Probe::Tcp { port: 5432 }
        );
        let check =
            parse("interval=5s timeout=500ms failures=2 successes=4 http://:80/h?a=b:c").unwrap();
        assert_eq!(
            (check.interval_ms, check.timeout_ms),
            (Some(5000), Some(500))
        );
        assert_eq!((check.failures, check.successes), (Some(2), Some(4)));
        let Probe::Http(HttpProbe {
            path, tls: false, ..
        }) = check.probe
        else {
            panic!("{check:?}");
        };
        assert_eq!(path.as_deref(), Some("/h?a=b:c"));
        let full = "status=200-204 host=a.example contains=ok https://:8443";
        let expected = Probe::Http(HttpProbe {
            port: 8443,
            tls: true,
            path: None,
            host: Some("a.example".to_owned()),
            status_min: Some(200),
            status_max: Some(204),
            contains: Some("ok".to_owned()),
        });
        assert_eq!(parse(full).unwrap().probe, expected);
        let grpc = |text| parse(text).unwrap().probe;
        let of = |tls, service: Option<&str>, host: Option<&str>| {
            Probe::Grpc(GrpcProbe {
                port: 50051,
                tls,
                service: service.map(str::to_owned),
                host: host.map(str::to_owned),
            })
        };
        assert_eq!(grpc("grpc://:50051"), of(false, None, None));
        assert_eq!(
            grpc("host=a grpcs://:50051/shop.Basket"),
            of(true, Some("shop.Basket"), Some("a"))
        );
        assert_eq!(
            command("exec:pg_isready -U  x=y"),
            ["pg_isready", "-U", "x=y"]
        );
        assert_eq!(
            command("failures=1 sh:a=1; test $a = 1"),
            ["/bin/sh", "-c", "a=1; test $a = 1"]
        );
    }

    #[test]
    fn what_is_no_check_is_refused_with_what_is_wrong() {
        let port = |text: &str| Err(CheckError::Port(text.to_owned()));
        assert_eq!(parse("tcp://:0"), port("0"));
        assert_eq!(parse("http://:x/"), port("x"));
        assert_eq!(parse("http://web:80/"), Err(CheckError::Host("http")));
        for bad in [
            "",
            "80",
            "ftp://:1",
            "tcp://:80/x",
            "interval=5s",
            "http:80",
        ] {
            assert_eq!(parse(bad), Err(CheckError::Kind), "{bad:?}");
        }
        let unknown = Err(CheckError::Option("retries".to_owned()));
        assert_eq!(parse("retries=3 tcp://:1"), unknown);
        assert_eq!(parse("host=a tcp://:1"), Err(CheckError::NoHost));
        for bad in [
            "interval=soon tcp://:1",
            "status=2xx http://:1",
            "failures=-1 tcp://:1",
        ] {
            assert!(matches!(parse(bad), Err(CheckError::Value { .. })), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in ".{0,40}") {
            parse(&text).ok();
        }
    }
}
