//! `udp-echo PORT`: sends back what it gets, for dynos of the tests.

use std::io;
use std::net::UdpSocket;

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok());
    let socket = UdpSocket::bind((
        "0.0.0.0",
        port.ok_or_else(|| io::Error::other("which port?"))?,
    ))?;
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..length], from)?;
    }
}
