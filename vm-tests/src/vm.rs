//! One virtual machine: a QEMU process and the disk it runs on.
//!
//! ```text
//!           boot              power_cut: SIGKILL to QEMU
//!   Disk ─────────▶ Vm ──────────────────────────────────▶ Disk
//!     ▲              │   shut_down, reboot: busybox init ends everything
//!     └──────────────┘
//! ```
//!
//! A power cut loses what the guest kept in memory and had not flushed. What
//! it flushed is in the host's page cache, which outlives QEMU. So an
//! `fsync(2)` in the guest is durable and everything later may be lost, as on
//! a real disk with a write cache, except that lost writes are always the
//! newest ones. What a disk does that reorders them is seen from a [`State`]
//! with a log.

mod channel;
mod command;
mod qemu;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail, ensure};

pub use command::{Output, Printed, Request, Running};

use self::channel::Channel;
use self::qemu::Qemu;
use crate::kit::{Disk, Kit};

/// Without KVM everything takes many times longer, and other work may have the
/// machine: deadlines tell "stuck" from "slow" and nothing finer.
const BOOT_DEADLINE: Duration = Duration::from_secs(120);
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(60);
const ALIVE: Duration = Duration::from_secs(60);

/// How the machine is built.
#[derive(Debug, Clone)]
pub struct Options {
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cpus: u32,
    /// Start hostd at boot and again whenever it ends, as systemd would.
    pub hostd_at_boot: bool,
    /// A disk of its own for what the host keeps.
    pub state: Option<State>,
}

/// The disk that `/var/lib/dyno` is on.
#[derive(Debug, Clone)]
pub struct State {
    /// A raw image with an ext4 file system; it is written to.
    pub image: PathBuf,
    /// An empty file for the log of all its writes, see [`crate::write_log`].
    pub log: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory_mib: 1024,
            cpus: 2,
            hostd_at_boot: false,
            state: None,
        }
    }
}

/// A guest that runs not even `true`: its emulator or its kernel has failed,
/// and nothing is known about what was tested. Says what QEMU knows of it.
#[derive(Debug)]
pub struct Silent(String);

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the guest has fallen silent\n{}", self.0)
    }
}

impl std::error::Error for Silent {}

/// A running virtual machine; dropped, it is killed.
#[derive(Debug)]
pub struct Vm {
    qemu: Qemu,
    channel: Channel,
    disk: Option<Disk>,
    console: PathBuf,
    boot_id: String,
    boot_time: Duration,
}

impl Vm {
    /// Boots from `disk` and waits for the agent. `test` names the console log;
    /// later boots of the same test append to it.
    ///
    /// # Errors
    /// With the end of the console when the guest does not come up.
    pub fn boot(kit: &Kit, test: &str, disk: Disk, options: &Options) -> Result<Self> {
        let console = kit.console_log(test)?;
        let started = Instant::now();
        let (qemu, stdin, stdout) = Qemu::start(kit, &disk, &console, options)?;
        let (channel, hello) = Channel::open(stdin, stdout, BOOT_DEADLINE)
            .with_context(|| format!("booting for {test}\n{}", tail(&console)))?;
        let boot_time = started.elapsed();
        Ok(Self {
            qemu,
            channel,
            disk: Some(disk),
            console,
            boot_id: hello.boot_id,
            boot_time,
        })
    }

    /// Runs a command to its end, with the usual deadline.
    ///
    /// # Errors
    /// When the guest does not answer; the command's own failure is in [`Output`].
    pub fn run(&self, argv: &[&str]) -> Result<Output> {
        self.request(Request::new(argv))
    }

    /// Runs a shell script to its end; `set -e` holds.
    ///
    /// # Errors
    /// As [`Vm::run`].
    pub fn sh(&self, script: &str) -> Result<Output> {
        self.run(&["/bin/sh", "-ec", script])
    }

    /// Runs a command with all that can be said about it.
    ///
    /// # Errors
    /// As [`Vm::run`].
    pub fn request(&self, request: Request) -> Result<Output> {
        let result = self.start(request)?.wait();
        result.map_err(|error| match self.silence() {
            None => error,
            Some(silent) => Error::from(silent).context(format!("{error:#}")),
        })
    }

