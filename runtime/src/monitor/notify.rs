//! What the dyno says about itself: datagrams of sd_notify(3), to a socket that
//! is mounted into it.
//!
//! They are hostile: each has a size, so many are read in a while, and what is
//! kept of them is short (P15). Descriptors that come along are not taken: the
//! kernel closes them. A dyno that floods us waits for itself.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::Mode;
use rustix::process::umask;

use super::protocol::{Notified, NotifyConfig, file};

/// Longer datagrams are not looked at.
const MOST: usize = 4096;
/// Datagrams that are read before the next pause.
const BURST: usize = 16;
/// Between two bursts.
const PAUSE: Duration = Duration::from_millis(50);
/// Characters of a status text that are kept.
const TEXT: usize = 256;

/// The socket, and what was said on it in this run.
#[derive(Debug)]
pub(super) struct Notify {
    socket: UnixDatagram,
    watchdog: Option<Duration>,
    start_timeout: Option<Duration>,
    closed_until: Option<Instant>,
    run: Option<Run>,
}

#[derive(Debug)]
struct Run {
    said: Notified,
    begin: Instant,
    /// The latest READY=1 or WATCHDOG=1.
    sign: Instant,
    triggered: bool,
}

/// What one datagram says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    ready: bool,
    alive: bool,
    trigger: bool,
    text: Option<String>,
}

impl Notify {
    /// Listens on `dir/notify.sock`. Everybody may write to it, and nobody but
    /// the dyno, which it is mounted into, can reach it.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub(super) fn bind(dir: &Path, config: NotifyConfig) -> io::Result<Self> {
        match fs::remove_file(dir.join(file::NOTIFY)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // By the folder's descriptor: a socket address holds 107 bytes of path.
        let folder = File::open(dir)?;
        let name = format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), file::NOTIFY);
        let mask = umask(Mode::from_raw_mode(0o111));
        let socket = UnixDatagram::bind(name);
        umask(mask);
        let socket = socket?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            watchdog: config.watchdog_ms.map(Duration::from_millis),
            start_timeout: config.start_timeout_ms.map(Duration::from_millis),
            closed_until: None,
            run: None,
        })
    }

    /// What was said in this run.
    pub(super) fn said(&self) -> Notified {
        let said = self.run.as_ref().map(|run| run.said.clone());
        said.unwrap_or_default()
    }

    /// A run begins: what an earlier one said is forgotten.
    pub(super) fn begin(&mut self, now: Instant) {
        let mut bytes = [0; 1];
        // As many as a queue ever holds; who floods it says nothing new.
        for _ in 0..1024 {
            if self.socket.recv(&mut bytes).is_err() {
                break;
            }
        }
        self.run = Some(Run {
            said: Notified::default(),
            begin: now,
            sign: now,
            triggered: false,
        });
    }

    /// The run that has begun goes on with one that was saved, which has long said that
    /// it is ready.
    pub(super) fn resume(&mut self) {
        if let Some(run) = &mut self.run {
            run.said.ready = true;
        }
    }

    /// The run has ended, or is being ended.
    pub(super) fn end(&mut self) {
        self.run = None;
    }

    /// Whether it is read now.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.run.is_some() && self.closed_until.is_none_or(|at| at <= now)
    }

    /// When there is something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = self.run.as_ref().and_then(|run| self.due(run));
        self.closed_until
            .filter(|_| self.run.is_some())
            .into_iter()
            .chain(due)
            .min()
    }

    /// By when something has to be said.
    fn due(&self, run: &Run) -> Option<Instant> {
        match run.said.ready {
            true => self.watchdog.and_then(|limit| run.sign.checked_add(limit)),
            false => self
                .start_timeout
                .and_then(|limit| run.begin.checked_add(limit)),
        }
    }

    /// Reads what there is, up to a burst of it; then nothing for a moment, however
    /// much or little there was: each word costs us, and hostd, more than its sender.
    pub(super) fn receive(&mut self, now: Instant) {
        self.closed_until = None;
        let mut buffer = [0; MOST + 1];
        for _ in 0..BURST {
            let Ok(length) = self.socket.recv(&mut buffer) else {
                return;
            };
            self.closed_until = Some(now + PAUSE);
            // A longer one is cut by the kernel and shows as one too long.
            if let Some(run) = self.run.as_mut().filter(|_| length <= MOST) {
                run.take(parse(buffer.get(..length).unwrap_or_default()), now);
            }
        }
    }

    /// The dyno is held still and cannot say anything: its time begins anew.
    pub(super) fn excuse(&mut self, now: Instant) {
        if let Some(run) = &mut self.run {
            match run.said.ready {
                true => run.sign = now,
                false => run.begin = now,
            }
        }
    }

    /// Why the dyno is to be ended, and how long it worked. What is in the
    /// socket is read before: who was late to look finds nobody silent.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<(String, Duration)> {
        self.closed_until = self.closed_until.filter(|at| *at > now);
        let run = self.run.as_ref()?;
        if !run.triggered && self.due(run).is_none_or(|due| due > now) {
            return None;
        }
        self.receive(now);
        let run = self.run.as_ref()?;
        let healthy = match run.said.ready {
            true => run.sign.saturating_duration_since(run.begin),
            false => Duration::ZERO,
        };
        if run.triggered {
            return Some(("it says itself that it does not work".to_owned(), healthy));
        }
        self.due(run).filter(|due| *due <= now)?;
        let reason = match (run.said.ready, self.watchdog, self.start_timeout) {
            (true, Some(limit), _) => format!("its watchdog heard nothing for {limit:?}"),
            (_, _, limit) => {
                let limit = limit.unwrap_or_default();
                format!("it has not said READY=1 within {limit:?}")
            }
        };
        Some((reason, healthy))
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Run {
    fn take(&mut self, message: Message, now: Instant) {
        self.said.ready |= message.ready;
        self.triggered |= message.trigger;
        if message.ready || message.alive {
            self.sign = now;
        }
        if let Some(text) = message.text {
            self.said.text = (!text.is_empty()).then_some(text);
        }
    }
}

