//! How many refusals of one token are written down: who floods hostd with what they may not
//! do shall neither fill the disk nor push out what others did.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dyno_api::token::TokenId;

/// Refusals of one token that are written in this time.
const MOST: u32 = 60;
const TIME: Duration = Duration::from_secs(60);

/// What was written lately; no larger than there are tokens.
#[derive(Debug)]
pub(super) struct Refusals(Mutex<Lately>);

#[derive(Debug)]
struct Lately {
    begin: Instant,
    counts: HashMap<TokenId, u32>,
}

impl Refusals {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Lately {
            begin: Instant::now(),
            counts: HashMap::new(),
        }))
    }

    /// Whether one more of this token is written.
    pub(super) fn is_within(&self, token: &TokenId, now: Instant) -> bool {
        let mut lately = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(lately.begin) >= TIME {
            lately.begin = now;
            lately.counts.clear();
        }
        let count = lately.counts.entry(token.clone()).or_default();
        *count = count.saturating_add(1);
        *count <= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_token_is_not_anothers() {
        let refusals = Refusals::new();
        let now = Instant::now();
        let [one, other] = [1, 2].map(|number| TokenId::from_bytes([number; 6]));
        let written = |token, at| (0..1000).filter(|_| refusals.is_within(token, at)).count();
        assert_eq!(written(&one, now), 60);
        assert_eq!(written(&other, now), 60);
        assert_eq!(written(&one, now + TIME), 60);
    }
}
