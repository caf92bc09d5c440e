//! Published ports: what one request may ask for, and whether another
//! program of this host has it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;

use dyno_api::dyno::{PortMapping, Protocol};
use dyno_api::error::{ApiError, ErrorKind};

use super::invalid;

pub(super) fn check(ports: &[PortMapping]) -> Result<(), ApiError> {
    for (index, port) in ports.iter().enumerate() {
        if port.dyno_port == 0 || port.host_port == Some(0) {
            return Err(invalid("port 0 cannot be published")
                .hint("leave the host port out to get a free one"));
        }
        if let Some(other) = ports[..index].iter().find(|other| clash(other, port)) {
            return Err(invalid(format!("{} is published twice", describe(other))));
        }
    }
    Ok(())
}

/// Whether two mappings want the same port of the host.
pub fn clash(a: &PortMapping, b: &PortMapping) -> bool {
    let address = match (a.address, b.address) {
        (Some(a), Some(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
        _ => true,
    };
    a.protocol == b.protocol && a.host_port.is_some() && a.host_port == b.host_port && address
}

/// `tcp port 8080`, for messages.
pub fn describe(port: &PortMapping) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    match (port.host_port, port.address) {
        (Some(host), None) => format!("{protocol} port {host}"),
        (Some(host), Some(address)) => format!("{protocol} port {host} of {address}"),
        (None, _) => format!("a free {protocol} port"),
    }
}

/// The mapping with its host port: the one that was asked for when no
/// program listens there, else one that is free now and that `taken` does
/// not want.
///
/// # Errors
/// Conflict when it is in use, Exhausted when none is free.
pub fn resolve(
    port: &PortMapping,
    taken: impl Fn(&PortMapping) -> bool,
) -> Result<PortMapping, ApiError> {
    if port.host_port.is_some() {
        return match bind(port) {
            Ok(()) => Ok(port.clone()),
            Err(error) => Err(refusal(port, &error)),
        };
    }
    for host_port in CHOSEN {
        let candidate = PortMapping {
            host_port: Some(host_port),
            ..port.clone()
        };
        if taken(&candidate) {
            continue;
        }
        match bind(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(refusal(port, &error)),
        }
    }
    Err(ApiError::new(
        ErrorKind::Exhausted,
        format!(
            "no port from {} to {} is free",
            CHOSEN.start(),
            CHOSEN.end()
        ),
    ))
}

/// Ports that are given where none is asked for: below those that Linux gives
/// to outgoing connections, one of which could otherwise have a dyno's port as
/// its own end.
const CHOSEN: RangeInclusive<u16> = 20_000..=29_999;

/// Whether a program could bind the port now.
fn bind(port: &PortMapping) -> io::Result<()> {
    let address = port.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let address = SocketAddr::new(address, port.host_port.unwrap_or(0));
    match port.protocol {
        Protocol::Tcp => TcpListener::bind(address).map(drop),
        Protocol::Udp => UdpSocket::bind(address).map(drop),
    }
}

fn refusal(port: &PortMapping, error: &io::Error) -> ApiError {
    let what = describe(port);
    match error.kind() {
        io::ErrorKind::AddrInUse => ApiError::new(
            ErrorKind::Conflict,
            format!("{what} is in use by another program of this host"),
        )
        .hint("choose another port, or leave the host port out to get a free one; `ss -lnp` shows who has it"),
        io::ErrorKind::AddrNotAvailable => {
            invalid(format!("{what} cannot be published: this host has no such address"))
        }
        _ => ApiError::new(ErrorKind::Internal, format!("cannot try {what}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(address: Option<&str>, host_port: Option<u16>, protocol: Protocol) -> PortMapping {
        PortMapping {
            address: address.map(|a| a.parse().unwrap()),
            host_port,
            dyno_port: 80,
            protocol,
        }
    }

    #[test]
    fn the_same_port_clashes_where_its_addresses_meet() {
        let all = port(None, Some(80), Protocol::Tcp);
        let local = port(Some("127.0.0.1"), Some(80), Protocol::Tcp);
        let other = port(Some("127.0.0.2"), Some(80), Protocol::Tcp);
        let any = port(Some("0.0.0.0"), Some(80), Protocol::Tcp);
        let udp = port(None, Some(80), Protocol::Udp);
        let free = port(None, None, Protocol::Tcp);
        for (a, b, expected) in [
            (&all, &local, true),
            (&local, &other, false),
            (&any, &other, true),
            (&all, &udp, false),
            (&free, &free, false),
        ] {
            assert_eq!(
                (clash(a, b), clash(b, a)),
                (expected, expected),
                "{a:?} {b:?}"
            );
        }
        assert!(check(&[all.clone(), local]).is_err());
        assert!(check(&[all, udp, free]).is_ok());
    }

    #[test]
    fn a_port_of_another_program_is_a_conflict() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = port(
            Some("127.0.0.1"),
            Some(listener.local_addr().unwrap().port()),
            Protocol::Tcp,
        );
        assert_eq!(
            resolve(&taken, |_| false).unwrap_err().kind,
            ErrorKind::Conflict
        );
        drop(listener);
        assert_eq!(resolve(&taken, |_| false), Ok(taken.clone()));
    }

    #[test]
    fn an_absent_port_becomes_a_free_one() {
        let chosen = resolve(&port(Some("127.0.0.1"), None, Protocol::Udp), |_| false).unwrap();
        assert!(chosen.host_port.is_some_and(|port| port > 0));
        let error = resolve(&port(None, None, Protocol::Tcp), |_| true).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Exhausted);
    }
}
