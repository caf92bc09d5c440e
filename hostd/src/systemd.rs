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
//! out of its way, and `hostd install` returns once the API answers. Where that is asked
//! for, a third one, hostd.socket, holds the API's socket while hostd is replaced.

pub mod activation;
pub mod notify;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use dyno_runtime::cgroup;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{AUDIT_MIB, ConfigError, Install, Serve};
use crate::durable::{self, Survives};
use crate::paths::text;

const DYNOS: &str = "dyno.service";
const HOSTD: &str = "hostd.service";
const SOCKET: &str = "hostd.socket";

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
    // To connect to a socket of systemd's would start hostd.
    let is_ours = || Ok::<_, InstallError>(is_active(SOCKET)? || is_active(HOSTD)?);
    if !options.no_start && !is_ours()? && UnixStream::connect(&socket).is_ok() {
        return Err(InstallError::Runs(socket));
    }
    let unit = options.units.join(SOCKET);
    if options.socket_activation {
        let group = options.serve.group.as_deref();
        write(&unit, &socket_unit(&socket, group))?;
    } else if unit.exists() {
        if !options.no_start {
            systemctl(&["disable", "--now", SOCKET])?;
        }
        remove(unit)?;
    }
    write(&options.units.join(DYNOS), &dynos_unit(&hostd))?;
    write(
        &options.units.join(HOSTD),
        &hostd_unit(&hostd, &options.serve, options.socket_activation),
    )?;
    spare_from_needrestart()?;
    if options.no_start {
        return Ok(());
    }
    systemctl(&["daemon-reload"])?;
    if !options.socket_activation {
        return systemctl(&["enable", "--now", DYNOS, HOSTD]);
    }
    if !is_active(SOCKET)? {
        // It cannot be given to one that runs. Its dynos run on.
        systemctl(&["stop", HOSTD])?;
    }
    systemctl(&["enable", "--now", DYNOS, SOCKET, HOSTD])
}

/// needrestart(1) restarts units whose programs were replaced; the holder and the
/// monitors are such by design, and their restart would end every dyno.
fn spare_from_needrestart() -> Result<(), InstallError> {
    let folder = Path::new("/etc/needrestart/conf.d");
    if !folder.is_dir() {
        return Ok(());
    }
    let text = include_str!("systemd/needrestart.conf");
    write(&folder.join("dyno.conf"), text)
}

/// Stops hostd and removes its units. `dyno.service`, and with it every
/// dyno, is stopped too: nobody would look after them.
///
/// # Errors
/// [`InstallError`].
pub fn uninstall(units: &Path) -> Result<(), InstallError> {
    // First what would start hostd again.
    if units.join(SOCKET).exists() {
        systemctl(&["disable", "--now", SOCKET])?;
    }
    systemctl(&["disable", "--now", HOSTD, DYNOS])?;
    for unit in [SOCKET, HOSTD, DYNOS] {
        remove(units.join(unit))?;
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
    notify::ready().map_err(InstallError::Notify)?;
    end.recv().await;
    Ok(())
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

fn remove(path: PathBuf) -> Result<(), InstallError> {
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(InstallError::Write { path, source })
        }
        _ => Ok(()),
    }
}

fn systemctl(arguments: &[&str]) -> Result<(), InstallError> {
    if succeeds(arguments)? {
        Ok(())
    } else {
        Err(InstallError::Failed(arguments.join(" ")))
    }
}

/// Whether the unit of hostd that runs executes this program; `None` where none runs.
///
/// # Errors
/// [`InstallError::Write`] when the unit cannot be read.
pub fn runs(hostd: &Path) -> Result<Option<bool>, InstallError> {
    if !Path::new("/run/systemd/system").exists() || !is_active(HOSTD)? {
        return Ok(None);
    }
    let show = ["show", "--property", "ExecStart", "--value", HOSTD];
    let output = Command::new("systemctl").args(show).output();
    let output = output.map_err(InstallError::Systemctl)?;
    // { path=/usr/bin/hostd ; argv[]=… }
    let path = format!("path={} ;", text(hostd));
    Ok(Some(
        String::from_utf8_lossy(&output.stdout).contains(&path),
    ))
}

