//! Another machine, as it is written: for ssh, or by the address where it listens with TLS.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::destination::{Destination, split_port};

/// What an address for TLS begins with.
const HTTPS: &str = "https://";

/// The port of an address that has none.
const PORT: u16 = 443;

/// What is accepted, for the message of a refusal.
const ACCEPTED: &str = "expected https://HOST:PORT";

/// Another machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Machine {
    /// One that ssh reaches.
    Ssh(Destination),
    /// One whose hostd listens itself.
    Https(Address),
}

/// Where a hostd listens with TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl FromStr for Machine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix(HTTPS) {
            Some(rest) => Address::parse(rest).map(Self::Https),
            None => text.parse().map(Self::Ssh),
        }
    }
}

impl Address {
    fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = split_port(text.strip_suffix('/').unwrap_or(text))?;
        let port = match port.map(str::parse) {
            None => PORT,
            Some(Ok(port @ 1..)) => port,
            Some(Ok(0) | Err(_)) => return Err(format!("{port:?} is no port; {ACCEPTED}")),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        // A program that looks up names reads options, too.
        if host.is_empty() || host.starts_with('-') || !host.chars().all(plain) {
            return Err(ACCEPTED.to_owned());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(to, "{HTTPS}[{}]:{}", self.host, self.port),
            false => write!(to, "{HTTPS}{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ssh(destination) => destination.fmt(to),
            Self::Https(address) => address.fmt(to),
        }
    }
}

impl TryFrom<String> for Machine {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Machine> for String {
    fn from(machine: Machine) -> Self {
        machine.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_and_written() {
        for (text, written) in [
            ("https://box:4410", "https://box:4410"),
            ("https://box", "https://box:443"),
            ("https://192.0.2.7:1/", "https://192.0.2.7:1"),
            ("https://[2001:db8::1]:4410", "https://[2001:db8::1]:4410"),
        ] {
            let machine: Machine = text.parse().unwrap();
            assert!(matches!(machine, Machine::Https(_)), "{text}");
            assert_eq!(machine.to_string(), written);
            assert_eq!(written.parse(), Ok(machine));
        }
        assert!(matches!("ann@box:22".parse(), Ok(Machine::Ssh(_))));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "https://",
            "https://:1",
            "https://-x:1",
            "https://box:0",
            "https://box:70000",
            "https://ann@box:1",
            "https://box:1/path",
            "https://box:1?x",
            "https://[::1",
            "https://a b:1",
            "http://box:1",
        ] {
            assert!(text.parse::<Machine>().is_err(), "{text:?}");
        }
    }
}
