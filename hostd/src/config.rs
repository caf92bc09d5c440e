//! The command line of `hostd`.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::host::Binaries;
use crate::man::Man;
use crate::paths::Paths;

/// 200,000 operations, roughly.
pub const AUDIT_MIB: u32 = 128;

/// Runs supervised containers on this machine.
#[derive(Debug, Parser)]
#[command(name = "hostd", version, about)]
pub struct Command {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What hostd can be asked to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Run the daemon in the foreground
    Serve(Serve),
    /// Write and start the systemd units of hostd
    Install(Install),
    /// Replace the programs by those of another release and restart hostd; dynos run on
    Upgrade(Upgrade),
    /// Stop hostd and its dynos and remove the systemd units; state stays
    Uninstall,
    /// Take down what a host without dynos has in this kernel: network, DNS, cgroups
    Teardown(Serve),
    /// Look whether this machine has what dynos need, and say what to do
    Doctor(Doctor),
    /// Keep the systemd unit of the dynos alive
    #[command(hide = true)]
    Hold,
    /// Write manual pages, as roff
    Man(Man),
    /// Print the version
    Version,
}

/// `hostd upgrade`.
#[derive(Debug, Clone, Args)]
pub struct Upgrade {
    /// Folder of the other release's programs: `bin` of its tarball
    #[arg(value_name = "FOLDER")]
    pub from: PathBuf,
    /// Folder of the programs to replace [default: hostd's own]
    #[arg(long, value_name = "FOLDER")]
    pub to: Option<PathBuf>,
    /// Replace the programs, and leave the restart of hostd to you
    #[arg(long)]
    pub no_restart: bool,
    /// Where the API listens [default: /run/dyno/hostd.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

impl Upgrade {
    /// Where the API listens.
    ///
    /// # Errors
    /// [`ConfigError::Path`].
    pub fn socket(&self) -> Result<PathBuf, ConfigError> {
        match &self.socket {
            Some(path) if !path.is_absolute() => Err(ConfigError::Path(path.clone())),
            Some(path) => Ok(path.clone()),
            None => Ok("/run/dyno/hostd.sock".into()),
        }
    }
}

/// `hostd serve`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Serve {
    /// Folder of images, volumes, logs and what shall run
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/dyno",
        env = "DYNO_STATE_DIR"
    )]
    pub state_dir: PathBuf,
    /// Folder of sockets and bundles
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/run/dyno",
        env = "DYNO_RUN_DIR"
    )]
    pub run_dir: PathBuf,
    /// Where the API listens [default: hostd.sock in the run folder]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Group whose members may talk to hostd; they can do what root can
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// Where metrics and health are served by TCP, too: 127.0.0.1:9100. Whoever reaches that
    /// port sees the names and images of all dynos, without being asked who they are
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<SocketAddr>,
    /// Where the API is served by TLS 1.3, too, for whoever has a token: 0.0.0.0:4410.
    /// `dyno token create` makes one
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// File of the key that the certificates of `--listen` are signed with; made when missing
    /// [default: /etc/dyno/remote-HOST.key]
    #[arg(long, value_name = "PATH", env = "DYNO_REMOTE_KEY_FILE")]
    pub remote_key_file: Option<PathBuf>,
    /// Folder of dyno-runtime, dyno-unpack and dyno-edge [default: hostd's own]
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
    /// File of the key that secrets are encrypted under; made when missing
    /// [default: /etc/dyno/secrets-HOST.key]
    #[arg(long, value_name = "PATH", env = "DYNO_SECRET_KEY_FILE")]
    pub secret_key_file: Option<PathBuf>,
    /// MiB that the audit log takes at the most; the oldest of it goes
    #[arg(
        long,
        value_name = "MIB",
        default_value_t = AUDIT_MIB,
        value_parser = clap::value_parser!(u32).range(1..=1 << 16)
    )]
    pub audit_size: u32,
    /// cgroup of the v2 tree to move into first; all that hostd starts is
    /// made in the delegated one around it
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,
}

