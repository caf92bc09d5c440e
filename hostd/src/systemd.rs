//! `hostd install`: the systemd units of a host.
//!
//! ```text
//! dyno.service    a delegated cgroup that outlives hostd
//!   ├ holder        `hostd hold`, which does nothing: a unit needs a process
//!   ├ hostd         hostd moves itself here, so that all it starts is here too
//!   └ dyno-<host>/  monitors and dynos
//! hostd.service   the daemon; killing or restarting it touches no dyno
//! ```
//! Slices cannot delegate and hostd.service goes when hostd does, hence a
//! unit of its own for dynos. A delegated cgroup must not hold processes
//! itself, or it can hand no controllers down, hence the subgroups.
//!
//! Both units tell systemd when they are ready: hostd starts once the holder is
//! out of its way, and `hostd install` returns once the API answers.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use dyno_runtime::cgroup;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{ConfigError, Install, Serve};
use crate::durable::{self, Survives};
use crate::paths::text;

const DYNOS: &str = "dyno.service";
const HOSTD: &str = "hostd.service";

/// Why units could not be installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The options cannot be followed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A unit could not be written or removed.
    #[error("cannot write {path}")]
    Write {
        /// The unit.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// systemctl could not be executed.
    #[error("cannot execute systemctl; is this machine run by systemd?")]
    Systemctl(#[source] io::Error),
    /// The unit's cgroup could not be used.
    #[error("cannot use the cgroups of this machine")]
    Cgroups(#[from] cgroup::Error),
    /// No signal could be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    /// systemd could not be told that the unit is ready.
    #[error("cannot tell systemd that the unit is ready")]
    Notify(#[source] io::Error),
    /// A hostd runs that is none of systemd's.
    #[error("a hostd listens at {0} already; end it first: its dynos run on")]
    Runs(PathBuf),
    /// systemctl failed.
    #[error("systemctl {0} failed; `journalctl -u hostd` says why")]
    Failed(String),
}

/// Writes the units, and starts hostd unless told not to.
///
/// # Errors
/// [`InstallError`].
pub fn install(options: &Install) -> Result<(), InstallError> {
    let socket = options.serve.paths()?.socket();
    let socket = options.serve.socket.clone().unwrap_or(socket);
    options.serve.binaries()?;
    options.serve.group()?;
    let exe = Path::new("/proc/self/exe");
    let hostd = fs::read_link(exe).map_err(|source| ConfigError::Read {
        path: exe.to_owned(),
        source,
    })?;
    if !options.no_start && UnixStream::connect(&socket).is_ok() && !is_active(HOSTD)? {
        return Err(InstallError::Runs(socket));
    }
    write(&options.units.join(DYNOS), &dynos_unit(&hostd))?;
    write(
        &options.units.join(HOSTD),
        &hostd_unit(&hostd, &options.serve),
    )?;
    if options.no_start {
        return Ok(());
    }
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "--now", DYNOS, HOSTD])
}

/// Stops hostd and removes its units. `dyno.service`, and with it every
/// dyno, is stopped too: nobody would look after them.
///
/// # Errors
/// [`InstallError`].
pub fn uninstall(units: &Path) -> Result<(), InstallError> {
    systemctl(&["disable", "--now", HOSTD, DYNOS])?;
    for unit in [HOSTD, DYNOS] {
        let path = units.join(unit);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(InstallError::Write {
                    path,
                    source: error,
                });
            }
            _ => {}
        }
    }
    systemctl(&["daemon-reload"])
}

/// `hostd hold`: keeps the unit of the dynos alive until it is told to end.
///
/// # Errors
/// [`InstallError::Cgroups`] when it cannot leave the unit's own cgroup.
pub async fn hold() -> Result<(), InstallError> {
    let own = rustix::process::getpid();
    cgroup::join(&cgroup::detect()?, "/holder", own)?;
    let mut end = signal(SignalKind::terminate()).map_err(InstallError::Signals)?;
    tell_ready().map_err(InstallError::Notify)?;
    end.recv().await;
    Ok(())
}

/// Tells systemd that this unit is ready, as sd_notify(3) says; where no
/// systemd waits for it, nothing happens.
///
/// # Errors
/// When the message cannot be sent.
pub fn tell_ready() -> io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let address = match path.as_encoded_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&path)?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(b"READY=1", &address)
        .map(drop)
}

/// Moves this process into a cgroup of the v2 tree, made if need be.
///
/// # Errors
/// What the kernel says.
pub fn move_into(cgroup: &Path) -> io::Result<()> {
    let trees = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let is_v2 = |tree: &&Path| tree.join("cgroup.procs").exists();
    let tree = trees
        .into_iter()
        .find(is_v2)
        .ok_or(io::ErrorKind::Unsupported)?;
    let folder = tree.join(cgroup.strip_prefix("/").unwrap_or(cgroup));
    fs::create_dir_all(&folder)?;
    OpenOptions::new()
        .write(true)
        .open(folder.join("cgroup.procs"))?
        .write_all(b"0")
}

