//! What the kernel knows of a TCP connection and tells whoever writes to it, `tcp(7)`.

use std::io;
use std::os::fd::AsFd;

use crate::sys;

/// Bytes that were written to this connection and that the peer's kernel has not
/// acknowledged. They stay so where the connection broke off.
///
/// # Errors
/// What the kernel answers, for anything but a connection.
pub fn unacknowledged(socket: impl AsFd) -> io::Result<u64> {
    Ok(sys::network::unacknowledged(socket.as_fd())?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_finds_no_room_at_the_peer_is_not_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let until = |stream: &TcpStream, is_so: fn(u64) -> bool| {
            let end = Instant::now() + Duration::from_secs(10);
            while !is_so(unacknowledged(stream).unwrap()) {
                assert!(Instant::now() < end, "{:?}", unacknowledged(stream));
                thread::yield_now();
            }
        };
        stream.write_all(b"short").unwrap();
        until(&stream, |bytes| bytes == 0);
        stream.set_nonblocking(true).unwrap();
        let mut written = 5;
        while let Ok(count) = stream.write(&[0; 65536]) {
            written += count;
        }
        assert!(unacknowledged(&stream).unwrap() > 0);
        peer.read_exact(&mut vec![0; written]).unwrap();
        until(&stream, |bytes| bytes == 0);
    }
}
