//! Chance, where many should not do the same at the same time. Nothing that
//! anybody could want to guess depends on it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// A random number; std seeds its hashers from getrandom(2).
pub fn number() -> u16 {
    let [low, high, ..] = RandomState::new().build_hasher().finish().to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// A random part of this time.
pub fn part_of(whole: Duration) -> Duration {
    whole / (1 << 16) * u32::from(number())
}
