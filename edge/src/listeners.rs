//! The sockets being served, by network.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::{AbortHandle, spawn_local};

use crate::dns::{self, Service};

/// More networks than one host has (P15).
const MAX_NETWORKS: usize = 1024;

/// Serves sockets that others have bound.
#[derive(Debug)]
pub struct Listeners {
    service: Rc<Service>,
    networks: RefCell<BTreeMap<String, Vec<Listener>>>,
}

/// Why sockets are not served. Those of the network before stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// It came without sockets.
    #[error("no sockets came with the request")]
    None,
    /// A descriptor that is neither a bound UDP socket nor a listening TCP socket.
    #[error("descriptor {0} is neither a bound UDP socket nor a listening TCP socket")]
    Kind(usize),
    /// The kernel refused to look at it or to make it non-blocking.
    #[error("descriptor {index} cannot be served")]
    Socket {
        /// Which one of those that came.
        index: usize,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There are too many networks.
    #[error("{MAX_NETWORKS} networks are served already")]
    Full,
}

/// A socket with the task that reads it; the task ends with the listener.
#[derive(Debug)]
struct Listener {
    socket: Socket,
    address: SocketAddr,
    task: AbortHandle,
}

#[derive(Debug, Clone)]
enum Socket {
    Udp(Rc<UdpSocket>),
    Tcp(Rc<TcpListener>),
}

impl Listeners {
    /// Serves nothing yet; queries will go to `service`.
    #[must_use]
    pub fn new(service: Rc<Service>) -> Self {
        Self {
            service,
            networks: RefCell::default(),
        }
    }

    /// Serves `sockets` for `network` instead of those it had, without a gap
    /// where they are the same sockets.
    ///
    /// # Errors
    /// When one of them cannot be served; then none is.
    pub fn listen(&self, network: String, sockets: Vec<OwnedFd>) -> Result<(), ListenError> {
        if sockets.is_empty() {
            return Err(ListenError::None);
        }
        let mut networks = self.networks.borrow_mut();
        if networks.len() >= MAX_NETWORKS && !networks.contains_key(&network) {
            return Err(ListenError::Full);
        }
        let adopted: Vec<(Socket, SocketAddr)> = sockets
            .into_iter()
            .enumerate()
            .map(|(index, socket)| adopt(index, socket))
            .collect::<Result<_, _>>()?;
        let listeners = adopted
            .into_iter()
            .map(|(socket, address)| Listener::start(socket, address, &self.service))
            .collect();
        networks.insert(network, listeners);
        Ok(())
    }

    /// Serves `network` no longer.
    pub fn close(&self, network: &str) {
        self.networks.borrow_mut().remove(network);
    }

    /// Reads no socket any more; what is in flight is still answered.
    pub fn close_all(&self) {
        self.networks.borrow_mut().clear();
    }

    /// What is served, per network, as `udp ADDRESS:PORT` or `tcp ADDRESS:PORT`.
    #[must_use]
    pub fn addresses(&self) -> BTreeMap<String, Vec<String>> {
        let describe = |listener: &Listener| match listener.socket {
            Socket::Udp(_) => format!("udp {}", listener.address),
            Socket::Tcp(_) => format!("tcp {}", listener.address),
        };
        let networks = self.networks.borrow();
        networks
            .iter()
            .map(|(network, listeners)| (network.clone(), listeners.iter().map(describe).collect()))
            .collect()
    }

    /// Calls `visit` with the sockets of each network, until it fails.
    ///
    /// # Errors
    /// The first one of `visit`.
    pub fn each(
        &self,
        mut visit: impl FnMut(&str, &[BorrowedFd<'_>]) -> io::Result<()>,
    ) -> io::Result<()> {
        let networks = self.networks.borrow();
        networks.iter().try_for_each(|(network, listeners)| {
            let sockets: Vec<_> = listeners.iter().map(|l| l.socket.as_fd()).collect();
            visit(network, &sockets)
        })
    }
}

impl Listener {
    fn start(socket: Socket, address: SocketAddr, service: &Rc<Service>) -> Self {
        let service = Rc::clone(service);
        let task = match socket.clone() {
            Socket::Udp(socket) => spawn_local(dns::serve_udp(socket, service)),
            Socket::Tcp(socket) => spawn_local(dns::serve_tcp(socket, service)),
        };
        Self {
            socket,
            address,
            task: task.abort_handle(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Udp(socket) => socket.as_fd(),
            Self::Tcp(socket) => socket.as_fd(),
        }
    }
}

/// Takes a descriptor for what the kernel says it is, never for what a peer says (P18).
fn adopt(index: usize, socket: OwnedFd) -> Result<(Socket, SocketAddr), ListenError> {
    let error = |source| ListenError::Socket { index, source };
    let domain = sockopt::socket_domain(&socket).map_err(|e| error(e.into()))?;
    let kind = sockopt::socket_type(&socket).map_err(|e| error(e.into()))?;
    if domain != AddressFamily::INET && domain != AddressFamily::INET6 {
        return Err(ListenError::Kind(index));
    }
    if kind == SocketType::DGRAM {
        let socket = std::net::UdpSocket::from(socket);
        let address = socket.local_addr().map_err(error)?;
        if address.port() == 0 {
            return Err(ListenError::Kind(index));
        }
        socket.set_nonblocking(true).map_err(error)?;
        let socket = UdpSocket::from_std(socket).map_err(error)?;
        return Ok((Socket::Udp(Rc::new(socket)), address));
    }
    let listening = sockopt::socket_acceptconn(&socket).map_err(|e| error(e.into()))?;
    if kind != SocketType::STREAM || !listening {
        return Err(ListenError::Kind(index));
    }
    let socket = std::net::TcpListener::from(socket);
    let address = socket.local_addr().map_err(error)?;
    socket.set_nonblocking(true).map_err(error)?;
    let socket = TcpListener::from_std(socket).map_err(error)?;
    Ok((Socket::Tcp(Rc::new(socket)), address))
}
