//! Where a drain leads: its URL, parsed.

use dyno_api::error::{ApiError, ErrorKind};
use http::Uri;

/// IANA's port of syslog over TLS (RFC 5425, section 4.1).
const SYSLOG_TLS: u16 = 6514;
/// P15.
const MAX_URL: usize = 2048;

/// What is spoken with the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// RFC 5424 in the framing of RFC 5425.
    Syslog,
    /// A POST of JSON lines.
    Http,
}

/// A receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) protocol: Protocol,
    pub(super) tls: bool,
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Of HTTP: path and query.
    pub(super) path: String,
}

/// The receiver that a URL means.
///
/// # Errors
/// Invalid, with what is wrong and what to write.
pub(super) fn parse(url: &str) -> Result<Target, ApiError> {
    let refused = |why: &str| {
        ApiError::new(ErrorKind::Invalid, format!("{url:?} is no drain: {why}")).hint(
            "write syslog+tls://HOST[:PORT], https://HOST/PATH, or without encryption \
             syslog+tcp://HOST:PORT or http://HOST/PATH",
        )
    };
    if url.len() > MAX_URL {
        return Err(refused("it is too long"));
    }
    let uri: Uri = url.parse().map_err(|error| refused(&format!("{error}")))?;
    let (protocol, tls, port) = match uri.scheme_str() {
        Some("syslog+tls") => (Protocol::Syslog, true, Some(SYSLOG_TLS)),
        Some("syslog+tcp") => (Protocol::Syslog, false, None),
        Some("https") => (Protocol::Http, true, Some(443)),
        Some("http") => (Protocol::Http, false, Some(80)),
        Some(_) => return Err(refused("nobody here speaks that scheme")),
        None => return Err(refused("it has no scheme")),
    };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        // They would be shown to whoever lists drains.
        return Err(refused("it has a user or a password in it"));
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    if host.is_empty() {
        return Err(refused("it has no host"));
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    if protocol == Protocol::Syslog && !matches!(path, "" | "/") {
        return Err(refused("syslog has no path"));
    }
    let given = authority.strip_prefix(uri.host().unwrap_or_default());
    let port = match given.unwrap_or_default().strip_prefix(':') {
        Some(given) => given.parse().ok().filter(|port: &u16| *port > 0),
        None => port,
    };
    let port = port.ok_or_else(|| refused("it needs a port, from 1 to 65535"))?;
    Ok(Target {
        protocol,
        tls,
        host: host.to_ascii_lowercase(),
        port,
        path: path.to_owned(),
    })
}

impl Target {
    /// As in a `Host` header.
    pub(super) fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_protocol_encryption_and_place() {
        use Protocol::{Http, Syslog};
        for (url, protocol, tls, authority, path) in [
            (
                "syslog+tls://Logs.example",
                Syslog,
                true,
                "logs.example:6514",
                "/",
            ),
            ("syslog+tls://10.0.0.1:99", Syslog, true, "10.0.0.1:99", "/"),
            ("syslog+tcp://[::1]:514", Syslog, false, "[::1]:514", "/"),
            ("https://a.example", Http, true, "a.example:443", "/"),
            ("http://a:8080/x?y=z", Http, false, "a:8080", "/x?y=z"),
        ] {
            let target = parse(url).unwrap();
            assert_eq!((target.protocol, target.tls), (protocol, tls), "{url}");
            assert_eq!(target.authority(), authority);
            assert_eq!(target.path, path);
        }
    }

    #[test]
    fn what_is_not_clear_is_refused() {
        for url in [
            "",
            "logs.example",
            "syslog://a",
            "udp://a:1",
            "syslog+tcp://a",
            "syslog+tls://a/path",
            "https://user:secret@a/",
            "https:///x",
            "http://a:0/",
            "https://a:99999/",
            &format!("https://a/{}", "x".repeat(3000)),
        ] {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid, "{url}");
            assert!(error.hint.is_some());
        }
    }
}
