//! hostd of another machine, by way of the program `ssh`: whoever may log in there
//! and use hostd's socket may do so from here, with the keys, agents, jump hosts and
//! names of ssh's own configuration.
//!
//! ```text
//! master   ssh once, at the terminal: it may ask; stays for a minute after its last use
//!   └▶ each connection   ssh … dyno __bridge, through the master
//! ```
//! ssh_config(5): ControlMaster, ControlPath, ControlPersist.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use dyno_api::client::{Bridge, Client};
use tokio::process::Command;

use super::bridge::BRIDGE;
use super::destination::Destination;
use crate::failure::{Failure, code};

/// The program.
const SSH: &str = "ssh";

/// How long a master stays after its last connection, in seconds.
const PERSIST: &str = "ControlPersist=60";

/// What of a socket's path ssh adds to the folder's: `/`, 40 digits, and while it is
/// made a dot and 16 letters (`%C` in ssh_config(5), `mux.c`).
const CONTROL_NAME: usize = 1 + 40 + 17;

/// The longest path of a socket (unix(7)), without its end.
const SOCKET_PATH: usize = 107;

/// The way to the hostd of another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ssh {
    to: Destination,
    /// Where masters have their sockets; without it each connection logs in anew.
    folder: Option<PathBuf>,
}

impl Ssh {
    pub(super) fn to(to: Destination) -> Self {
        Self {
            to,
            folder: control_folder(),
        }
    }

    /// A client of the hostd there, whose `dyno` starts it as it would here.
    ///
    /// # Errors
    /// A [`Failure`] where nobody can log in, and where hostd cannot be reached.
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        if let Some(folder) = &self.folder {
            self.log_in(folder).await?;
        }
        let client = Client::through(Bridge {
            name: self.to.to_string(),
            program: SSH.into(),
            arguments: self.arguments("ControlMaster=no", &remote(&self.to)),
            own_group: self.folder.is_some(),
        });
        Ok(client.connected().await?)
    }

    /// Has a master there be, which asks at our terminal what it has to.
    async fn log_in(&self, folder: &Path) -> Result<(), Failure> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| Failure::io(format!("cannot make {}", folder.display()), &error))?;
        // Somebody may have been faster: whose folder it is, his are the masters in it.
        if is_private(folder) != Some(true) {
            let failure = Failure::new(format!("{} is not ours alone", folder.display()));
            return Err(failure
                .hint("remove it, or set XDG_RUNTIME_DIR")
                .with_code(code::NO_HOSTD));
        }
        let check = [OsString::from("-O"), "check".into()];
        let there = [&check[..], &self.arguments("ControlMaster=no", "")].concat();
        if run(&there, Stdio::null()).await? == Some(0) {
            return Ok(());
        }
        let login = self.arguments("ControlMaster=auto", "exit 0");
        match run(&login, Stdio::inherit()).await? {
            // 255 is ssh's own; others are those of an odd shell, which the bridge meets too.
            Some(255) | None => Err(Failure::new(format!("cannot log in at {}", self.to))
                .hint(format!("ssh {}", self.to.login()))
                .with_code(code::NO_HOSTD)),
            Some(_) => Ok(()),
        }
    }

    fn arguments(&self, master: &str, command: &str) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["-T".into()];
        let mut option = |value: OsString| arguments.extend(["-o".into(), value]);
        match &self.folder {
            Some(folder) => {
                let mut path = OsString::from("ControlPath=");
                path.push(folder.join("%C"));
                option(path);
                option(master.into());
                option(PERSIST.into());
            }
            None => option("ControlPath=none".into()),
        }
        // One that has gone without a word is noticed within a minute.
        option("ServerAliveInterval=15".into());
        option("ConnectTimeout=20".into());
        if let Some(port) = self.to.port {
            arguments.extend(["-p".into(), port.to_string().into()]);
        }
        arguments.extend(["--".into(), self.to.login().into()]);
        if !command.is_empty() {
            arguments.push(command.into());
        }
        arguments
    }
}

/// What is executed there, by whatever shell its user has.
fn remote(to: &Destination) -> String {
    match &to.socket {
        // POSIX shell, section 2.2.2: nothing is special within single quotes.
        Some(socket) => format!("exec dyno {BRIDGE} '{}'", socket.replace('\'', r"'\''")),
        None => format!("exec dyno {BRIDGE}"),
    }
}

/// ssh's exit code; none where a signal ended it.
async fn run(arguments: &[OsString], stderr: Stdio) -> Result<Option<i32>, Failure> {
    let mut command = Command::new(SSH);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr);
    let status = command.status().await.map_err(|error| {
        Failure::io("cannot run ssh", &error)
            .hint("apt install openssh-client")
            .with_code(code::NO_HOSTD)
    })?;
    Ok(status.code())
}

/// A folder that is nobody else's, and short enough for a socket in it.
fn control_folder() -> Option<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty());
    let user = rustix::process::geteuid().as_raw();
    let folder = match runtime {
        Some(runtime) => Path::new(&runtime).join("dyno"),
        None => PathBuf::from(format!("/tmp/dyno-ssh-{user}")),
    };
    // A percent sign is ssh's to read.
    let text = folder.to_str()?;
    (text.len() + CONTROL_NAME <= SOCKET_PATH && !text.contains(['%', '"', ' ', '\\']))
        .then_some(())?;
    is_private(&folder).unwrap_or(true).then_some(folder)
}

/// Whether this is a folder that only we can enter; none where nothing is there.
fn is_private(folder: &Path) -> Option<bool> {
    match std::fs::symlink_metadata(folder) {
        Ok(found) => {
            let ours = found.uid() == rustix::process::geteuid().as_raw();
            Some(found.is_dir() && ours && found.mode() & 0o077 == 0)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(_) => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(to: &str, folder: Option<&str>) -> Vec<String> {
        let to: Destination = to.parse().unwrap();
        let command = remote(&to);
        let ssh = Ssh {
            to,
            folder: folder.map(PathBuf::from),
        };
        let arguments = ssh.arguments("ControlMaster=no", &command);
        arguments
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect()
    }

    #[test]
    fn the_machine_stands_behind_the_options() {
        let words = arguments("ann@box:2222", Some("/run/user/1/dyno"));
        let end = &words[words.len() - 5..];
        assert_eq!(end, ["-p", "2222", "--", "ann@box", "exec dyno __bridge"]);
        assert!(words.contains(&"ControlPath=/run/user/1/dyno/%C".to_owned()));
    }

    #[test]
    fn without_a_folder_there_is_no_master() {
        let words = arguments("box", None);
        assert!(words.contains(&"ControlPath=none".to_owned()), "{words:?}");
        assert!(!words.iter().any(|word| word.starts_with("ControlMaster")));
    }

    #[test]
    fn a_folder_that_others_can_enter_or_lead_elsewhere_is_not_private() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("masters");
        assert_eq!(is_private(&path), None);
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        assert_eq!(is_private(&path), Some(true));
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(is_private(&link), Some(false));
        let open = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(&path, open).unwrap();
        assert_eq!(is_private(&path), Some(false));
    }

    #[test]
    fn a_socket_is_one_word_of_the_shell_there() {
        let words = arguments("ssh://box/run/it's $(id)", None);
        assert_eq!(
            words.last().unwrap(),
            r"exec dyno __bridge '/run/it'\''s $(id)'"
        );
    }
}