/// `hostd doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Doctor {
    /// Write JSON
    #[arg(long)]
    pub json: bool,
    /// What the daemon is, or would be, started with
    #[command(flatten)]
    pub serve: Serve,
}

/// `hostd install`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Install {
    /// Folder that the units are written to
    #[arg(long, value_name = "DIR", default_value = "/etc/systemd/system")]
    pub units: PathBuf,
    /// Write the units and start nothing
    #[arg(long)]
    pub no_start: bool,
    /// Let systemd hold the socket of the API: who connects while hostd is replaced waits
    #[arg(long)]
    pub socket_activation: bool,
    /// What the daemon is started with
    #[command(flatten)]
    pub serve: Serve,
}

/// Why a command line cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A group that `/etc/group` does not have.
    #[error("there is no group {0:?} in /etc/group")]
    Group(String),
    /// A program that hostd needs is not there.
    #[error("{0} is missing; it belongs next to hostd, or where --programs says")]
    Program(PathBuf),
    /// A path that is not absolute or not UTF-8.
    #[error("{0} is not an absolute UTF-8 path")]
    Path(PathBuf),
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Serve {
    /// The host's folders.
    ///
    /// # Errors
    /// [`ConfigError::Path`].
    pub fn paths(&self) -> Result<Paths, ConfigError> {
        let absolute = |path: &Path| match path.to_str() {
            Some(_) if path.is_absolute() => Ok(path.to_owned()),
            _ => Err(ConfigError::Path(path.to_owned())),
        };
        Ok(Paths {
            state_dir: absolute(&self.state_dir)?,
            run_dir: absolute(&self.run_dir)?,
        })
    }

    /// The programs that hostd executes.
    ///
    /// # Errors
    /// [`ConfigError::Program`] when one is missing.
    pub fn binaries(&self) -> Result<Binaries, ConfigError> {
        let own = Path::new("/proc/self/exe");
        let folder = match &self.programs {
            Some(folder) => folder.clone(),
            None => {
                let exe = std::fs::read_link(own).map_err(|source| ConfigError::Read {
                    path: own.to_owned(),
                    source,
                })?;
                exe.parent().map(Path::to_owned).unwrap_or_default()
            }
        };
        let program = |name: &str| {
            let path = folder.join(name);
            if path.is_file() {
                Ok(path)
            } else {
                Err(ConfigError::Program(path))
            }
        };
        Ok(Binaries {
            runtime: program("dyno-runtime")?,
            unpack: program("dyno-unpack")?,
            edge: program("dyno-edge")?,
        })
    }

    /// The number of the group that may talk to hostd.
    ///
    /// # Errors
    /// [`ConfigError::Group`].
    pub fn group(&self) -> Result<Option<u32>, ConfigError> {
        let Some(name) = &self.group else {
            return Ok(None);
        };
        let path = Path::new("/etc/group");
        // No NSS: a static program must not load the host's libraries.
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        group_id(&text, name)
            .map(Some)
            .ok_or_else(|| ConfigError::Group(name.clone()))
    }
}

fn group_id(text: &str, wanted: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id = fields.nth(1)?.parse().ok()?;
        (name == wanted).then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Command::command().debug_assert();
    }

    #[test]
    fn a_group_is_a_line_of_the_group_file() {
        let text = "root:x:0:\ndyno:x:998:alice,bob\n";
        assert_eq!(group_id(text, "dyno"), Some(998));
        assert_eq!(group_id(text, "dyn"), None);
    }

    #[test]
    fn relative_folders_are_refused() {
        let command = Command::try_parse_from(["hostd", "serve", "--state-dir", "x"]).unwrap();
        let Action::Serve(serve) = command.action else {
            panic!()
        };
        assert!(matches!(serve.paths(), Err(ConfigError::Path(_))));
    }
}
