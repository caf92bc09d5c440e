//! Who started the edge, and reads one line from its stdout.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use crate::control::protocol::StartLine;

/// The pipe to the parent.
#[derive(Debug)]
pub(crate) struct Parent {
    pipe: Option<File>,
}

impl Parent {
    /// Takes stdout away from everything else.
    pub(crate) fn take() -> io::Result<Self> {
        let pipe = rustix::io::fcntl_dupfd_cloexec(io::stdout().as_fd(), 3)?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(&null)?;
        Ok(Self {
            pipe: Some(pipe.into()),
        })
    }

    /// Says the line and hangs up; a second one is not said. A parent that has
    /// gone needs none.
    pub(crate) fn tell(&mut self, line: &StartLine) {
        let Some(mut pipe) = self.pipe.take() else {
            return;
        };
        let told = serde_json::to_vec(line)
            .map_err(io::Error::from)
            .and_then(|mut line| {
                line.push(b'\n');
                pipe.write_all(&line)
            });
        if let Err(error) = told {
            tracing::warn!(%error, "cannot tell the parent");
        }
    }
}
