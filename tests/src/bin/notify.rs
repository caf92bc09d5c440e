//! `notify WORD…`: says each word by sd_notify(3), for dynos of the tests.

use std::io;
use std::os::unix::net::UnixDatagram;

fn main() -> io::Result<()> {
    let path = std::env::var_os("NOTIFY_SOCKET");
    let path = path.ok_or_else(|| io::Error::other("there is no NOTIFY_SOCKET"))?;
    let socket = UnixDatagram::unbound()?;
    for word in std::env::args().skip(1) {
        socket.send_to(word.as_bytes(), &path)?;
    }
    Ok(())
}
