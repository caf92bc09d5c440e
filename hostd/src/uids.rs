//! Ranges of user ids: one per dyno, no two alike on one machine (P3).
//!
//! ```text
//! 2^28            window 0            2^28 + 2^26        window 1
//!   |--65536--|--65536--| … 1024 ranges |--65536--| …                 … 2^31
//!    range 0   range 1
//! ```
//! A host owns one window. The claim is a file in a folder that every hostd
//! of the machine shares, made under a lock. It outlives hostd, because the
//! dynos do; a reboot or the removal of the claimant's state folder ends it.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::durable::{self, DurableError, Survives};
use crate::identity::Identity;

/// Ids in one dyno's range.
pub const RANGE: u32 = 65_536;

const FIRST: u32 = 1 << 28;
const END: u32 = 1 << 31;
const WINDOW: u32 = 1 << 26;
const WINDOWS: u32 = (END - FIRST) / WINDOW;

/// Where the claims of one machine are kept: not in `/run/lock`, where
/// everybody may make folders and plant links.
pub const CLAIMS: &str = "/run/dyno-uids";

/// Why no ids could be had.
#[derive(Debug, thiserror::Error)]
pub enum UidError {
    /// Every window belongs to another host of this machine.
    #[error("all {WINDOWS} windows of user ids are claimed by other hostds, see {CLAIMS}")]
    NoWindow,
    /// The folder of claims is a link, or others than root may write there.
    #[error("{path} is not a folder of root's alone: remove it, or find out who made it")]
    Planted {
        /// The folder.
        path: PathBuf,
    },
    /// This host's window is used up.
    #[error("all user id ranges of this host are in use by its dynos")]
    NoRange,
    /// The folder of claims could not be used.
    #[error("cannot claim user ids in {path}")]
    Claims {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A claim could not be read or written.
    #[error(transparent)]
    Record(#[from] DurableError),
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    host: String,
    state_dir: PathBuf,
    boot: String,
}

/// The ranges of one host, and which of them are in use.
#[derive(Debug)]
pub struct UidPool {
    own: [u32; 2],
    window: Range<u32>,
    foreign: Vec<Range<u32>>,
    used: BTreeSet<u32>,
    next: u32,
}

impl UidPool {
    /// Claims a window for this host, or finds the one that it has.
    ///
    /// # Errors
    /// [`UidError`] when none is free or the claims cannot be used.
    pub fn claim(
        claims: &Path,
        identity: &Identity,
        state_dir: &Path,
        boot: &str,
    ) -> Result<Self, UidError> {
        let failed = |source| UidError::Claims {
            path: claims.to_owned(),
            source,
        };
        make_own(claims)?;
        let lock = File::create(claims.join("lock")).map_err(failed)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        let mine = Claim {
            host: identity.id.clone(),
            state_dir: state_dir.to_owned(),
            boot: boot.to_owned(),
        };
        let mut free = None;
        for window in 0..WINDOWS {
            let path = claims.join(format!("window-{window}.json"));
            match durable::read_json::<Claim>(&path)? {
                Some(claim) if claim == mine => return Ok(Self::new(window, foreign_ranges())),
                Some(claim) if claim.is_live(boot) => {}
                _ => free = free.or(Some((window, path))),
            }
        }
        let (window, path) = free.ok_or(UidError::NoWindow)?;
        durable::write_json(&path, &mine, Survives::Crash)?;
        Ok(Self::new(window, foreign_ranges()))
    }

    /// Gives up the window of a host that leaves this machine.
    ///
    /// # Errors
    /// [`UidError::Claims`] when the claims cannot be used.
    pub fn leave(claims: &Path, identity: &Identity) -> Result<(), UidError> {
        for window in 0..WINDOWS {
            let path = claims.join(format!("window-{window}.json"));
            let claim = durable::read_json::<Claim>(&path)?;
            if claim.is_some_and(|claim| claim.host == identity.id) {
                durable::remove(&path, Survives::Crash)
                    .map_err(|source| UidError::Claims { path, source })?;
            }
        }
        Ok(())
    }

    fn new(window: u32, foreign: Vec<Range<u32>>) -> Self {
        let start = FIRST + window * WINDOW;
        let mut pool = Self::empty(start, foreign);
        // Ranges are taken in order: after a restart these are the same.
        for own in 0..pool.own.len() {
            pool.own[own] = pool.take().unwrap_or(start);
        }
        pool
    }

    fn empty(start: u32, foreign: Vec<Range<u32>>) -> Self {
        Self {
            window: start..start + WINDOW,
            foreign,
            used: BTreeSet::new(),
            next: start,
            own: [start; 2],
        }
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self::new(0, Vec::new())
    }

    /// First id of the range that `dyno-edge` runs in; its own, as always.
    pub fn edge(&self) -> u32 {
        self.own[0]
    }

    /// First id of the range that image layers are unpacked in.
    pub fn unpack(&self) -> u32 {
        self.own[1]
    }

    /// Takes a free range: its first id. Ranges are reused as late as possible.
    ///
    /// # Errors
    /// [`UidError::NoRange`].
    pub fn take(&mut self) -> Result<u32, UidError> {
        for _ in 0..WINDOW / RANGE {
            let base = self.next;
            self.next += RANGE;
            if self.next >= self.window.end {
                self.next = self.window.start;
            }
            if self.usable(base) && self.used.insert(base) {
                return Ok(base);
            }
        }
        Err(UidError::NoRange)
    }

    /// Marks the range of an adopted dyno as used; `false` when it is not
    /// this host's or already taken.
    pub fn adopt(&mut self, base: u32) -> bool {
        self.window.contains(&base) && base.is_multiple_of(RANGE) && self.used.insert(base)
    }

    /// Gives a range back.
    pub fn release(&mut self, base: u32) {
        self.used.remove(&base);
    }

    fn usable(&self, base: u32) -> bool {
        let range = base..base + RANGE;
        !self
            .foreign
            .iter()
            .any(|other| other.start < range.end && range.start < other.end)
    }
}

/// P1: what is opened in the folder by name is what a hostd put there.
fn make_own(claims: &Path) -> Result<(), UidError> {
    let failed = |source| UidError::Claims {
        path: claims.to_owned(),
        source,
    };
    match DirBuilder::new().mode(0o700).create(claims) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let found = fs::symlink_metadata(claims).map_err(failed)?;
    let own = found.is_dir()
        && found.uid() == rustix::process::geteuid().as_raw()
        && found.mode() & 0o022 == 0;
    if own {
        Ok(())
    } else {
        Err(UidError::Planted {
            path: claims.to_owned(),
        })
    }
}

impl Claim {
    /// Whether the claimant can still have dynos with these ids.
    fn is_live(&self, boot: &str) -> bool {
        let identity = durable::read_json::<Identity>(&self.state_dir.join("host.json"));
        self.boot == boot && matches!(identity, Ok(Some(identity)) if identity.id == self.host)
    }
}

/// What the administrator gave to others.
fn foreign_ranges() -> Vec<Range<u32>> {
    ["/etc/subuid", "/etc/subgid"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| parse_subids(&text))
        .collect()
}

/// The ranges of a subuid(5) file; lines that are no range are skipped.
fn parse_subids(text: &str) -> Vec<Range<u32>> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':').skip(1);
            let start: u32 = fields.next()?.parse().ok()?;
            let count: u32 = fields.next()?.trim().parse().ok()?;
            Some(start..start.saturating_add(count))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity(folder: &Path, id: &str) -> Identity {
        let identity = Identity {
            version: 1,
            id: id.to_owned(),
            subnets: None,
        };
        fs::create_dir_all(folder).unwrap();
        durable::write_json(&folder.join("host.json"), &identity, Survives::Crash).unwrap();
        identity
    }

