//! The first process of a dyno that shall have one of ours there (`init` of
//! `monitor.json`), instead of its command.
//!
//! ```text
//!  monitor ─clone─▶ pid 1, set up as ever ─execveat─▶ dyno-init ─clone─▶ the command
//!     ▲                our own file, read-only (P5)       │ signals ──────▶ in a session
//!     └── executed, or why not; the signal that ended it ─┤               of its own
//!                                                         └ reaps whoever has no parent
//! ```
//! It has the command's identity, bounds and system calls, standard streams and variables,
//! and needs no file of the image. It ends with the command, as that did: with its code
//! or, since a first process cannot end itself by a signal, by a word to the monitor.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use rustix::process::{Pid, WaitOptions, WaitStatus, ioctl_tiocsctty, kill_process, wait};

use crate::plan::{Plan, Program};
use crate::sys;

/// What it is called, and by what it knows what it is.
const NAME: &str = "dyno-init";

/// Exit code of an init that could not begin, or has a command that could not.
const FAILED: u8 = 125;

/// What an init tells its monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// The command is executed.
    Executed,
    /// It cannot be executed.
    NotExecuted(Errno),
    /// There cannot be a process for it.
    NotCloned(Errno),
    /// This signal ended it.
    Killed(u8),
}

/// What is said of the word, and a number (i32).
const PACKET: usize = 5;

/// The monitor's end.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

/// The init's end, which it gets over its `execve(2)`.
#[derive(Debug)]
pub(crate) struct Speaker(OwnedFd);

/// A connected pair of ends.
pub(crate) fn pair() -> rustix::io::Result<(Listener, Speaker)> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, its) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    Ok((Listener(ours), Speaker(its)))
}

impl Word {
    fn encoded(self) -> [u8; PACKET] {
        let (what, value) = match self {
            Self::Executed => (1, 0),
            Self::NotExecuted(errno) => (2, errno.raw_os_error()),
            Self::NotCloned(errno) => (3, errno.raw_os_error()),
            Self::Killed(signal) => (4, signal.into()),
        };
        let [a, b, c, d] = i32::to_ne_bytes(value);
        [what, a, b, c, d]
    }

    /// What a packet says. It comes from code of ours that a dyno may have got hold of:
    /// it is refused rather than trusted.
    fn decoded(packet: &[u8]) -> Option<Self> {
        /// The largest error number that a system call returns (`err.h`, `MAX_ERRNO`).
        const ERRNO: std::ops::RangeInclusive<i32> = 1..=4095;
        let &[what, a, b, c, d] = packet else {
            return None;
        };
        match (what, i32::from_ne_bytes([a, b, c, d])) {
            (1, 0) => Some(Self::Executed),
            (2, value) if ERRNO.contains(&value) => {
                Some(Self::NotExecuted(Errno::from_raw_os_error(value)))
            }
            (3, value) if ERRNO.contains(&value) => {
                Some(Self::NotCloned(Errno::from_raw_os_error(value)))
            }
            (4, value @ 1..=64) => u8::try_from(value).ok().map(Self::Killed),
            _ => None,
        }
    }
}

impl Listener {
    /// The next word; none where there is none within `patience`, the init is gone
    /// without one, or it is not of ours.
    pub(crate) fn next(&self, patience: Duration) -> Option<Word> {
        let timeout = Timespec::try_from(patience).unwrap_or_default();
        let mut polled = [PollFd::new(&self.0, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut polled, Some(&timeout))).ok()?;
        // A packet that is longer is no word of ours: one byte more shows it.
        let mut packet = [0; PACKET + 1];
        let (length, _) = recv(&self.0, &mut packet, RecvFlags::DONTWAIT).ok()?;
        Word::decoded(packet.get(..length)?)
    }
}

impl Speaker {
    /// The number that the init is told.
    pub(crate) fn number(&self) -> String {
        self.0.as_raw_fd().to_string()
    }

    /// Says a word. Who does not hear it is gone, and so will be the init.
    fn say(&self, word: Word) {
        send(&self.0, &word.encoded(), SendFlags::NOSIGNAL).ok();
    }
}

impl AsFd for Speaker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The arguments of the init of a command.
pub(crate) fn arguments(speaker: &Speaker, command: &[String]) -> Vec<String> {
    let own = [NAME.to_owned(), speaker.number()];
    own.into_iter().chain(command.iter().cloned()).collect()
}