/// Restarts the unit of hostd; done once it says that it is ready.
///
/// # Errors
/// [`InstallError`].
pub fn restart() -> Result<(), InstallError> {
    systemctl(&["restart", HOSTD])
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

fn socket_unit(socket: &Path, group: Option<&str>) -> String {
    let group = group.map_or(String::new(), |group| format!("SocketGroup={group}\n"));
    // Specifiers are the only thing that systemd reads into a path.
    let socket = text(socket).replace('%', "%%");
    format!(
        "[Unit]\n\
         Description=API of hostd\n\
         \n\
         [Socket]\n\
         ListenStream={socket}\n\
         SocketMode=0660\n\
         {group}\
         DirectoryMode=0711\n\
         \n\
         [Install]\n\
         WantedBy=sockets.target\n"
    )
}

fn hostd_unit(hostd: &Path, serve: &Serve, socket_activation: bool) -> String {
    let mut command = vec![text(hostd), "serve".to_owned()];
    command.extend(["--state-dir".to_owned(), text(&serve.state_dir)]);
    command.extend(["--run-dir".to_owned(), text(&serve.run_dir)]);
    if let Some(socket) = &serve.socket {
        command.extend(["--socket".to_owned(), text(socket)]);
    }
    if let Some(group) = &serve.group {
        command.extend(["--group".to_owned(), group.clone()]);
    }
    if let Some(address) = &serve.metrics_listen {
        command.extend(["--metrics-listen".to_owned(), address.to_string()]);
    }
    if let Some(address) = &serve.listen {
        command.extend(["--listen".to_owned(), address.to_string()]);
    }
    if let Some(key) = &serve.remote_key_file {
        command.extend(["--remote-key-file".to_owned(), text(key)]);
    }
    if let Some(programs) = &serve.programs {
        command.extend(["--programs".to_owned(), text(programs)]);
    }
    if let Some(key) = &serve.secret_key_file {
        command.extend(["--secret-key-file".to_owned(), text(key)]);
    }
    if serve.audit_size != AUDIT_MIB {
        command.extend(["--audit-size".to_owned(), serve.audit_size.to_string()]);
    }
    command.extend([
        "--cgroup".to_owned(),
        format!("/system.slice/{DYNOS}/hostd"),
    ]);
    let command: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    let (requires, sockets) = match socket_activation {
        true => (format!("{DYNOS} {SOCKET}"), format!("Sockets={SOCKET}\n")),
        false => (DYNOS.to_owned(), String::new()),
    };
    format!(
        "[Unit]\n\
         Description=Host daemon of dyno\n\
         Requires={requires}\n\
         After={requires} network-pre.target local-fs.target\n\
         # However often it ends, it is started again.\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={}\n\
         ExecReload=kill -HUP $MAINPID\n\
         {sockets}\
         # It says that it lives as long as it looks after its dynos.\n\
         WatchdogSec=120\n\
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
            metrics_listen: Some("127.0.0.1:9100".parse().unwrap()),
            listen: Some("[::]:4410".parse().unwrap()),
            remote_key_file: None,
            programs: None,
            secret_key_file: None,
            audit_size: 64,
            cgroup: None,
        }
    }

    #[test]
    fn a_restart_of_hostd_touches_no_dyno() {
        let unit = hostd_unit(Path::new("/usr/bin/hostd"), &serve(), false);
        assert!(unit.contains("KillMode=process\n"));
        assert!(unit.contains("Type=notify\n") && unit.contains("StartLimitIntervalSec=0\n"));
        assert!(unit.contains("ExecStart=/usr/bin/hostd serve --state-dir \"/srv/my dynos\" --run-dir /run/dyno --group dyno --metrics-listen 127.0.0.1:9100 --listen \"[::]:4410\" --audit-size 64 --cgroup "), "{unit}");
        assert!(unit.contains("--cgroup /system.slice/dyno.service/hostd"));
        let dynos = dynos_unit(Path::new("/usr/bin/hostd"));
        assert!(
            dynos.contains("Delegate=yes\n")
                && dynos.contains("Type=notify\n")
                && dynos.contains("ExecStart=/usr/bin/hostd hold\n")
        );
    }

    #[test]
    fn a_socket_of_systemds_is_hostds_only_where_that_is_asked_for() {
        let hostd = Path::new("/usr/bin/hostd");
        let plain = hostd_unit(hostd, &serve(), false);
        assert!(!plain.contains(SOCKET), "{plain}");
        let unit = hostd_unit(hostd, &serve(), true);
        assert!(
            unit.contains("Requires=dyno.service hostd.socket\n"),
            "{unit}"
        );
        assert!(unit.contains("\nSockets=hostd.socket\n"), "{unit}");
        let socket = socket_unit(Path::new("/run/a%b/hostd.sock"), Some("dyno"));
        assert!(socket.contains("ListenStream=/run/a%%b/hostd.sock\n"));
        assert!(socket.contains("SocketMode=0660\nSocketGroup=dyno\nDirectoryMode"));
        assert!(!socket_unit(Path::new("/x"), None).contains("Group"));
    }

    #[test]
    fn words_are_quoted_as_systemd_reads_them() {
        assert_eq!(quoted("/a/b"), "/a/b");
        assert_eq!(quoted("a b"), "\"a b\"");
        assert_eq!(quoted("50%$"), "\"50%%$$\"");
        assert_eq!(quoted(""), "\"\"");
    }
}
