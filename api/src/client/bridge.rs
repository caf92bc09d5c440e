//! hostd by way of a program, as `ssh` is one: its standard streams are the
//! connection.
//!
//! ```text
//! client ⇄ socket pair ⇄ program … dyno on the other machine ⇄ hostd's socket
//! ```
//! The other end writes [`GREETING`] as soon as hostd has taken its connection.
//! Before it, a login shell may have written whatever it writes to everybody.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::Error;

/// What the other end writes before the first byte of hostd.
pub const GREETING: &[u8] = b"dyno bridge 1\n";

/// The most that may come before the greeting, in bytes (P15).
const NOISE_MAX: usize = 64 * 1024;

/// How long the program may take to the greeting (P15).
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a program whose streams are closed may take to end.
const ENDING: Duration = Duration::from_secs(2);

/// A program that speaks for the hostd of another machine.
#[derive(Debug, Clone)]
pub struct Bridge {
    /// The machine, as errors call it.
    pub name: String,
    /// The program.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// In a process group of its own: what is typed at the terminal to interrupt
    /// us does not end the connection, and the program cannot ask there.
    pub own_group: bool,
}

impl Bridge {
    /// One more connection: the program, which ends with it.
    pub(super) async fn connect(&self) -> Result<UnixStream, Error> {
        let failed = |source| Error::Program {
            program: self.program.clone(),
            source,
        };
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair()
            .and_then(|(ours, theirs)| {
                ours.set_nonblocking(true)?;
                Ok((UnixStream::from_std(ours)?, OwnedFd::from(theirs)))
            })
            .map_err(failed)?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .stdin(theirs.try_clone().map_err(failed)?)
            .stdout(theirs)
            .stderr(Stdio::inherit());
        if self.own_group {
            command.process_group(0);
        }
        let mut child = command.spawn().map_err(failed)?;
        // It has our copies of its streams until it goes.
        drop(command);
        match timeout(PATIENCE, greeted(&mut ours)).await {
            Ok(true) => {
                drop(tokio::spawn(async move { child.wait().await }));
                Ok(ours)
            }
            Ok(false) | Err(_) => {
                drop(ours);
                Err(Error::Bridge {
                    name: self.name.clone(),
                    status: end(&mut child).await,
                })
            }
        }
    }
}

/// Reads up to the greeting; false where it does not come.
async fn greeted(stream: &mut UnixStream) -> bool {
    let mut read = Vec::new();
    // Nothing follows the greeting before we ask, so single bytes are few.
    while read.len() < NOISE_MAX {
        match stream.read_u8().await {
            Ok(byte) => read.push(byte),
            Err(_) => return false,
        }
        if read.ends_with(GREETING) {
            return true;
        }
    }
    false
}

/// The exit code of a program that does not greet, if it ends by itself.
async fn end(child: &mut Child) -> Option<i32> {
    match timeout(ENDING, child.wait()).await {
        Ok(status) => status.ok()?.code(),
        Err(_) => {
            child.kill().await.ok();
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;

    fn bridge(script: &str) -> Client {
        Client::through(Bridge {
            name: "elsewhere".to_owned(),
            program: "sh".into(),
            arguments: vec!["-c".into(), script.into()],
            own_group: true,
        })
    }

    #[tokio::test]
    async fn what_a_shell_says_first_is_skipped() {
        let script = "echo Welcome; echo; echo 'dyno bridge 1'; read line; \
                      printf 'HTTP/1.1 204 No Content\\r\\n\\r\\n'";
        let client = bridge(script).connected().await.unwrap();
        let call = super::super::connection::Call::new(http::Method::GET, "/");
        client.done(call).await.unwrap();
    }

    #[tokio::test]
    async fn a_program_that_fails_is_told_with_its_exit_code() {
        let error = bridge("echo no; exit 255").connected().await.unwrap_err();
        let Error::Bridge { name, status } = error else {
            panic!("{error:?}")
        };
        assert_eq!((name.as_str(), status), ("elsewhere", Some(255)));
    }

    #[tokio::test]
    async fn one_that_talks_for_ever_is_given_up() {
        let error = bridge("yes").connected().await.unwrap_err();
        assert!(matches!(error, Error::Bridge { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let client = Client::through(Bridge {
            name: "elsewhere".to_owned(),
            program: "/nowhere/ssh".into(),
            arguments: Vec::new(),
            own_group: false,
        });
        let error = client.connected().await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/ssh"), "{error}");
    }
}
