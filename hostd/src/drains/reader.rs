//! Reads the logs of dynos, as `logs --follow` does, into batches for one receiver.
//!
//! The logs on the disk are the queue: nothing else grows while a receiver is slow or away.
//! Of a dyno that is too far ahead of it entries are read, counted and left out, before
//! the monitor removes them uncounted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dyno_api::dyno::Dyno;
use dyno_api::name::DynoId;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use super::Drain;
use super::batch::{Batch, Text};
use super::format::{self, Entry, Who};
use crate::host::Host;
use crate::logs::{self, LogFiles, Position};
use crate::supervisor::is_over;

/// How long a new entry may go unnoticed.
const POLL: Duration = Duration::from_millis(500);
/// Bytes of entries, as they are sent, that are sent at once (P15). Only one that has more
/// by itself is more.
const BATCH: usize = 64 * 1024;
/// Bytes that one dyno may have of them: all get their turn.
const SHARE: usize = 16 * 1024;
/// Between two looks how far dynos are ahead.
const LOOK_AHEAD: Duration = Duration::from_secs(1);
/// Bytes of a dyno's log that may wait to be sent, where its log is that large.
const QUEUE: u64 = 16 << 20;
/// How long a removed dyno's last entries may wait.
pub(super) const LAST: Duration = Duration::from_secs(60);
/// P15: removed dynos whose files are kept open for that. What more of them wrote last is
/// left out, the first one's first.
const MOST_REMOVED: usize = 128;

/// A dyno's folder is about to be removed.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) who: Who,
    pub(super) queue: u64,
    pub(super) held: oneshot::Sender<()>,
}

/// One dyno's log.
#[derive(Debug)]
struct Follow {
    who: Arc<Who>,
    files: LogFiles,
    /// Bytes that may wait.
    queue: u64,
    /// It was read, and did not fit into a batch.
    next: Option<Next>,
    run: Run,
    /// Nothing will come until it is started again.
    is_read: bool,
    removed: Option<Instant>,
    /// hostd knows it still.
    is_known: bool,
}

/// An entry as it is sent; without bytes, a line that is none.
#[derive(Debug)]
struct Next {
    bytes: Vec<u8>,
    /// Bytes of the log.
    read: usize,
    /// Where they begin.
    before: Position,
}

/// What a dyno does, as it was last seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Run {
    rests: bool,
    started: Option<Timestamp>,
}

impl Run {
    fn of(dyno: &Dyno) -> Self {
        Self {
            rests: is_over(dyno.status.phase),
            started: dyno.status.started,
        }
    }
}

struct Reader {
    host: Arc<Host>,
    drain: Arc<Drain>,
    follows: BTreeMap<DynoId, Follow>,
    /// hostd knows the dynos that the drain is for; it may have failed to follow some.
    has_dynos: bool,
    /// Whose turn was last.
    last: Option<DynoId>,
    looked_ahead: Instant,
    /// When a dyno was last removed.
    removed: Option<Instant>,
}

/// Bytes of a dyno's log that may wait: half of what its log holds, at most.
pub(super) fn queue(dyno: &Dyno) -> u64 {
    let log = dyno.spec.log;
    let files = log.max_files.unwrap_or(logs::MAX_FILES);
    let kept = log.max_bytes.unwrap_or(logs::MAX_BYTES) * u64::from(files);
    QUEUE.min(kept / 2)
}