/// The name of the command of an init.
pub(crate) fn command(plan: &Plan) -> String {
    let name = plan.program.argv.strings().get(2);
    name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Is an init where this process was executed as one: its exit code, once its command
/// has ended.
pub(crate) fn run_if_called() -> Option<u8> {
    let mut arguments = std::env::args_os();
    if arguments.next().as_deref() != Some(OsStr::new(NAME)) {
        return None;
    }
    // It is seen in ps(1) and nowhere else.
    rustix::thread::set_name(c"dyno-init").ok();
    let number = arguments.next();
    let speaker = number.and_then(|number| sys::process::inherited(number.to_str()?.parse().ok()?));
    let Some(speaker) = speaker.map(Speaker) else {
        eprintln!("{NAME}: it is executed by dyno-runtime only");
        return Some(FAILED);
    };
    Some(run(&speaker, arguments.collect()).unwrap_or_else(|errno| {
        speaker.say(Word::NotCloned(errno));
        FAILED
    }))
}

fn run(speaker: &Speaker, command: Vec<OsString>) -> Result<u8, Errno> {
    fcntl_setfd(speaker, FdFlags::CLOEXEC)?;
    let program = program(command).ok_or(Errno::INVAL)?;
    // None is lost from here on: each waits until it is asked for.
    sys::signal::block_all()?;
    let terminal = sys::process::leave_terminal().is_ok();
    // What the kernel says to whoever leaves its terminal is not for the command.
    while sys::signal::pending()?.is_some() {}
    let command = sys::process::fork_until_exec(|| {
        let errno = become_command(&program, terminal);
        speaker.say(Word::NotExecuted(errno));
        sys::process::exit_now(FAILED.into())
    });
    let command = command.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
    // A word of the command that it could not be executed has come before this one.
    speaker.say(Word::Executed);
    drop(program);
    loop {
        match sys::signal::next()? {
            libc::SIGCHLD => {
                if let Some(status) = reap(command) {
                    return Ok(last_word(speaker, status));
                }
            }
            number => forward(command, number),
        }
    }
}

/// The command's strings are those of a JSON document.
fn program(command: Vec<OsString>) -> Option<Program> {
    let arguments: Option<Vec<String>> = command
        .into_iter()
        .map(|argument| argument.into_string().ok())
        .collect();
    let variables: Option<Vec<String>> = std::env::vars_os()
        .map(|(name, value)| {
            let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
            Some(format!("{name}={value}"))
        })
        .collect();
    Program::search(&arguments?, &variables?).ok()
}

/// Runs in a child: it leads a session, and has the terminal where there is one, as a
/// command without an init. Returns why it cannot be executed.
fn become_command(program: &Program, terminal: bool) -> Errno {
    let prepare = || {
        sys::process::reset_signals()?;
        rustix::process::setsid()?;
        if terminal {
            ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        Ok::<_, Errno>(())
    };
    match prepare() {
        Ok(()) => program.execute(),
        Err(errno) => errno,
    }
}

/// Sends a signal on. The command's process id is its own until it is reaped. One that it
/// may not be sent, having become somebody else, ends with the monitor's kill.
fn forward(command: Pid, number: i32) {
    let number = u8::try_from(number).ok();
    if let Some(signal) = number.and_then(sys::signal::signal) {
        kill_process(command, signal).ok();
    }
}

/// Reaps whoever has ended; how the command did, if it has.
fn reap(command: Pid) -> Option<WaitStatus> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == command {
            ended = Some(status);
        }
    }
    ended
}

/// Tells how the command ended; the code to end with.
fn last_word(speaker: &Speaker, status: WaitStatus) -> u8 {
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    match status.terminating_signal() {
        Some(signal) => {
            speaker.say(Word::Killed(byte(signal)));
            byte(signal).saturating_add(128)
        }
        None => status.exit_status().map_or(FAILED, byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_understood_and_whatever_else_is_not() {
        let words = [
            Word::Executed,
            Word::NotExecuted(Errno::NOENT),
            Word::NotCloned(Errno::AGAIN),
            Word::Killed(64),
        ];
        for word in words {
            assert_eq!(Word::decoded(&word.encoded()), Some(word));
        }
        for packet in [
            &[][..],
            &[1],
            &[0; 5],
            &[1, 0, 0, 0, 0, 0],
            &[1, 1, 0, 0, 0],
            &[2, 0, 0, 0, 0],
            &[2, 255, 255, 255, 255],
            &[4, 0, 0, 0, 0],
            &[4, 65, 0, 0, 0],
            &[5, 1, 0, 0, 0],
        ] {
            assert_eq!(Word::decoded(packet), None, "{packet:?}");
        }
    }

    #[test]
    fn who_listens_hears_each_word_and_then_the_end() {
        let (listener, speaker) = pair().unwrap();
        assert_eq!(listener.next(Duration::ZERO), None);
        speaker.say(Word::Executed);
        speaker.say(Word::Killed(15));
        assert_eq!(listener.next(Duration::ZERO), Some(Word::Executed));
        drop(speaker);
        assert_eq!(listener.next(Duration::ZERO), Some(Word::Killed(15)));
        assert_eq!(listener.next(Duration::from_secs(60)), None);
    }
}
