//! Published ports of a service (Compose Specification, ports).
//!
//! ```text
//! "80"  "8080:80"  "127.0.0.1:8080:80/udp"     as `dyno run -p` has them
//! "::1:8080:80"                                IPv6 without brackets, too
//! "8000-8002:80-82"                            as many ports as there are
//! { target: 80, published: "8080", host_ip: 127.0.0.1, protocol: udp }
//! ```

use dyno_api::dyno::{PortMapping, Protocol};

use super::super::document::{Expected, Item, Value};
use super::only;
use crate::value::port::{self, PortError};

/// Ports of one range.
const MAX_RANGE: usize = 256;

/// Why a text is no published ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum PortsError {
    #[error(transparent)]
    Port(#[from] PortError),
    #[error("a range has its lower end first, and at most {MAX_RANGE} ports")]
    Range,
    #[error("the two ranges have different lengths")]
    Lengths,
}

/// The ports of one entry.
pub(super) fn of(item: &Item<'_>) -> Vec<PortMapping> {
    match item.node.value {
        Value::Map(_) => long(item).into_iter().collect(),
        _ => item.parsed(short).unwrap_or_default(),
    }
}

fn short(text: &str) -> Result<Vec<PortMapping>, PortsError> {
    let (ports, protocol) = text.split_at(text.find('/').unwrap_or(text.len()));
    let (before, dyno) = match ports.rsplit_once(':') {
        Some((before, dyno)) => (Some(before), dyno),
        None => (None, ports),
    };
    let (address, host) = match before.and_then(|before| before.rsplit_once(':')) {
        Some((address, host)) => (bracketed(address), Some(host)),
        None => (String::new(), before),
    };
    let dynos = range(dyno)?;
    let hosts: Vec<String> = match host {
        None => vec![String::new(); dynos.len()],
        Some("") if !address.is_empty() => vec![":".to_owned(); dynos.len()],
        Some(host) => range(host)?.iter().map(|host| format!("{host}:")).collect(),
    };
    if hosts.len() != dynos.len() {
        return Err(PortsError::Lengths);
    }
    let one = |(host, dyno)| Ok(port::parse(&format!("{address}{host}{dyno}{protocol}"))?);
    hosts.iter().zip(dynos).map(one).collect()
}

/// An address of IPv6 may be without brackets here.
fn bracketed(address: &str) -> String {
    match address.contains(':') && !address.starts_with('[') {
        true => format!("[{address}]:"),
        false => format!("{address}:"),
    }
}

/// A port, or all from one to another.
fn range(text: &str) -> Result<Vec<u16>, PortsError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let ports = port::port(first)?..=port::port(last)?;
    match ports.len() {
        1..=MAX_RANGE => Ok(ports.collect()),
        _ => Err(PortsError::Range),
    }
}

fn long(item: &Item<'_>) -> Option<PortMapping> {
    let mut fields = item.fields()?;
    let dyno_port = fields.read("target", |item| item.parsed(port::port));
    if dyno_port.is_none() {
        item.wrong("target: a port is expected");
    }
    let published = fields.take("published");
    let published = published.filter(|item| item.node.value != Value::Text(String::new()));
    let host_port = published.and_then(|item| item.parsed(port::port));
    let address = fields.read("host_ip", Item::typed);
    let protocol = fields.read("protocol", |item| item.parsed(protocol));
    only(&mut fields, "mode", &["host", "ingress"]);
    // Words for people.
    fields.ignore(|key| ["name", "app_protocol"].contains(&key) || key.starts_with("x-"));
    fields.finish();
    Some(PortMapping {
        address,
        host_port,
        dyno_port: dyno_port?,
        protocol: protocol.unwrap_or_default(),
    })
}

fn protocol(text: &str) -> Result<Protocol, Expected> {
    match text {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err(Expected("tcp or udp")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(Option<u16>, u16)> {
        let ports = short(text).unwrap();
        ports.iter().map(|p| (p.host_port, p.dyno_port)).collect()
    }

    #[test]
    fn a_range_is_as_many_ports() {
        assert_eq!(pairs("8080:80"), [(Some(8080), 80)]);
        assert_eq!(pairs("80-82"), [(None, 80), (None, 81), (None, 82)]);
        assert_eq!(pairs("90-91:80-81"), [(Some(90), 80), (Some(91), 81)]);
        for text in [
            "[::1]:90-91:80-81/udp",
            "::1:90-91:80-81/udp",
            "127.0.0.1::80-81/udp",
        ] {
            let ports = short(text).unwrap();
            assert_eq!(ports.len(), 2, "{text}");
            let all = |port: &PortMapping| port.address.is_some() && port.protocol == Protocol::Udp;
            assert!(ports.iter().all(all), "{text}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        assert_eq!(short("82-80"), Err(PortsError::Range));
        assert_eq!(short("1-65535"), Err(PortsError::Range));
        assert_eq!(short("90-92:80-81"), Err(PortsError::Lengths));
        // One of them, whichever is free.
        assert_eq!(short("8000-9000:80"), Err(PortsError::Range));
        assert_eq!(short("90-91:80"), Err(PortsError::Lengths));
        for bad in [
            "",
            ":",
            ":80",
            "80:",
            "-",
            "80-",
            "-80",
            "a-b:80",
            "80-81:",
            "127.0.0.1:80",
            "1.2.3.4:5:80-81:x",
            "[::1]",
            "80/sctp",
        ] {
            assert!(matches!(short(bad), Err(PortsError::Port(_))), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_ports_or_refused(text in "[0-9a-f:./\\[\\]udp-]{0,24}") {
            short(&text).ok();
        }
    }
}