/// Reads until the drain has nothing more to send, which one for all dynos always has.
pub(super) async fn run(
    host: Arc<Host>,
    drain: Arc<Drain>,
    to: mpsc::Sender<Batch>,
    mut leaving: mpsc::Receiver<Leaving>,
) {
    let mut reader = Reader {
        host,
        drain,
        follows: BTreeMap::new(),
        has_dynos: true,
        last: None,
        looked_ahead: Instant::now(),
        removed: None,
    };
    let mut pending = None;
    loop {
        let wants = pending.is_none();
        let look = spawn_blocking(move || {
            // Whoever comes or goes is noticed while a receiver is away, too.
            reader.meet();
            let batch = match wants {
                true => reader.round(),
                false => None,
            };
            reader.look_ahead();
            (batch, reader)
        });
        let batch;
        (batch, reader) = match look.await {
            Ok(looked) => looked,
            Err(error) => {
                tracing::error!(%error, "a drain's logs are not read any more");
                return;
            }
        };
        pending = pending.or(batch);
        if reader.is_done() && (pending.is_none() || reader.is_too_late()) {
            if let Some(batch) = &pending {
                reader.drain.refused(batch);
            }
            return;
        }
        tokio::select! {
            room = to.reserve(), if pending.is_some() => match (room, pending.take()) {
                (Ok(room), Some(batch)) => room.send(batch),
                _ => return,
            },
            Some(leaves) = leaving.recv() => {
                let held = spawn_blocking(move || {
                    reader.hold(leaves.who, leaves.queue);
                    if leaves.held.send(()).is_err() {
                        tracing::debug!("the removal of a dyno did not wait");
                    }
                    reader
                });
                let Ok(back) = held.await else { return };
                reader = back;
            }
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

impl Reader {
    /// Some entries, where there are any.
    fn round(&mut self) -> Option<Batch> {
        let (mut texts, mut size, mut is_full) = (BTreeMap::<DynoId, Text>::new(), 0, false);
        let (done, next): (Vec<_>, Vec<_>) = self
            .follows
            .keys()
            .cloned()
            .partition(|id| Some(id) <= self.last.as_ref());
        let turns: Vec<DynoId> = next.into_iter().chain(done).collect();
        let drain = &self.drain;
        let write = |entry: &Entry| {
            let entry = std::slice::from_ref(entry);
            format::write(drain.target.protocol, &drain.host_name, entry)
        };
        let mut before = usize::MAX;
        while size != before && !is_full {
            before = size;
            for id in &turns {
                let has_room = size < BATCH && !is_full;
                let Some(follow) = self.follows.get_mut(id).filter(|_| has_room) else {
                    break;
                };
                let begun = texts.remove(id);
                let is_begun = begun.is_some();
                let mut text = begun.unwrap_or_default();
                let taken = follow.take(BATCH - size, &mut text, write);
                size += taken;
                // Who has one that did not fit comes first the next time.
                is_full = follow.next.is_some();
                if taken > 0 && !is_full {
                    self.last = Some(id.clone());
                }
                if taken > 0 || is_begun {
                    text.after = follow.position();
                    texts.insert(id.clone(), text);
                }
            }
        }
        for id in texts.keys() {
            self.follows
                .entry(id.clone())
                .and_modify(|follow| follow.files.let_go());
        }
        self.part();
        (!texts.is_empty()).then(|| Batch::of(texts))
    }

    /// Follows dynos that are new, and learns which of the others are gone.
    fn meet(&mut self) {
        let handles = self.host.registry().handles();
        let mut there = BTreeMap::new();
        for handle in handles {
            let seen = handle.look(|dyno| {
                let covered = self.drain.covers(&dyno.id);
                covered.then(|| {
                    let who = Who {
                        id: dyno.id.clone(),
                        name: dyno.name.clone(),
                    };
                    (who, queue(dyno), Run::of(dyno))
                })
            });
            let Some((who, queue, run)) = seen else {
                continue;
            };
            there.insert(who.id.clone(), run);
            if !self.follows.contains_key(&who.id) {
                self.follow(who, queue);
            }
        }
        // Before that, those of an earlier hostd are not all taken up.
        let all_are_known = self.host.ready.load(Ordering::Relaxed);
        self.has_dynos = !there.is_empty() || !all_are_known;
        for (id, follow) in &mut self.follows {
            let run = there.get(id);
            follow.is_known = run.is_some() || !all_are_known;
            if !follow.is_known && follow.removed.is_none() {
                (follow.removed, follow.is_read) = (Some(Instant::now()), false);
                self.removed = follow.removed;
            }
            if follow.removed.is_none() {
                follow.see(run.copied().unwrap_or_default());
            }
        }
        self.leave_out_first();
        if all_are_known {
            let follows = &self.follows;
            self.drain
                .keep(|id| there.contains_key(id) || follows.contains_key(id));
        }
    }

    fn follow(&mut self, who: Who, queue: u64) {
        let path = self.host.paths.dyno(&who.id).log();
        match LogFiles::open_at(&path, self.drain.position(&who.id)) {
            Ok(files) => {
                let follow = Follow {
                    files,
                    queue,
                    next: None,
                    run: Run::default(),
                    is_read: false,
                    removed: None,
                    is_known: true,
                    who: Arc::new(who),
                };
                self.follows.insert(follow.who.id.clone(), follow);
            }
            Err(error) => tracing::warn!(dyno = %who.id, %error, "its log cannot be sent yet"),
        }
    }

    /// Opens all of a log that is about to be removed.
    fn hold(&mut self, who: Who, queue: u64) {
        let id = who.id.clone();
        if !self.follows.contains_key(&id) {
            self.follow(who, queue);
        }
        let Some(follow) = self.follows.get_mut(&id) else {
            return;
        };
        if let Err(error) = follow.files.hold() {
            tracing::warn!(dyno = %id, %error, "the last entries of its log may not be sent");
        }
        follow.removed = Some(Instant::now());
        follow.is_read = false;
        self.removed = follow.removed;
        self.leave_out_first();
    }

    /// Parts with those that were removed first, where too many are kept open.
    fn leave_out_first(&mut self) {
        for id in too_many(&self.follows) {
            if let Some(follow) = self.follows.get_mut(&id) {
                self.drain.dropped(follow.finish());
            }
        }
    }

    /// Leaves dynos that are gone and read to their end, or gone for too long.
    fn part(&mut self) {
        let drain = &self.drain;
        self.follows.retain(|_, follow| {
            drain.missed(follow.files.take_missed());
            let Some(removed) = follow.removed else {
                return true;
            };
            if !follow.is_read && removed.elapsed() > LAST {
                drain.dropped(follow.finish());
            }
            // Until then it would be met again.
            follow.is_known || !follow.is_read
        });
    }

    /// Leaves out entries of dynos that are too far ahead.
    fn look_ahead(&mut self) {
        if self.looked_ahead.elapsed() < LOOK_AHEAD {
            return;
        }
        self.looked_ahead = Instant::now();
        for follow in self.follows.values_mut().filter(|follow| !follow.is_read) {
            if follow.removed.is_none()
                && let Err(error) = follow.files.hold()
            {
                tracing::debug!(dyno = %follow.who.id, %error, "its log is not looked at");
            }
            if follow
                .files
                .unread()
                .is_ok_and(|unread| unread > follow.queue)
            {
                let most = follow.queue / 2;
                self.drain.dropped(follow.leave_out(most));
            }
            self.drain.missed(follow.files.take_missed());
        }
        self.part();
    }

    /// Its one dyno is gone and all of it was read.
    fn is_done(&self) -> bool {
        self.drain.record.dyno.is_some() && !self.has_dynos && self.follows.is_empty()
    }

    /// Its last entries have waited for long enough.
    fn is_too_late(&self) -> bool {
        self.removed.is_none_or(|removed| removed.elapsed() > LAST)
    }
}

/// Removed dynos that are not read and must not be kept any longer.
fn too_many(follows: &BTreeMap<DynoId, Follow>) -> Vec<DynoId> {
    let unread = follows.iter().filter(|(_, follow)| !follow.is_read);
    let mut removed: Vec<_> = unread
        .filter_map(|(id, follow)| Some((follow.removed?, id.clone())))
        .collect();
    removed.sort_unstable();
    removed.truncate(removed.len().saturating_sub(MOST_REMOVED));
    removed.into_iter().map(|(_, id)| id).collect()
}

impl Follow {
    /// Takes entries that have room in a batch, a share of it at most; about how many bytes
    /// they were.
    fn take(&mut self, room: usize, text: &mut Text, write: impl Fn(&Entry) -> Vec<u8>) -> usize {
        let mut taken = 0;
        while taken < SHARE.min(room)
            && let Some(next) = self.next.take().or_else(|| self.read(&write))
        {
            let is_first = taken == 0 && room == BATCH;
            if taken + next.bytes.len() > room && !is_first {
                self.next = Some(next);
                break;
            }
            taken += next.bytes.len().max(next.read);
            text.lines += u64::from(!next.bytes.is_empty());
            text.bytes.extend(next.bytes);
        }
        taken.min(room)
    }

    fn read(&mut self, write: impl Fn(&Entry) -> Vec<u8>) -> Option<Next> {
        while !self.is_read {
            let before = self.files.position();
            let next = match self.removed {
                Some(_) => self.files.next_known(),
                None => self.files.next(),
            };
            match next {
                Ok(Some(bytes)) => {
                    let who = self.who.clone();
                    let entry = logs::parse(&bytes).map(|line| Entry { who, line });
                    return Some(Next {
                        bytes: entry.as_ref().map(write).unwrap_or_default(),
                        read: bytes.len() + 1,
                        before,
                    });
                }
                Ok(None) => {
                    // Asked before the read: what was written before its end is read by now.
                    self.is_read = self.run.rests || self.removed.is_some();
                    break;
                }
                Err(error) if self.files.pass_over(&error) => {}
                Err(error) => {
                    tracing::warn!(dyno = %self.who.id, %error, "its log cannot be read");
                    self.is_read = self.removed.is_some();
                    break;
                }
            }
        }
        None
    }

    /// Where the next entry begins that was not taken.
    fn position(&self) -> Position {
        let next = self.next.as_ref().map(|next| next.before);
        next.unwrap_or_else(|| self.files.position())
    }

    /// Takes note of what the dyno does now.
    fn see(&mut self, run: Run) {
        // One that was started again writes again, and may have ended again.
        self.is_read &= run.rests && run == self.run;
        self.run = run;
    }

    /// Passes over all entries; how many they were.
    fn finish(&mut self) -> u64 {
        self.is_read = true;
        self.leave_out(0)
    }

    /// Passes over entries until no more than so many bytes wait; how many they were.
    fn leave_out(&mut self, most: u64) -> u64 {
        let next = self.next.take();
        let mut left_out = next.map_or(0, |next| u64::from(!next.bytes.is_empty()));
        let mut unread = self.files.unread().unwrap_or(0);
        while unread > most {
            match self.files.next_known() {
                Ok(Some(bytes)) => {
                    unread = unread.saturating_sub(bytes.len() as u64 + 1);
                    left_out += u64::from(logs::parse(&bytes).is_some());
                }
                Err(error) if self.files.pass_over(&error) => {
                    unread = self.files.unread().unwrap_or(0);
                }
                Ok(None) | Err(_) => break,
            }
        }
        left_out
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::path::Path;

    use dyno_runtime::monitor::log::folder::{self, Part};

    use super::*;

    fn write(path: &Path, text: &str) {
        let path = folder::plain(path, Part::Numbered(1));
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        writeln!(file, "2026-11-22T15:00:00Z stdout F {text}").unwrap();
    }

    fn follow(path: &Path, number: u8) -> Follow {
        Follow {
            who: Arc::new(Who {
                id: DynoId::from_bytes([number; 6]),
                name: "web".parse().unwrap(),
            }),
            files: LogFiles::open_at(path, Position::default()).unwrap(),
            queue: 0,
            next: None,
            run: Run::default(),
            is_read: false,
            removed: None,
            is_known: true,
        }
    }

    fn said(entry: &Entry) -> Vec<u8> {
        entry.line.line.clone().into_bytes()
    }

    #[test]
    fn what_does_not_fit_is_the_next_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        write(&path, "a");
        write(&path, "b");
        let mut follow = follow(&path, 1);
        let mut text = Text::default();
        // As JSON does of control characters.
        let grown = |entry: &Entry| entry.line.line.repeat(BATCH + 9).into_bytes();
        let begin = follow.position();
        assert_eq!(follow.take(BATCH - 1, &mut text, grown), 0);
        assert_eq!((text.bytes.len(), follow.position()), (0, begin));
        // In an empty batch it is alone.
        assert_eq!(follow.take(BATCH, &mut text, grown), BATCH);
        assert_eq!((text.bytes.len(), text.lines), (BATCH + 9, 1));
        let second = follow.position();
        assert!(second.offset > begin.offset);
        assert_eq!(follow.take(9, &mut text, grown), 0);
        assert_eq!(follow.position(), second);
        assert_eq!(follow.finish(), 1, "what did not fit counts as dropped");
    }

    #[test]
    fn a_run_that_nobody_saw_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut follow = follow(&path, 1);
        let run = |second| Run {
            rests: true,
            started: Timestamp::from_second(second).ok(),
        };
        for second in 1..=3 {
            write(&path, "text");
            // Begun and ended between two looks.
            follow.see(run(second));
            let mut text = Text::default();
            follow.take(SHARE, &mut text, said);
            assert_eq!((text.lines, follow.is_read), (1, true));
            follow.see(run(second));
            assert!(follow.is_read, "it is asked no more");
        }
    }

    #[test]
    fn no_more_than_so_many_removed_dynos_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        write(&path, "text");
        let now = Instant::now();
        let mut follows = BTreeMap::new();
        for number in 0..=u8::MAX {
            let mut follow = follow(&path, number);
            // The greater numbers first; every other one is still there.
            let age = Duration::from_secs(number.into());
            follow.removed = (number % 2 == 0).then(|| now + LAST * 9 - age);
            follows.insert(follow.who.id.clone(), follow);
        }
        assert!(too_many(&follows).is_empty());
        for number in [1, 3] {
            let id = DynoId::from_bytes([number; 6]);
            let follow = follows.get_mut(&id).unwrap();
            follow.removed = Some(now + LAST * 10);
        }
        let first = [254, 252].map(|number| DynoId::from_bytes([number; 6]));
        assert_eq!(too_many(&follows), first);
        for id in &first {
            assert_eq!(follows.get_mut(id).unwrap().finish(), 1);
        }
        assert!(too_many(&follows).is_empty());
    }
}
