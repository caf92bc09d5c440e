//! The other end of `--host`: `dyno __bridge` on hostd's machine, whose standard
//! streams are a connection to it.
//!
//! hostd sees the user whom ssh let in, as it sees everybody on its socket.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;

use dyno_api::client::GREETING;

use super::local::Local;
use crate::failure::Failure;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// The first argument of a `dyno` that is a bridge.
pub(super) const BRIDGE: &str = "__bridge";

/// Whether these arguments ask for a bridge, and to which socket if they say.
pub(crate) fn asked(arguments: &[OsString]) -> Option<Option<PathBuf>> {
    match arguments {
        [_, bridge] if bridge == OsStr::new(BRIDGE) => Some(None),
        [_, bridge, socket] if bridge == OsStr::new(BRIDGE) => Some(Some(socket.into())),
        _ => None,
    }
}

/// Is the connection until one side closes it. The contexts of whoever runs it
/// here do not matter: it is this machine that was asked for.
///
/// # Errors
/// A [`Failure`] where no hostd runs and none can be started.
pub(crate) async fn run(socket: Option<PathBuf>) -> Result<(), Failure> {
    let variable = std::env::var_os("DYNO_SOCKET").filter(|value| !value.is_empty());
    let local = Local::find(socket.or(variable.map(PathBuf::from)));
    // Started where there is none; its connection is not ours to use.
    drop(local.connect().await?);
    join(&local).map_err(|error| Failure::io("the connection to hostd broke", &error))
}

fn join(local: &Local) -> io::Result<()> {
    let hostd = UnixStream::connect(&local.socket)?;
    // Descriptors of our own: the standard library's would buffer.
    let mut input = std::fs::File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut output = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
    output.write_all(GREETING)?;
    let mut to_hostd = hostd.try_clone()?;
    thread::spawn(move || {
        let copied = pass(&mut input, &mut to_hostd);
        // Nothing more comes; where it broke, nothing more can go either.
        let side = match copied {
            Ok(_) => Shutdown::Write,
            Err(_) => Shutdown::Both,
        };
        to_hostd.shutdown(side).ok();
    });
    let mut from_hostd = hostd;
    match pass(&mut from_hostd, &mut output) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Passes on what comes, as it comes. `io::copy` would splice(2), and that holds the
/// lock of a pipe, as sshd gives one, while it waits for a socket: who reads the pipe
/// then waits with it.
fn pass(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
