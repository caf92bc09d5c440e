//! Standard streams that lead out of a container: pipes and files of its caller.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Error;

/// How often a process is looked at, and how long to wait in between.
const LOOKS: usize = 10;
const BETWEEN: Duration = Duration::from_millis(1);

/// A stream whose other end, or whose file, is not the container's.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outside {
    /// Its number, in the container as in the process that brings it back.
    pub(crate) number: u32,
    /// CRIU's name of it: `pipe:[17]`, `file[mount:inode]` (criu(8), `--inherit-fd`).
    pub(crate) name: String,
    /// A terminal, which nobody hands over: CRIU takes the one that its own standard
    /// input is (`--shell-job`).
    #[serde(default)]
    pub(crate) terminal: bool,
}

impl Outside {
    /// Those of a process; two that are the same come once. `own` are its mounts.
    ///
    /// It is looked at several times: a shell that writes to a file has that in the place
    /// of its standard output for a moment.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub(crate) fn of(pid: i32, own: &[u64]) -> Result<Vec<Self>, Error> {
        let mut found = Self::seen(pid, own)?;
        for _ in 1..LOOKS {
            std::thread::sleep(BETWEEN);
            for stream in Self::seen(pid, own)? {
                let known =
                    |other: &Self| other.number == stream.number || other.name == stream.name;
                if !found.iter().any(known) {
                    found.push(stream);
                }
            }
        }
        Ok(found)
    }

    /// Those that it has at this moment.
    fn seen(pid: i32, own: &[u64]) -> Result<Vec<Self>, Error> {
        let mut found: Vec<Self> = Vec::new();
        for number in 0..3 {
            let path = format!("/proc/{pid}/fd/{number}");
            // One that is closed is nobody's.
            let Ok(link) = fs::read_link(&path) else {
                continue;
            };
            let link = link.to_string_lossy().into_owned();
            let mut terminal = false;
            let name = if link.starts_with("pipe:[") {
                link
            } else if link.starts_with('/') {
                let reading = || Error::io(format!("look at {path}"));
                let file = match fs::metadata(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    file => file.map_err(reading())?,
                };
                terminal = is_terminal(&file);
                let inode = file.ino();
                let still = |now: PathBuf| now.to_string_lossy() == link;
                let info = format!("/proc/{pid}/fdinfo/{number}");
                let info = match fs::read_to_string(info) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    info => info.map_err(reading())?,
                };
                // Else it is of two files.
                if !fs::read_link(&path).is_ok_and(still) {
                    continue;
                }
                match mount_of(&info).filter(|mount| !own.contains(mount)) {
                    Some(mount) => format!("file[{mount:x}:{inode:x}]"),
                    None => continue,
                }
            } else {
                continue;
            };
            if found.iter().all(|other| other.name != name) {
                found.push(Self {
                    number,
                    name,
                    terminal,
                });
            }
        }
        Ok(found)
    }
}

/// A terminal's slave, by the kernel's list of devices (`admin-guide/devices.txt`).
fn is_terminal(file: &fs::Metadata) -> bool {
    let kind = file.file_type();
    kind.is_char_device() && matches!(rustix::fs::major(file.rdev()), 4 | 5 | 136..=143)
}

fn mount_of(info: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_from_other_devices() {
        for (path, expected) in [("/dev/null", false), ("/dev/tty", true), ("/dev", false)] {
            let file = fs::metadata(path).unwrap();
            assert_eq!(is_terminal(&file), expected, "{path}");
        }
    }

    #[test]
    fn the_mount_of_a_descriptor_is_read() {
        assert_eq!(mount_of("pos:\t0\nflags:\t02\nmnt_id:\t27\n"), Some(27));
        assert_eq!(mount_of("pos:\t0\n"), None);
    }
}
