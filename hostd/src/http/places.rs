//! Places for connections: so many and no more (P15), and who makes room for whom.
//!
//! A connection *works* from the head of a request to the last byte of the answer's body,
//! and for as long as attach or exec has it; else it *rests*. Where all places are taken
//! the one that has rested longest is closed for whoever comes: connections that say
//! nothing keep nobody out. Where all of them work, whoever comes is told so. The last
//! places are for the host's owner, who makes room for nobody else: a connection rests
//! before its first request, too.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use dyno_api::error::{ApiError, ErrorKind};
use hyper::body::{Frame, SizeHint};
use rustix::process::{Resource, getrlimit};

use crate::sync::{Mutex, MutexGuard, Notify};

/// Places that only the host's owner gets.
const RESERVE: usize = 16;

/// Every place there is.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    count: usize,
    /// Those that are not the owner's.
    others: usize,
    /// Counts up, so that who has rested longest is first.
    turn: u64,
    resting: BTreeMap<u64, (Guest, Arc<Notify>)>,
    /// Those that were told to leave and have not yet.
    leaving: usize,
}

/// Who wants a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guest {
    /// Root, or hostd's own user.
    Owner,
    /// Anybody else who may come at all.
    Other,
}

/// Every place has a connection that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("each of {0} connections is at work")]
pub(super) struct Full(usize);

impl From<Full> for ApiError {
    fn from(full: Full) -> Self {
        Self::new(ErrorKind::Exhausted, full.to_string())
            .hint("end one of those that follow logs or events, attach or execute")
    }
}

/// The place of one connection; free once dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    guest: Guest,
    leave: Arc<Notify>,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Resting(u64),
    /// At so many requests.
    Working(u32),
    /// Told to, and nothing begins any more.
    Leaving,
}

/// A connection works for as long as there is one, and keeps its place.
#[derive(Debug)]
pub(super) struct Work(Arc<Place>);

impl Places {
    /// So many, or half of the descriptors that this process may have (getrlimit(2))
    /// where those are fewer: dynos need some, too.
    pub(super) fn new(most: usize) -> Arc<Self> {
        let descriptors = getrlimit(Resource::Nofile).current;
        let half = descriptors.map_or(most, |all| usize::try_from(all / 2).unwrap_or(most));
        Arc::new(Self {
            most: most.min(half).max(2 * RESERVE),
            taken: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// A place, for which somebody else who rests may have to leave.
    ///
    /// # Errors
    /// [`Full`].
    pub(super) async fn take(self: &Arc<Self>, guest: Guest) -> Result<Arc<Place>, Full> {
        loop {
            // Before the look, so that nothing that is freed after it is missed.
            let freed = self.freed.notified();
            if let Some(place) = self.try_take(guest)? {
                return Ok(place);
            }
            freed.await;
        }
    }

    /// `None` while somebody leaves.
    fn try_take(self: &Arc<Self>, guest: Guest) -> Result<Option<Arc<Place>>, Full> {
        let others = self.most - RESERVE;
        let most = match guest {
            Guest::Owner => self.most,
            Guest::Other => others,
        };
        let mut taken = self.taken();
        if taken.count < self.most && (guest == Guest::Owner || taken.others < others) {
            taken.count += 1;
            taken.others += usize::from(guest == Guest::Other);
            let leave = Arc::new(Notify::new());
            let turn = taken.rest(guest, leave.clone());
            return Ok(Some(Arc::new(Place {
                places: self.clone(),
                guest,
                leave,
                state: Mutex::new(State::Resting(turn)),
            })));
        }
        if taken.leaving == 0 {
            let Some(leave) = taken.rested_longest(guest) else {
                return Err(Full(most));
            };
            taken.leaving += 1;
            leave.notify_one();
        }
        Ok(None)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn rest(&mut self, guest: Guest, leave: Arc<Notify>) -> u64 {
        self.turn += 1;
        self.resting.insert(self.turn, (guest, leave));
        self.turn
    }

    /// Who makes room for this guest, and rests no more.
    fn rested_longest(&mut self, guest: Guest) -> Option<Arc<Notify>> {
        let makes_room = |resting: &Guest| guest == Guest::Owner || *resting == Guest::Other;
        let mut resting = self.resting.iter();
        let (turn, _) = resting.find(|(_, (resting, _))| makes_room(resting))?;
        let turn = *turn;
        self.resting.remove(&turn).map(|(_, leave)| leave)
    }
}

impl Place {
    /// Comes back when somebody else is to have it.
    pub(super) async fn leave(&self) {
        self.leave.notified().await;
    }

    /// A request begins; `None` where the connection is about to be closed.
    pub(super) fn work(self: &Arc<Self>) -> Option<Work> {
        let mut taken = self.places.taken();
        let mut state = self.state();
        *state = match *state {
            State::Resting(turn) => match taken.resting.remove(&turn) {
                Some(_) => State::Working(1),
                // Whoever told it to leave has taken it out.
                None => State::Leaving,
            },
            State::Working(requests) => State::Working(requests + 1),
            State::Leaving => State::Leaving,
        };
        matches!(*state, State::Working(_)).then(|| Work(self.clone()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let place = &self.0;
        let mut taken = place.places.taken();
        let mut state = place.state();
        *state = match *state {
            State::Working(requests) if requests > 1 => State::Working(requests - 1),
            _ => State::Resting(taken.rest(place.guest, place.leave.clone())),
        };
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.count -= 1;
        taken.others -= usize::from(self.guest == Guest::Other);
        let has_left = match *self.state() {
            State::Resting(turn) => taken.resting.remove(&turn).is_none(),
            State::Leaving => true,
            // What works keeps its place.
            State::Working(_) => false,
        };
        if has_left {
            taken.leaving = taken.leaving.saturating_sub(1);
        }
        drop(taken);
        self.places.freed.notify_waiters();
    }
}

/// The body of an answer, which is work until its last byte.
pub(super) struct Worked {
    body: Body,
    _work: Arc<Work>,
}

impl Worked {
    /// The same bytes.
    pub(super) fn of(body: Body, work: Arc<Work>) -> Body {
        Body::new(Self { body, _work: work })
    }
}

impl hyper::body::Body for Worked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
