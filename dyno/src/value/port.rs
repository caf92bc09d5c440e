//! Published ports: `[address:][host:]dyno[/tcp|/udp]`.
//!
//! ```text
//! 80                  a free port of the host → 80
//! 8080:80             8080 on every address → 80
//! 127.0.0.1:8080:80   only on that address
//! [::1]:8080:80/udp   IPv6 in brackets, UDP
//! 127.0.0.1::80       a free port on that address → 80
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dyno_api::dyno::{PortMapping, Protocol};

/// Why a text is not a published port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PortError {
    #[error("accepted is [address:][host:]dyno[/tcp|/udp], such as 8080:80 or [::1]:53:53/udp")]
    Syntax,
    #[error("{0:?} is not a port; accepted are 1 to 65535")]
    Port(String),
    #[error("{0:?} is not an IP address; IPv6 goes in brackets, such as [::1]:8080:80")]
    Address(String),
    #[error("{0:?} is not a protocol; accepted are tcp and udp")]
    Protocol(String),
}

/// One published port.
pub(crate) fn parse(text: &str) -> Result<PortMapping, PortError> {
    let (rest, protocol) = match text.split_once('/') {
        None => (text, Protocol::Tcp),
        Some((rest, "tcp")) => (rest, Protocol::Tcp),
        Some((rest, "udp")) => (rest, Protocol::Udp),
        Some((_, other)) => return Err(PortError::Protocol(other.to_owned())),
    };
    let (address, ports) = split_address(rest)?;
    let (host, dyno) = match ports.split_once(':') {
        None => ("", ports),
        Some((host, dyno)) if !dyno.contains(':') => (host, dyno),
        Some(_) => return Err(PortError::Syntax),
    };
    // `:80` alone has no address that the empty host port could belong to.
    if host.is_empty() && ports.starts_with(':') && address.is_none() {
        return Err(PortError::Syntax);
    }
    let host_port = if host.is_empty() {
        None
    } else {
        Some(port(host)?)
    };
    Ok(PortMapping {
        address,
        host_port,
        dyno_port: port(dyno)?,
        protocol,
    })
}

/// The address in front, if any, and the ports behind it.
fn split_address(text: &str) -> Result<(Option<IpAddr>, &str), PortError> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, ports) = bracketed.split_once("]:").ok_or(PortError::Syntax)?;
        let v6 = address.parse::<Ipv6Addr>();
        return v6
            .map(|v6| (Some(IpAddr::V6(v6)), ports))
            .map_err(|_not_v6| PortError::Address(address.to_owned()));
    }
    let Some((first, ports)) = text.split_once(':') else {
        return Ok((None, text));
    };
    match first.parse::<Ipv4Addr>() {
        Ok(v4) => Ok((Some(IpAddr::V4(v4)), ports)),
        Err(_) if text.matches(':').count() == 1 => Ok((None, text)),
        Err(_) => Err(PortError::Address(first.to_owned())),
    }
}

/// The number of a port.
pub(crate) fn port(text: &str) -> Result<u16, PortError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if port > 0 && digits => Ok(port),
        _ if text.is_empty() => Err(PortError::Syntax),
        _ => Err(PortError::Port(text.to_owned())),
    }
}

/// A published port as `ps` shows it: `0.0.0.0:8080→80/tcp`.
pub(crate) struct Shown<'a>(pub(crate) &'a PortMapping);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PortMapping {
            address,
            host_port,
            dyno_port,
            protocol,
        } = self.0;
        match address {
            None => write!(f, "*:")?,
            Some(IpAddr::V4(v4)) => write!(f, "{v4}:")?,
            Some(IpAddr::V6(v6)) => write!(f, "[{v6}]:")?,
        }
        if let Some(port) = host_port {
            write!(f, "{port}")?;
        }
        write!(f, "->{dyno_port}")?;
        match protocol {
            Protocol::Tcp => Ok(()),
            Protocol::Udp => write!(f, "/udp"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mapping(address: Option<&str>, host_port: Option<u16>, dyno_port: u16) -> PortMapping {
        let address = address.map(|address| address.parse().unwrap());
        PortMapping {
            address,
            host_port,
            dyno_port,
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn every_documented_form_parses() {
        for (text, expected) in [
            ("80", mapping(None, None, 80)),
            ("8080:80", mapping(None, Some(8080), 80)),
            (
                "127.0.0.1:8080:80",
                mapping(Some("127.0.0.1"), Some(8080), 80),
            ),
            ("127.0.0.1::80", mapping(Some("127.0.0.1"), None, 80)),
            ("127.0.0.1:80", mapping(Some("127.0.0.1"), None, 80)),
            ("[::1]:8080:80", mapping(Some("::1"), Some(8080), 80)),
            ("[::]::80", mapping(Some("::"), None, 80)),
        ] {
            assert_eq!(parse(text), Ok(expected.clone()), "{text}");
            let udp = PortMapping {
                protocol: Protocol::Udp,
                ..expected.clone()
            };
            assert_eq!(parse(&format!("{text}/udp")), Ok(udp), "{text}/udp");
            assert_eq!(parse(&format!("{text}/tcp")), Ok(expected), "{text}/tcp");
        }
    }

    #[test]
    fn what_is_no_port_is_refused_by_name() {
        assert_eq!(parse("0:80"), Err(PortError::Port("0".to_owned())));
        assert_eq!(
            parse("8080:70000"),
            Err(PortError::Port("70000".to_owned()))
        );
        assert_eq!(parse("+80"), Err(PortError::Port("+80".to_owned())));
        assert_eq!(
            parse("80-90:80-90"),
            Err(PortError::Port("80-90".to_owned()))
        );
        assert_eq!(parse("::1:80:80"), Err(PortError::Address(String::new())));
        assert_eq!(
            parse("web:8080:80"),
            Err(PortError::Address("web".to_owned()))
        );
        assert_eq!(
            parse("[web]:8080:80"),
            Err(PortError::Address("web".to_owned()))
        );
        assert_eq!(
            parse("80/sctp"),
            Err(PortError::Protocol("sctp".to_owned()))
        );
        for bad in ["", ":", ":80", "80:", "1.2.3.4:1:2:3", "[::1]", "[::1]80"] {
            assert_eq!(parse(bad), Err(PortError::Syntax), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "[0-9a-f:./\\[\\]udpt-]{0,24}") {
            drop(parse(&text));
        }

        #[test]
        fn any_mapping_parses_back(address: Option<IpAddr>, host_port: Option<u16>, dyno in 1_u16..) {
            let host_port = host_port.filter(|port| *port > 0);
            let host = host_port.map(|port| port.to_string()).unwrap_or_default();
            let text = match address {
                None if host.is_empty() => dyno.to_string(),
                None => format!("{host}:{dyno}"),
                Some(IpAddr::V4(v4)) => format!("{v4}:{host}:{dyno}"),
                Some(IpAddr::V6(v6)) => format!("[{v6}]:{host}:{dyno}"),
            };
            let expected =
                PortMapping { address, host_port, dyno_port: dyno, protocol: Protocol::Tcp };
            prop_assert_eq!(parse(&text), Ok(expected));
        }
    }

    #[test]
    fn a_published_port_reads_well() {
        let shown = |text: &str| Shown(&parse(text).unwrap()).to_string();
        assert_eq!(shown("8080:80"), "*:8080->80");
        assert_eq!(shown("[::1]:53:53/udp"), "[::1]:53->53/udp");
    }
}
