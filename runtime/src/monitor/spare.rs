//! A monitor that is started before its dyno is known.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{complain, run};
use crate::sys;

/// Longer than any path, with the line's end.
const MAX_LINE: u64 = libc::PATH_MAX as u64 + 1;

/// Waits for the line on standard input that names the run folder, and serves it
/// as if it had been started with it; ends where there is none, or nobody left who
/// would hear of it.
pub fn wait() -> u8 {
    match begin() {
        Ok(Some(dir)) => run(&dir),
        Ok(None) => 0,
        Err(error) => {
            complain(&format_args!("begin: {error}"));
            1
        }
    }
}

fn begin() -> io::Result<Option<PathBuf>> {
    rustix::thread::set_name(c"dyno-monitor")?;
    // Not by the standard library's reader, whose buffer would stay.
    let mut line = Vec::new();
    File::from(rustix::stdio::stdin().try_clone_to_owned()?)
        .take(MAX_LINE)
        .read_to_end(&mut line)?;
    if line.pop() != Some(b'\n') {
        return Ok(None);
    }
    let dir = PathBuf::from(OsString::from_vec(line));
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    rustix::stdio::dup2_stderr(complaints(&dir)?)?;
    let arguments = [
        OsStr::new("dyno-runtime"),
        OsStr::new("monitor"),
        dir.as_os_str(),
    ];
    sys::process::show_arguments(&arguments)?;
    // By these, a later hostd finds who has begun. Who begins after its own has ended
    // may be in the way of another that was given this folder meanwhile.
    Ok(is_heard()?.then_some(dir))
}

/// Whether somebody waits for what standard output will say.
fn is_heard() -> rustix::io::Result<bool> {
    let stdout = rustix::stdio::stdout();
    let mut pipe = [PollFd::new(&stdout, PollFlags::empty())];
    poll(&mut pipe, Some(&Timespec::default()))?;
    let [pipe] = pipe;
    Ok(!pipe.revents().contains(PollFlags::ERR))
}

fn complaints(dir: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(dir.join("monitor.log"))
}
