//! `exec`: one more process in a container that runs.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;

use oci_spec::runtime::{Capability, LinuxCapabilities, Process, User, UserBuilder};
use rustix::process::Pid;
use serde_json::json;

use super::create::{Outlets, inherited};
use super::foreground::{Signals, attend};
use super::{Failure, lifecycle};
use crate::container::{Container, StartError, Stdio};
use crate::state::{StateRoot, Status};

/// No process.json is larger, in bytes (P15).
const MAX_PROCESS: u64 = 4 << 20;

// Arguments of `exec`.
#[derive(Debug, clap::Args)]
pub(super) struct Exec {
    #[command(flatten)]
    outlets: Outlets,
    /// Working folder in the container
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// A variable for the process, over those of the container
    #[arg(long, short, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Give it a terminal
    #[arg(long, short)]
    tty: bool,
    /// Run as this user
    #[arg(long, short, value_name = "UID[:GID]")]
    user: Option<String>,
    /// One more group of the process
    #[arg(long, short = 'g', value_name = "GID")]
    additional_gids: Vec<u32>,
    /// The process as a file, config.json's `process` alone
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["cwd", "env", "user", "cap"])]
    process: Option<PathBuf>,
    /// Return once the process runs
    #[arg(long, short)]
    detach: bool,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Keep it from gaining privileges
    #[arg(long)]
    no_new_privs: bool,
    /// One more capability
    #[arg(long, short, value_name = "CAPABILITY")]
    cap: Vec<String>,
    /// Allow a paused container; the process waits until that is resumed
    #[arg(long)]
    ignore_paused: bool,
    /// The container
    id: String,
    /// The program and its arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<String>,
}

/// Executes it; the exit code of the process, unless it is left alone.
pub(super) fn exec(states: &StateRoot, args: &Exec) -> Result<u8, Failure> {
    let preserved = args.outlets.preserved()?;
    let (state, record) = lifecycle::opened(states, &args.id)?;
    let id = &args.id;
    let stopped = || format!("cannot exec in the stopped container {id:?}");
    match record.status(&state)? {
        Status::Running | Status::Created => {}
        Status::Paused if args.ignore_paused => {}
        Status::Paused => {
            return Err(format!(
                "cannot exec in the paused container {id:?}: resume it, or use --ignore-paused"
            )
            .into());
        }
        Status::Stopped => return Err(stopped().into()),
    }
    let bundle = lifecycle::bundle(&state, &record)?;
    // The lock is not held while a process runs.
    drop(state);
    let first = bundle.spec().process().as_ref();
    let process = args.process(first.ok_or("the container has no process")?)?;
    let terminal = process.terminal() == Some(true);
    if terminal && args.detach && args.outlets.console_socket.is_none() {
        return Err("a terminal that nobody stays to pass on: give --console-socket".into());
    }
    let signals = match args.detach {
        true => None,
        false => Some(Signals::listen()?),
    };
    let mut container = Container::adopt(bundle, record.cgroup.clone(), record.intel_rdt.clone())?
        .named(&record.id);
    container.preserve(preserved);
    container.switch(record.switches);
    let stdio = match terminal {
        true => Stdio::Terminal,
        false => inherited()?,
    };
    // Not before: reading the process may have taken long.
    let pidfd = record.init()?.ok_or_else(stopped)?;
    let init = Pid::from_raw(record.pid).ok_or("the container has no first process")?;
    let mut running = container.exec(init, pidfd.as_fd(), &process, stdio)?;
    let mut master = running.terminal.take();
    if let Err(error) = args
        .outlets
        .serve(running.pid, running.pidfd.as_fd(), &mut master)
    {
        running.end();
        return Err(error);
    }
    match signals {
        None => Ok(0),
        Some(signals) => Ok(attend(&running, master, &signals)?),
    }
}