fn write(path: &Path, unit: &str) -> Result<(), InstallError> {
    durable::write_mode(path, unit.as_bytes(), 0o644, Survives::PowerCut).map_err(|source| {
        InstallError::Write {
            path: path.to_owned(),
            source,
        }
    })
}

fn systemctl(arguments: &[&str]) -> Result<(), InstallError> {
    if succeeds(arguments)? {
        Ok(())
    } else {
        Err(InstallError::Failed(arguments.join(" ")))
    }
}

fn is_active(unit: &str) -> Result<bool, InstallError> {
    succeeds(&["is-active", "--quiet", unit])
}

fn succeeds(arguments: &[&str]) -> Result<bool, InstallError> {
    let status = Command::new("systemctl").args(arguments).status();
    Ok(status.map_err(InstallError::Systemctl)?.success())
}

fn dynos_unit(hostd: &Path) -> String {
    format!(
        "[Unit]\n\
         Description=Dynos of this host\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={} hold\n\
         # Monitors and dynos live below this unit's cgroup.\n\
         Delegate=yes\n\
         KillMode=control-group\n\
         # The end of one dyno by its limit is that dyno's; the end of the\n\
         # holder would be everybody's.\n\
         OOMPolicy=continue\n\
         OOMScoreAdjust=-1000\n\
         TasksMax=infinity\n\
         LimitNOFILE=infinity\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        quoted(&text(hostd))
    )
}

fn hostd_unit(hostd: &Path, serve: &Serve) -> String {
    let mut command = vec![text(hostd), "serve".to_owned()];
    command.extend(["--state-dir".to_owned(), text(&serve.state_dir)]);
    command.extend(["--run-dir".to_owned(), text(&serve.run_dir)]);
    if let Some(socket) = &serve.socket {
        command.extend(["--socket".to_owned(), text(socket)]);
    }
    if let Some(group) = &serve.group {
        command.extend(["--group".to_owned(), group.clone()]);
    }
    if let Some(programs) = &serve.programs {
        command.extend(["--programs".to_owned(), text(programs)]);
    }
    if let Some(key) = &serve.secret_key_file {
        command.extend(["--secret-key-file".to_owned(), text(key)]);
    }
    command.extend([
        "--cgroup".to_owned(),
        format!("/system.slice/{DYNOS}/hostd"),
    ]);
    let command: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    format!(
        "[Unit]\n\
         Description=Host daemon of dyno\n\
         Requires={DYNOS}\n\
         After={DYNOS} network-pre.target local-fs.target\n\
         # However often it ends, it is started again.\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={}\n\
         # It looks after its dynos first, however many there are.\n\
         TimeoutStartSec=300\n\
         Restart=always\n\
         RestartSec=1\n\
         # Monitors and the edge outlive the daemon.\n\
         KillMode=process\n\
         LimitNOFILE=infinity\n\
         TasksMax=infinity\n\
         OOMScoreAdjust=-900\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        command.join(" ")
    )
}

/// One word of a command line, as systemd.service(5) reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let escaped = word
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%")
        .replace('$', "$$");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve() -> Serve {
        Serve {
            state_dir: "/srv/my dynos".into(),
            run_dir: "/run/dyno".into(),
            socket: None,
            group: Some("dyno".into()),
            programs: None,
            secret_key_file: None,
            cgroup: None,
        }
    }

    #[test]
    fn a_restart_of_hostd_touches_no_dyno() {
        let unit = hostd_unit(Path::new("/usr/bin/hostd"), &serve());
        assert!(unit.contains("KillMode=process\n"));
        assert!(unit.contains("Type=notify\n") && unit.contains("StartLimitIntervalSec=0\n"));
        assert!(unit.contains("ExecStart=/usr/bin/hostd serve --state-dir \"/srv/my dynos\" --run-dir /run/dyno --group dyno --cgroup "), "{unit}");
        assert!(unit.contains("--cgroup /system.slice/dyno.service/hostd"));
        let dynos = dynos_unit(Path::new("/usr/bin/hostd"));
        assert!(
            dynos.contains("Delegate=yes\n")
                && dynos.contains("Type=notify\n")
                && dynos.contains("ExecStart=/usr/bin/hostd hold\n")
        );
    }

    #[test]
    fn words_are_quoted_as_systemd_reads_them() {
        assert_eq!(quoted("/a/b"), "/a/b");
        assert_eq!(quoted("a b"), "\"a b\"");
        assert_eq!(quoted("50%$"), "\"50%%$$\"");
        assert_eq!(quoted(""), "\"\"");
    }
}