    /// Whether the guest does nothing at all any more, and what QEMU knows of it.
    #[must_use]
    pub fn silence(&self) -> Option<Silent> {
        let request = Request::new(&["/bin/true"]).deadline(ALIVE);
        match self.start(request).and_then(Running::wait) {
            Ok(_) => None,
            Err(_) => Some(Silent(match self.processors() {
                Ok(text) => text,
                Err(error) => format!("nor does QEMU answer: {error:#}"),
            })),
        }
    }

    /// Ends the machine from any thread: its commands fail.
    ///
    /// # Errors
    /// When it had already ended.
    pub fn give_up(&self) -> Result<()> {
        self.qemu.give_up()
    }

    /// Starts a command and lets it run.
    ///
    /// # Errors
    /// When the guest cannot be reached.
    pub fn start(&self, request: Request) -> Result<Running<'_>> {
        command::start(&self.channel, request)
    }

    /// Runs `script` until it succeeds.
    ///
    /// # Errors
    /// When it has not within `limit`, with its last output.
    pub fn wait_until(&self, what: &str, limit: Duration, script: &str) -> Result<Output> {
        let deadline = Instant::now() + limit;
        loop {
            let output = self.sh(script)?;
            if output.success() {
                return Ok(output);
            }
            if Instant::now() > deadline {
                bail!("{what}: not within {limit:?}; last try: {output}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Pulls the plug: nothing in the guest gets a chance to write anything more.
    ///
    /// # Errors
    /// When QEMU had already ended by itself.
    pub fn power_cut(mut self) -> Result<Disk> {
        self.qemu.kill()?;
        self.disk.take().context("a machine without a disk")
    }

    /// Shuts down in order: init ends every process, syncs and unmounts.
    ///
    /// # Errors
    /// With the end of the console when the machine does not turn itself off.
    pub fn shut_down(mut self) -> Result<Disk> {
        // The agent may be killed before it tells how the command ended.
        let running = self.start(Request::new(&["/sbin/poweroff"]))?;
        drop(running);
        self.qemu
            .wait(SHUTDOWN_DEADLINE)
            .with_context(|| format!("shutting down\n{}", tail(&self.console)))?;
        self.disk.take().context("a machine without a disk")
    }

    /// Differs at every boot.
    #[must_use]
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// From the start of QEMU to the agent's first word.
    #[must_use]
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// What QEMU knows of the guest's processors, whatever the guest does.
    ///
    /// # Errors
    /// When QEMU does not say.
    pub fn processors(&self) -> Result<String> {
        self.qemu.processors()
    }

    /// The end of what the guest said on its console.
    #[must_use]
    pub fn console_tail(&self) -> String {
        tail(&self.console)
    }
}

/// Opens a shell on the console of a fresh machine; returns when it is powered off.
///
/// # Errors
/// When QEMU cannot be run.
pub fn shell(kit: &Kit, hostd_at_boot: bool) -> Result<()> {
    let options = Options {
        hostd_at_boot,
        ..Options::default()
    };
    eprintln!("press Enter for a shell; `poweroff`, or Ctrl-A x, ends the machine");
    let status = qemu::machine(kit, &kit.new_disk("shell")?, &options)
        .args(["-chardev", "stdio,id=console,mux=on,signal=off"])
        .status()
        .context("executing setpriv and QEMU")?;
    ensure!(status.success(), "QEMU: {status}");
    Ok(())
}

/// The last lines of a console log and of what QEMU itself said.
pub(crate) fn tail(console: &Path) -> String {
    let mut text = String::new();
    for (path, lines) in [
        (console.to_path_buf(), 40),
        (console.with_extension("qemu"), 10),
    ] {
        let bytes = fs::read(&path).unwrap_or_default();
        let content = String::from_utf8_lossy(&bytes);
        let all: Vec<&str> = content.lines().collect();
        if !all.is_empty() {
            text.push_str(&format!("--- {}\n", path.display()));
            text.push_str(&all[all.len().saturating_sub(lines)..].join("\n"));
            text.push('\n');
        }
    }
    text
}
