//! Writing a dyno's output without a buffer in between.

use std::io;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, write};

/// Writes all bytes, also where somebody else made the stream non-blocking
/// (a terminal is shared with every program that has it open).
pub(super) fn fully(to: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(&to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(&to, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    #[test]
    fn a_full_pipe_that_does_not_block_is_waited_for() {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        rustix::io::ioctl_fionbio(&read, false).unwrap();
        let sent: Vec<u8> = (0..251).cycle().take(1 << 20).collect();
        let reader = std::thread::spawn(move || {
            let mut received = Vec::new();
            std::fs::File::from(read)
                .read_to_end(&mut received)
                .unwrap();
            received
        });
        fully(&write, &sent).unwrap();
        drop(write);
        assert_eq!(reader.join().unwrap(), sent);
    }

    #[test]
    fn a_gone_reader_is_a_broken_pipe() {
        let (read, write) = pipe_with(PipeFlags::empty()).unwrap();
        drop(read);
        assert_eq!(
            fully(&write, b"x").unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }
}
