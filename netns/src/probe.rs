//! Is a port of this machine free to be published?

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};

use crate::error::{Error, Result};
use crate::model::{Protocol, Published};

/// Listens for a moment, where the port would be published.
pub(crate) fn port(published: &Published) -> Result<()> {
    let (port, protocol) = (published.host_port, published.protocol);
    let addresses = match published.address {
        Some(address) => vec![address],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    };
    for address in addresses {
        match listen(address, port, protocol) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(Error::PortInUse { port, protocol });
            }
            // A machine without IPv6 has nobody listening there either.
            Err(_) if published.address.is_none() && address.is_ipv6() => {}
            Err(source) => {
                return Err(Error::Bind {
                    address,
                    port,
                    protocol,
                    source,
                });
            }
        }
    }
    Ok(())
}

fn listen(address: IpAddr, port: u16, protocol: Protocol) -> io::Result<()> {
    match protocol {
        Protocol::Tcp => TcpListener::bind((address, port)).map(drop),
        Protocol::Udp => UdpSocket::bind((address, port)).map(drop),
    }
}