/// Assignments, one per line; those that mean nothing here are passed over.
fn parse(datagram: &[u8]) -> Message {
    let mut message = Message::default();
    for line in datagram.split(|&byte| byte == b'\n') {
        match line {
            b"READY=1" => message.ready = true,
            b"WATCHDOG=1" => message.alive = true,
            b"WATCHDOG=trigger" => message.trigger = true,
            _ => {
                if let Some(text) = line.strip_prefix(b"STATUS=") {
                    message.text = Some(printable(text));
                }
            }
        }
    }
    message
}

/// Hostile text for people.
fn printable(text: &[u8]) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let text = String::from_utf8_lossy(text);
    text.trim().chars().take(TEXT).map(clean).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_assignments_are_read_and_others_passed_over() {
        let said = parse(b"MAINPID=1\nREADY=1\nSTATUS= up\x1b[2J \nFDSTORE=1\n");
        let expected = Message {
            ready: true,
            text: Some("up [2J".to_owned()),
            ..Message::default()
        };
        assert_eq!(said, expected);
        assert!(parse(b"WATCHDOG=1").alive);
        assert!(parse(b"WATCHDOG=trigger").trigger);
        for nothing in [&b""[..], b"READY=0", b"READY", b"ready=1", b"XREADY=1"] {
            assert_eq!(parse(nothing), Message::default());
        }
    }

    proptest! {
        // P15
        #[test]
        fn no_datagram_makes_it_panic_or_is_kept_whole(bytes in prop::collection::vec(any::<u8>(), 0..MOST)) {
            let text = parse(&[b"STATUS=", &bytes[..]].concat()).text.unwrap_or_default();
            prop_assert!(text.chars().count() <= TEXT);
        }
    }

    #[test]
    fn silence_is_found_and_a_sign_that_came_late_is_a_sign() {
        let folder = tempfile::tempdir().unwrap();
        let config = NotifyConfig {
            start_timeout_ms: Some(1000),
            watchdog_ms: Some(500),
        };
        let mut notify = Notify::bind(folder.path(), config).unwrap();
        let client = UnixDatagram::unbound().unwrap();
        client.connect(folder.path().join(file::NOTIFY)).unwrap();
        // Said before the run: another one's.
        client.send(b"READY=1").unwrap();
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        notify.begin(begin);
        notify.receive(begin);
        assert!(!notify.said().ready);
        assert_eq!(notify.overdue(at(999)), None);
        let (reason, healthy) = notify.overdue(at(1000)).unwrap();
        assert!(reason.contains("READY=1 within 1s"), "{reason}");
        assert_eq!(healthy, Duration::ZERO);

        client.send(b"READY=1\nSTATUS=well").unwrap();
        // It waits in the socket while nobody looks.
        assert_eq!(notify.overdue(at(1500)), None);
        assert_eq!(notify.said().text.as_deref(), Some("well"));
        client.send(&[b'x'; MOST + 1]).unwrap();
        client.send(b"WATCHDOG=1").unwrap();
        assert_eq!(notify.overdue(at(2500)), None);
        let (reason, healthy) = notify.overdue(at(3000)).unwrap();
        assert!(reason.contains("500ms"), "{reason}");
        assert_eq!(healthy, Duration::from_millis(2500));
        notify.excuse(at(3000));
        assert_eq!(notify.overdue(at(3499)), None);
        assert!(notify.overdue(at(3500)).is_some());
    }

    // P15
    #[test]
    fn a_flood_is_read_in_bursts() {
        let folder = tempfile::tempdir().unwrap();
        let mut notify = Notify::bind(folder.path(), NotifyConfig::default()).unwrap();
        let client = UnixDatagram::unbound().unwrap();
        client.connect(folder.path().join(file::NOTIFY)).unwrap();
        client.set_nonblocking(true).unwrap();
        let now = Instant::now();
        notify.begin(now);
        let sent = (0..100_000)
            .take_while(|_| client.send(b"STATUS=x").is_ok())
            .count();
        notify.receive(now);
        if sent >= BURST {
            assert!(!notify.is_open(now));
            assert!(notify.is_open(now + PAUSE));
        }
    }
}
