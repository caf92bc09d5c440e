//! What comes on the standard input.

use std::io::Read;

use tokio::sync::mpsc;

/// Bytes of standard input read at once.
const CHUNK: usize = 32 * 1024;

/// Reads the standard input on a thread: neither a file nor a terminal that
/// others share can be waited for in any other way. The thread ends with the
/// process. No bytes at all mean the end.
pub(crate) fn typed() -> mpsc::Receiver<Vec<u8>> {
    let (to, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; CHUNK];
        loop {
            // A broken input is an ended one.
            let length = match stdin.read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read.unwrap_or(0),
            };
            if to.blocking_send(buffer[..length].to_vec()).is_err() || length == 0 {
                break;
            }
        }
    });
    receiver
}
