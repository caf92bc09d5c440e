//! Another machine, as it is written: `ann@box:2222`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A machine that ssh reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Destination {
    /// Who to be there; as ssh's configuration has it where none is given.
    pub(crate) user: Option<String>,
    /// A name or an address, or what ssh's configuration calls it.
    pub(crate) host: String,
    /// Where its ssh listens.
    pub(crate) port: Option<u16>,
    /// hostd's socket there, where it is not the usual one.
    pub(crate) socket: Option<String>,
}

/// What is accepted, for the message of a refusal.
const ACCEPTED: &str =
    "expected [USER@]HOST[:PORT], ssh://[USER@]HOST[:PORT][/SOCKET] or https://HOST:PORT";

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((scheme, _)) = text.split_once("://")
            && scheme != "ssh"
        {
            return Err(format!("{scheme}:// is not a way to hostd; {ACCEPTED}"));
        }
        let (rest, socket) = match text.strip_prefix("ssh://") {
            None => (text, None),
            Some(url) => match url.find('/') {
                Some(at) if url.len() > at + 1 => (&url[..at], Some(url[at..].to_owned())),
                Some(at) => (&url[..at], None),
                None => (url, None),
            },
        };
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user.to_owned()), rest),
            None => (None, rest),
        };
        let (host, port) = split_port(rest)?;
        let port = match port {
            None => None,
            Some(port) => match port.parse() {
                Ok(0) | Err(_) => return Err(format!("{port:?} is no port; {ACCEPTED}")),
                Ok(port) => Some(port),
            },
        };
        // ssh reads options where a name is expected, and a shell is on its other end.
        let plain = |word: &str| {
            let odd =
                |c: char| c.is_whitespace() || c.is_control() || "'\"\\$`;&|<>()[]/".contains(c);
            !word.is_empty() && !word.starts_with('-') && !word.contains(odd)
        };
        if !plain(host) || user.as_deref().is_some_and(|user| !plain(user)) {
            return Err(ACCEPTED.to_owned());
        }
        if socket.as_deref().is_some_and(|path| path.contains('\0')) {
            return Err("a path has no NUL".to_owned());
        }
        Ok(Self {
            user,
            host: host.to_owned(),
            port,
            socket,
        })
    }
}

/// `host:port`, `[address]:port`, a host alone, or an address of IPv6 alone.
pub(super) fn split_port(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((host, rest)) = rest.split_once(']') else {
            return Err(format!("\"[\" without \"]\"; {ACCEPTED}"));
        };
        return match (rest, rest.strip_prefix(':')) {
            ("", _) => Ok((host, None)),
            (_, Some(port)) => Ok((host, Some(port))),
            _ => Err(ACCEPTED.to_owned()),
        };
    }
    Ok(match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (text, None),
    })
}

impl Destination {
    /// As ssh takes it, without the port.
    pub(crate) fn login(&self) -> String {
        match &self.user {
            Some(user) => format!("{user}@{}", self.host),
            None => self.host.clone(),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.socket.is_some() {
            to.write_str("ssh://")?;
        }
        if let Some(user) = &self.user {
            write!(to, "{user}@")?;
        }
        match self.host.contains(':') {
            true => write!(to, "[{}]", self.host)?,
            false => to.write_str(&self.host)?,
        }
        if let Some(port) = self.port {
            write!(to, ":{port}")?;
        }
        to.write_str(self.socket.as_deref().unwrap_or_default())
    }
}

impl TryFrom<String> for Destination {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> Self {
        destination.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(text: &str) -> (Option<String>, String, Option<u16>, Option<String>) {
        let it: Destination = text.parse().unwrap();
        (it.user, it.host, it.port, it.socket)
    }

    #[test]
    fn each_form_is_read() {
        let some = |text: &str| Some(text.to_owned());
        for (text, user, host, port, socket) in [
            ("box", None, "box", None, None),
            ("ann@box", some("ann"), "box", None, None),
            ("ann@box:2222", some("ann"), "box", Some(2222), None),
            ("fe80::1", None, "fe80::1", None, None),
            ("[fe80::1%eth0]:22", None, "fe80::1%eth0", Some(22), None),
            ("ssh://ann@box:22", some("ann"), "box", Some(22), None),
            ("ssh://box/", None, "box", None, None),
            (
                "ssh://box/run/x.sock",
                None,
                "box",
                None,
                some("/run/x.sock"),
            ),
        ] {
            assert_eq!(parts(text), (user, host.to_owned(), port, socket), "{text}");
        }
    }

    #[test]
    fn what_ssh_or_a_shell_would_take_for_something_else_is_refused() {
        for text in [
            "",
            "@box",
            "ann@",
            "-oProxyCommand=id",
            "-l@box",
            "ann@-p",
            "box;id",
            "$(id)",
            "a b",
            "box:0",
            "box:x",
            "box:70000",
            "[::1",
            "[::1]x",
            "http://box",
        ] {
            assert!(text.parse::<Destination>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(text in "(ssh://)?([a-z@]{0,3}@)?(\\[)?[a-z0-9:.-]{1,9}(\\])?(:[0-9]{1,5})?(/[ -~]{0,8})?") {
            if let Ok(destination) = text.parse::<Destination>() {
                prop_assert_eq!(destination.to_string().parse::<Destination>(), Ok(destination));
            }
        }

        #[test]
        fn no_text_panics(text: String) {
            drop(text.parse::<Destination>());
        }
    }
}
