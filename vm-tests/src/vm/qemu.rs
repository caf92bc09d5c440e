//! The QEMU process and its command line.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{Options, State};
use crate::guest::{HOSTD_AT_BOOT, STATE_ON_DISK};
use crate::kit::{Disk, Kit};

/// QEMU with everything but the two ends of `console` and `agent`.
pub(super) fn machine(kit: &Kit, disk: &Disk, options: &Options) -> Command {
    let mut words = "console=ttyS0 quiet panic=-1 mitigations=off".to_owned();
    if options.hostd_at_boot {
        words.push(' ');
        words.push_str(HOSTD_AT_BOOT);
    }
    if options.state.is_some() {
        words.push(' ');
        words.push_str(STATE_ON_DISK);
    }
    let mut command = Command::new("/usr/bin/setpriv");
    command
        .args(["--pdeathsig", "KILL", "/usr/bin/qemu-system-x86_64"])
        // Never KVM: nested, it may hang; and the tests must pass where there is none.
        .args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-machine",
            "q35",
        ])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
        ])
        .args([
            "-m",
            &options.memory_mib.to_string(),
            "-smp",
            &options.cpus.to_string(),
        ])
        .arg("-kernel")
        .arg(kit.vmlinuz())
        .arg("-initrd")
        .arg(kit.initramfs())
        .args(["-append", &words])
        .arg("-drive")
        .arg(format!(
            "file={},format=qcow2,if=none,id=disk,cache=writeback",
            escaped(disk.path())
        ))
        .args([
            "-device",
            "virtio-blk-pci,drive=disk",
            "-serial",
            "chardev:console",
        ]);
    if let Some(state) = &options.state {
        command
            .args(["-blockdev", &block_device(state)])
            .args(["-device", "virtio-blk-pci,drive=state"]);
    }
    command
}

/// The second disk, through the driver that logs its writes where they are wanted.
fn block_device(state: &State) -> String {
    let image = escaped(&state.image);
    let file = format!("node-name=state,file.driver=file,file.filename={image}");
    match &state.log {
        None => format!("driver=raw,{file}"),
        Some(log) => format!(
            "driver=blklogwrites,{file},log.driver=file,log.filename={}",
            escaped(log)
        ),
    }
}

/// What is asked of QEMU about a guest that says nothing more: where each
/// processor is, and which interrupts and timers it has.
const QUESTIONS: &[&str] = &[
    "info registers -a",
    "info lapic 0",
    "info lapic 1",
    "info pic",
];

/// Longer than QEMU takes to answer one of them.
const ANSWER: Duration = Duration::from_secs(5);

/// The process, killed when dropped.
#[derive(Debug)]
pub(super) struct Qemu {
    child: Child,
    /// QMP: the machine's own side, whatever the guest does.
    monitor: UnixStream,
}

impl Qemu {
    /// Standard input and output are the agent's port. setpriv(1) has the
    /// kernel kill QEMU when the thread that started it ends, so that no
    /// machine is left behind even when the harness is killed.
    pub(super) fn start(
        kit: &Kit,
        disk: &Disk,
        console: &Path,
        options: &Options,
    ) -> Result<(Self, ChildStdin, ChildStdout)> {
        let errors = console.with_extension("qemu");
        let errors =
            File::create(&errors).with_context(|| format!("creating {}", errors.display()))?;
        let (monitor, end) = UnixStream::pair().context("a socket for QMP")?;
        fcntl_setfd(&end, FdFlags::empty()).context("handing QMP's socket on")?;
        let child = machine(kit, disk, options)
            .arg("-chardev")
            .arg(format!("socket,id=monitor,fd={}", end.as_raw_fd()))
            .args(["-mon", "chardev=monitor,mode=control"])
            .arg("-chardev")
            .arg(format!(
                "file,id=console,append=on,path={}",
                escaped(console)
            ))
            .args([
                "-chardev",
                "stdio,id=agent,signal=off",
                "-device",
                "virtio-serial-pci",
            ])
            .args(["-device", "virtserialport,chardev=agent,name=dyno.agent"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .context("executing setpriv and QEMU")?;
        let mut qemu = Self { child, monitor };
        let stdin = qemu.child.stdin.take().context("QEMU without stdin")?;
        let stdout = qemu.child.stdout.take().context("QEMU without stdout")?;
        Ok((qemu, stdin, stdout))
    }

    /// What QEMU knows of the guest's processors, twice in a row: what
    /// moves and what stands still is seen from the difference.
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub(super) fn processors(&self) -> Result<String> {
        // QMP: its greeting, then a line of JSON for each that is sent.
        let mut lines = BufReader::new(&self.monitor).lines();
        let mut line = || {
            lines
                .next()
                .context("QMP was closed")?
                .context("hearing QMP")
        };
        self.monitor.set_read_timeout(Some(ANSWER))?;
        line()?;
        writeln!(&self.monitor, "{}", json!({"execute": "qmp_capabilities"}))?;
        line()?;
        let mut text = String::new();
        for question in QUESTIONS.iter().chain(QUESTIONS) {
            let arguments = json!({"command-line": question});
            let command = json!({"execute": "human-monitor-command", "arguments": arguments});
            writeln!(&self.monitor, "{command}").context("asking by QMP")?;
            let answer: Value = serde_json::from_str(&line()?).context("reading QMP")?;
            let answer = answer["return"].as_str().context("no answer in QMP")?;
            text.push_str(&format!("--- {question}\n{answer}\n"));
        }
        Ok(text)
    }

    /// Kills it from any thread; every command sees that the machine is gone.
    ///
    /// # Errors
    /// When it had already ended.
    pub(super) fn give_up(&self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::KILL).context("killing QEMU")
    }

    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("killing QEMU")?;
        let status = self.child.wait().context("waiting for QEMU")?;
        if status.signal().is_none() {
            bail!("QEMU had ended by itself before its power was cut: {status}");
        }
        Ok(())
    }

    /// Waits for it to end by itself.
    pub(super) fn wait(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait().context("waiting for QEMU")? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("QEMU: {status}"),
                None if Instant::now() > deadline => bail!("QEMU still runs after {limit:?}"),
                None => thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Both fail only where it has already been waited for.
        if self.child.kill().is_ok()
            && let Err(error) = self.child.wait()
        {
            eprintln!("waiting for QEMU: {error}");
        }
    }
}

/// A path as a value in QEMU's options, where a comma separates.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
