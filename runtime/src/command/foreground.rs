//! A process that its caller waits for: signals, terminal, exit code.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use crate::container::{Exit, Process};
use crate::sys;

/// Signals that reach us while we wait. Those that tell of our own mistakes, and
/// the two that cannot be caught, are not among them.
#[derive(Debug)]
pub(super) struct Signals(SignalFd);

impl Signals {
    /// From here on signals are read. Before there is anybody to pass them to.
    pub(super) fn listen() -> io::Result<Self> {
        let mut wanted = SigSet::all();
        for own in [
            nix::sys::signal::SIGSEGV,
            nix::sys::signal::SIGBUS,
            nix::sys::signal::SIGILL,
            nix::sys::signal::SIGFPE,
            nix::sys::signal::SIGABRT,
            nix::sys::signal::SIGTRAP,
        ] {
            wanted.remove(own);
        }
        wanted.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(&wanted, flags)?))
    }

    fn next(&self) -> io::Result<Option<i32>> {
        let signal = self.0.read_signal()?;
        Ok(signal.and_then(|signal| i32::try_from(signal.ssi_signo).ok()))
    }
}

/// Passes signals and, where it has a terminal that is ours to keep, what is
/// typed and shown, until the process has ended; its exit code as a shell has it.
///
/// # Errors
/// When it cannot be waited for.
pub(super) fn attend(
    process: &Process,
    terminal: Option<OwnedFd>,
    signals: &Signals,
) -> io::Result<u8> {
    let mut proxy = terminal.map(Proxy::new).transpose()?;
    loop {
        let mut polled = vec![
            PollFd::new(&process.pidfd, PollFlags::IN),
            PollFd::new(&signals.0, PollFlags::IN),
        ];
        polled.extend(proxy.iter().flat_map(Proxy::polled));
        rustix::io::retry_on_intr(|| poll(&mut polled, None))?;
        let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        while let Some(signal) = signals.next()? {
            pass(signal, process, proxy.as_ref());
        }
        if let Some(proxy) = &mut proxy {
            proxy.copy(&ready[2..])?;
        }
        if ready[0] {
            if let Some(proxy) = &mut proxy {
                proxy.drain();
            }
            return Ok(match process.wait()? {
                Exit::Code(code) => code,
                Exit::Signal(signal) => signal.saturating_add(128),
            });
        }
    }
}

fn pass(signal: i32, process: &Process, proxy: Option<&Proxy>) {
    match signal {
        libc::SIGCHLD => {}
        libc::SIGWINCH if proxy.is_some() => proxy.map_or((), Proxy::resize),
        _ => {
            let number = u8::try_from(signal).ok();
            if let Some(signal) = number.and_then(sys::signal::signal) {
                // It may have ended meanwhile, which is seen next.
                process.signal(signal).ok();
            }
        }
    }
}

/// Between our own terminal, or what is in its place, and the container's.
struct Proxy {
    master: File,
    input: Option<OwnedFd>,
    output: File,
    /// Our own terminal as it was.
    before: Option<Termios>,
    /// Typed and not yet taken.
    typed: Vec<u8>,
    open: bool,
}

impl Proxy {
    fn new(master: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&master, true)?;
        let input = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
        let output = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
        let mut before = None;
        if isatty(&input) {
            let attributes = tcgetattr(&input)?;
            let mut raw = attributes.clone();
            raw.make_raw();
            tcsetattr(&input, OptionalActions::Now, &raw)?;
            before = Some(attributes);
        }
        let proxy = Self {
            master: master.into(),
            input: Some(input),
            output: output.into(),
            before,
            typed: Vec::new(),
            open: true,
        };
        proxy.resize();
        Ok(proxy)
    }

    /// Takes our own terminal's size over, where there is one.
    fn resize(&self) {
        if let Some(size) = self.input.as_ref().and_then(|own| tcgetwinsize(own).ok()) {
            // Its terminal may be closed already.
            tcsetwinsize(&self.master, size).ok();
        }
    }

    fn polled(&self) -> [PollFd<'_>; 2] {
        let mut of_master = match self.typed.is_empty() {
            true => PollFlags::empty(),
            false => PollFlags::OUT,
        };
        if self.open {
            of_master |= PollFlags::IN;
        }
        let stdin = self.input.as_ref().filter(|_| self.typed.is_empty());
        let (input, of_input): (BorrowedFd<'_>, _) = match stdin {
            Some(input) => (input.as_fd(), PollFlags::IN),
            None => (self.master.as_fd(), PollFlags::empty()),
        };
        [
            PollFd::from_borrowed_fd(self.master.as_fd(), of_master),
            PollFd::from_borrowed_fd(input, of_input),
        ]
    }

    fn copy(&mut self, ready: &[bool]) -> io::Result<()> {
        if ready[0] {
            self.open = self.open && self.show()?;
            self.hand_in();
        }
        if ready[1] && self.typed.is_empty() {
            self.read_typed();
            self.hand_in();
        }
        Ok(())
    }

    /// One read of what the container shows; whether there may be more.
    fn show(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 16384];
        match self.master.read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(length) => self.output.write_all(&buffer[..length]).map(|()| true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
            // EIO: nobody has the other end open.
            Err(_) => Ok(false),
        }
    }

    fn read_typed(&mut self) {
        let Some(input) = &self.input else { return };
        let mut buffer = [0; 4096];
        match rustix::io::read(input, &mut buffer) {
            Ok(length) if length > 0 => self.typed.extend_from_slice(&buffer[..length]),
            // ^D, at the end of what is not a terminal.
            _ => {
                self.input = None;
                self.typed.push(4);
            }
        }
    }

    fn hand_in(&mut self) {
        match self.master.write(&self.typed) {
            Ok(taken) => drop(self.typed.drain(..taken)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.typed.clear(),
        }
    }

    /// What is still in the terminal when its process has ended.
    fn drain(&mut self) {
        while self.open && self.pending() {
            self.open = self.show().unwrap_or(false);
        }
    }

    fn pending(&self) -> bool {
        let now = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut polled = [PollFd::new(&self.master, PollFlags::IN)];
        matches!(poll(&mut polled, Some(&now)), Ok(1))
            && polled[0].revents().contains(PollFlags::IN)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let (Some(before), Some(input)) = (&self.before, &self.input) {
            // There is nobody to tell: the person sees it.
            tcsetattr(input, OptionalActions::Drain, before).ok();
        }
    }
}
