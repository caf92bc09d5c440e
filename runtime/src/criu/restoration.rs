//! `criu restore` about to be executed: its words, and what it is handed, which is
//! there as long as this is.

use std::fs::File;
use std::os::fd::IntoRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oci_spec::runtime::LinuxNamespaceType as Kind;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdin, stdout};

use super::{Criu, Error, Image, Readable, Scaffold, word};
use crate::container::Container;
use crate::plan::{Prepared, group_of_root};

/// Below are descriptors that CRIU may take for its own.
const FIRST_APART: i32 = 10;

/// Whose the standard streams are that the container gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Streams {
    /// CRIU's, too.
    Shared,
    /// The container's alone.
    Apart,
}

/// What CRIU is to be executed with.
#[derive(Debug)]
pub(crate) struct Restoration {
    /// `restore-inside`, which becomes `criu restore`.
    pub(crate) command: Command,
    _scaffold: Scaffold,
    _readable: Option<Readable>,
}

impl Restoration {
    /// Prepares everything, in the caller's mount namespace, which must be its own.
    /// What CRIU restores becomes a child of the caller, in the container's cgroup.
    ///
    /// # Errors
    /// [`Error`] of what could not be prepared.
    pub(crate) fn new(
        criu: &Criu,
        image: &Image,
        container: &Container,
        images: &Path,
        pid_file: &Path,
        streams: Streams,
    ) -> Result<Self, Error> {
        let bundle = container.bundle();
        let prepared = Prepared::new(bundle, container.cgroup())?;
        prepared.make_folders(&image.saved, bundle)?;
        let scaffold = Scaffold::raise(prepared, &[images])?;
        let readable = group_of_root(bundle).map(|group| Readable::by(group, images));
        let readable = readable.transpose()?;
        let record = container.cgroup().record();
        let json = |json: serde_json::Result<String>| {
            json.map_err(|error| Error::io("write a record")(error.into()))
        };
        let mut command = Command::new("/proc/self/exe");
        command
            .args([
                "restore-inside",
                "--cgroup",
                &json(serde_json::to_string(record))?,
            ])
            .stdin(Stdio::inherit());
        if bundle.namespace(Kind::Cgroup).is_some() {
            command.arg("--namespace");
        }
        let process = bundle.spec().process().as_ref();
        if process.and_then(|process| process.no_new_privileges()) == Some(true) {
            command.arg("--no-new-privileges");
        }
        if let Some(class) = container.class() {
            command.args(["--class", &json(serde_json::to_string(class))?]);
        }
        if let Some(network) = bundle
            .namespace(Kind::Network)
            .flatten()
            .filter(|_| image.network)
        {
            command.arg(word("--network=", network));
        }
        let inherited = image.streams.iter().filter(|stream| !stream.terminal);
        let inherited = inherited.map(|stream| format!("{}:{}", stream.number, stream.name));
        if streams == Streams::Apart {
            for stream in inherited.clone() {
                command.args(["--apart", &stream]);
            }
        }
        command
            .arg("--")
            .arg(criu.path())
            .args(["restore", "--restore-detached", "--restore-sibling"])
            .arg(word("--root=", scaffold.root()))
            .arg(word("--pidfile=", pid_file));
        let mounts = bundle.spec().mounts().as_deref().unwrap_or_default();
        for external in &image.mounts {
            let path = external.path(mounts, record.v2.as_deref(), &scaffold)?;
            let key = format!("--external=mnt[{}]:", external.key);
            command.arg(word(&key, path));
        }
        if streams == Streams::Shared {
            for stream in inherited {
                command.args(["--inherit-fd", &inherit(&stream)]);
            }
        }
        Ok(Self {
            command,
            _scaffold: scaffold,
            _readable: readable,
        })
    }
}

/// CRIU's word for `NUMBER:NAME`.
fn inherit(stream: &str) -> String {
    let (number, name) = stream.split_once(':').unwrap_or_default();
    format!("fd[{number}]:{name}")
}

/// Keeps the standard streams for the container, `NUMBER:NAME` each, and gives CRIU
/// others: what it says itself is not to be among what the container says. CRIU's
/// words for them.
///
/// # Errors
/// What the kernel says.
pub(crate) fn set_apart(streams: &[String]) -> std::io::Result<Vec<String>> {
    let own = [stdin(), stdout(), stderr()];
    let mut words = Vec::new();
    for stream in streams {
        let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidInput);
        let (number, name) = stream.split_once(':').ok_or_else(invalid)?;
        let number: usize = number.parse().map_err(|_number| invalid())?;
        let kept = fcntl_dupfd_cloexec(own.get(number).ok_or_else(invalid)?, FIRST_APART)?;
        fcntl_setfd(&kept, FdFlags::empty())?;
        words.push("--inherit-fd".to_owned());
        words.push(format!("fd[{}]:{name}", kept.into_raw_fd()));
    }
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(words)
}

/// The process whose id CRIU wrote.
///
/// # Errors
/// When it wrote none.
pub(crate) fn written(pid_file: &PathBuf) -> Result<rustix::process::Pid, Error> {
    let name = pid_file.display();
    let text = std::fs::read_to_string(pid_file).map_err(Error::io(format!("read {name}")))?;
    std::fs::remove_file(pid_file).map_err(Error::io(format!("remove {name}")))?;
    let pid = text.trim().parse().ok();
    pid.and_then(rustix::process::Pid::from_raw)
        .ok_or_else(|| Error::Unfit("criu wrote no process id".to_owned()))
}