    #[test]
    fn two_hosts_of_one_machine_have_different_windows() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b, claims) = (
            folder.path().join("a"),
            folder.path().join("b"),
            folder.path().join("claims"),
        );
        let (first, second) = (identity(&a, "00000001"), identity(&b, "00000002"));
        let pool_a = UidPool::claim(&claims, &first, &a, "boot").unwrap();
        let pool_b = UidPool::claim(&claims, &second, &b, "boot").unwrap();
        assert_ne!(pool_a.window, pool_b.window);
        let again = UidPool::claim(&claims, &second, &b, "boot").unwrap();
        assert_eq!(again.window, pool_b.window);
        UidPool::leave(&claims, &first).unwrap();
        let third = identity(&folder.path().join("c"), "00000003");
        let pool_c = UidPool::claim(&claims, &third, &folder.path().join("c"), "boot").unwrap();
        assert_eq!(pool_c.window, pool_a.window);
    }

    #[test]
    fn a_claim_ends_with_its_state_folder_or_its_boot() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b, claims) = (
            folder.path().join("a"),
            folder.path().join("b"),
            folder.path().join("claims"),
        );
        let first = identity(&a, "00000001");
        let window = UidPool::claim(&claims, &first, &a, "boot").unwrap().window;
        let second = identity(&b, "00000002");
        fs::remove_dir_all(&a).unwrap();
        assert_eq!(
            UidPool::claim(&claims, &second, &b, "boot").unwrap().window,
            window
        );
        let first = identity(&a, "00000001");
        assert_eq!(
            UidPool::claim(&claims, &first, &a, "next boot")
                .unwrap()
                .window,
            window
        );
    }

    #[test]
    fn ranges_given_to_others_are_never_taken() {
        let foreign = parse_subids("alice:268435456:65537\nnonsense\nbob:x:1\n");
        let mut pool = UidPool::new(0, foreign);
        assert_eq!(
            [pool.edge(), pool.unpack()],
            [FIRST + 2 * RANGE, FIRST + 3 * RANGE]
        );
        assert_eq!(pool.take().unwrap(), FIRST + 4 * RANGE);
    }

    proptest! {
        #[test]
        fn no_two_dynos_share_a_range(steps in prop::collection::vec(any::<bool>(), 1..2500)) {
            let mut pool = UidPool::new(3, Vec::new());
            let mut held = Vec::new();
            for take in steps {
                if take {
                    match pool.take() {
                        Ok(base) => {
                            prop_assert!(!held.contains(&base));
                            prop_assert!(pool.window.contains(&base));
                            held.push(base);
                        }
                        Err(_) => prop_assert_eq!(held.len(), 1022),
                    }
                } else if let Some(base) = held.pop() {
                    pool.release(base);
                }
            }
        }
    }
}
