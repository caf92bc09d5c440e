//! What can go wrong, by whose fault it is.

use std::net::IpAddr;

use crate::model::{Protocol, Published};

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request cannot be carried out as it stands; the kernel was not
    /// asked.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The kernel refused a netlink request.
    #[error("cannot {operation}")]
    Netlink {
        /// What was asked for.
        operation: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// Somebody else has a link by the name that one of ours would have. Only
    /// what carries our mark is ever removed.
    #[error("there is a link {name} that this host did not make; rename or remove it")]
    ForeignLink {
        /// Its name.
        name: String,
    },
    /// A reply of the kernel is not what its headers promise.
    #[error("malformed netlink reply to: {operation}")]
    Reply {
        /// What was asked for.
        operation: String,
    },
    /// The dyno's network namespace cannot be entered.
    #[error("cannot {operation} in the dyno's network namespace")]
    Namespace {
        /// The step that failed.
        operation: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A network setting under `/proc/sys/net` cannot be read or written.
    #[error("cannot {operation} {path}")]
    Sysctl {
        /// `read` or `write`.
        operation: &'static str,
        /// The setting's file.
        path: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// Somebody on this machine listens on the port already.
    #[error("port {port}/{protocol} is in use on this machine")]
    PortInUse {
        /// The port on the host.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
    },
    /// A port to be published cannot be tried, as when the machine does not
    /// have the address.
    #[error("cannot use {address} port {port}/{protocol} of this machine")]
    Bind {
        /// The address.
        address: IpAddr,
        /// The port on the host.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// Every candidate subnet clashes with an address or route of the host.
    #[error(
        "every /20 in 10.128.0.0/9, 172.16.0.0/12 and 192.168.0.0/16 clashes with an address or route of this host; name a free subnet in the configuration"
    )]
    NoFreeSubnet,
}

/// A request that contradicts itself or the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Not eight lower-case hexadecimal digits, or all zero.
    #[error("host id {0:?} is not eight lower-case hexadecimal digits other than 00000000")]
    HostId(String),
    /// Not twelve lower-case hexadecimal digits.
    #[error("endpoint id {0:?} is not twelve lower-case hexadecimal digits")]
    EndpointId(String),
    /// The address is outside the subnet, or its network, gateway or
    /// broadcast address.
    #[error("address {address} of {endpoint} is not one that a dyno of this network can have")]
    Address {
        /// The endpoint.
        endpoint: String,
        /// Its address.
        address: IpAddr,
    },
    /// Two endpoints share an id or an address.
    #[error("{what} belongs to two endpoints")]
    Duplicate {
        /// The id or the address.
        what: String,
    },
    /// A port is published for an endpoint that is not in the desired state.
    #[error("port {port} is published for {endpoint}, which is not among the endpoints")]
    UnknownEndpoint {
        /// The missing endpoint.
        endpoint: String,
        /// The port on the host.
        port: u16,
    },
    /// Port 0 can be neither published nor reached.
    #[error("port 0 of {endpoint} cannot be published")]
    PortZero {
        /// The endpoint.
        endpoint: String,
    },
    /// A port is published on an IPv6 address for a dyno that has none.
    #[error("{endpoint} has no IPv6 address, so port {port} cannot be published on {address}")]
    NoIpv6 {
        /// The endpoint.
        endpoint: String,
        /// The address on the host.
        address: IpAddr,
        /// The port on the host.
        port: u16,
    },
    /// Two endpoints want the same port of the same address.
    #[error("port {}/{} is published by both {} and {}", .second.host_port, .second.protocol, .first.endpoint, .second.endpoint)]
    PortConflict {
        /// Who came first.
        first: Box<Published>,
        /// Who came second.
        second: Box<Published>,
    },
    /// The port leads to another endpoint.
    #[error("port {}/{} is published by another dyno than {}", .0.host_port, .0.protocol, .0.endpoint)]
    PortTaken(Box<Published>),
    /// The subnet has no room for a gateway and a dyno, or is not a network.
    #[error("subnet {0} is too small for a gateway and a dyno")]
    Subnet(ipnet::IpNet),
}