/// The exit code where the process could not be executed, as a shell's.
pub(super) fn code_of(error: &Failure) -> u8 {
    match error.downcast_ref::<StartError>() {
        Some(StartError::NotFound { .. }) => 127,
        Some(StartError::NotExecutable { .. }) => 126,
        _ => 255,
    }
}

impl Exec {
    /// The container.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The process that is asked for, by a file or as the container's own with changes.
    fn process(&self, first: &Process) -> Result<Process, Failure> {
        let mut process = match &self.process {
            Some(path) => {
                let mut text = Vec::new();
                File::open(path)
                    .and_then(|file| file.take(MAX_PROCESS).read_to_end(&mut text))
                    .map_err(|error| format!("read {}: {error}", path.display()))?;
                crate::spec::parse(&text)
                    .map_err(|error| format!("parse {}: {error}", path.display()))?
            }
            None => first.clone(),
        };
        if self.process.is_none() || !self.command.is_empty() {
            process.set_args(Some(self.command.clone()));
        }
        // Podman says it in both ways.
        if self.process.is_none() || self.tty {
            process.set_terminal(Some(self.tty));
        }
        if let Some(cwd) = &self.cwd {
            process.set_cwd(cwd.clone());
        }
        if !self.env.is_empty() {
            let own = process.env().iter().flatten();
            process.set_env(Some(own.chain(&self.env).cloned().collect()));
        }
        if let Some(user) = &self.user {
            process.set_user(parse_user(user)?);
        }
        if !self.additional_gids.is_empty() {
            let mut user = process.user().clone();
            let own = user.additional_gids().iter().flatten();
            let groups = own.chain(&self.additional_gids).copied().collect();
            user.set_additional_gids(Some(groups));
            process.set_user(user);
        }
        if let Some(label) = &self.process_label {
            process.set_selinux_label(Some(label.clone()));
        }
        if let Some(profile) = &self.apparmor {
            process.set_apparmor_profile(Some(profile.clone()));
        }
        if self.no_new_privs {
            process.set_no_new_privileges(Some(true));
        }
        if !self.cap.is_empty() {
            let capabilities = process.capabilities().clone().unwrap_or_default();
            process.set_capabilities(Some(with(capabilities, &self.cap)?));
        }
        Ok(process)
    }
}

/// `UID` or `UID:GID`, numbers only: names are of a file that the image made (P7).
fn parse_user(text: &str) -> Result<User, Failure> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| text.parse::<u32>().ok()).flatten();
        number.ok_or_else(|| format!("--user: {text:?} is not an id, expected UID or UID:GID"))
    };
    let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
    let user = UserBuilder::default()
        .uid(number(uid)?)
        .gid(number(gid)?)
        .build();
    Ok(user?)
}

/// More capabilities, effective at once.
fn with(mut sets: LinuxCapabilities, more: &[String]) -> Result<LinuxCapabilities, Failure> {
    let more: HashSet<Capability> = more
        .iter()
        .map(|name| {
            let parsed = serde_json::from_value(json!(name));
            parsed.map_err(|_unknown| format!("--cap: {name:?} is not a capability"))
        })
        .collect::<Result<_, _>>()?;
    let grown = |set: &Option<HashSet<Capability>>| {
        Some(set.iter().flatten().chain(&more).copied().collect())
    };
    let bounding = grown(sets.bounding());
    let effective = grown(sets.effective());
    let permitted = grown(sets.permitted());
    sets.set_bounding(bounding);
    sets.set_effective(effective);
    sets.set_permitted(permitted);
    Ok(sets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_numbers_and_nothing_else() {
        let user = parse_user("1000:50").unwrap();
        assert_eq!((user.uid(), user.gid()), (1000, 50));
        assert_eq!(parse_user("7").unwrap().gid(), 0);
        for bad in [
            "",
            "root",
            "-1",
            "+1",
            "1:",
            ":1",
            "4294967296",
            "1:2:3",
            " 1",
        ] {
            assert!(parse_user(bad).is_err(), "{bad:?}");
        }
    }
}
