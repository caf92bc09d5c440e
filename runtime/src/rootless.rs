//! Containers of an ordinary user.
//!
//! He may do next to nothing on the host, and everything in a user namespace that
//! he made. So he becomes root of one first, and goes on from there as the host's
//! root does: to him the namespace is the host.
//!
//! ```text
//!  host            uid 1000, 100000–165535 (his by /etc/subuid)
//!   └ ours         0 is his own id; the others are called as on the host
//!      └ container its mappings, as the configuration has them
//! ```
//!
//! It holds the ids that the configuration maps and no other. His own alone he maps
//! himself; for more he needs newuidmap(1) and newgidmap(1), which ask /etc/subuid
//! and /etc/subgid.
//!
//! That the container's namespace is another than ours keeps all barriers between
//! them: nobody in it has any right in ours. For that, and so that our memory
//! belongs to ours, the program is executed again on the way ([`crate::own_file`]).
//! `exec` and hooks enter it again, as the parent of the container's.
//!
//! Who is root of a user namespace already, as under rootless Podman, needs none of
//! this.

mod helper;

use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::OnceLock;

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceType};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Pid, getegid, geteuid, getuid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use self::helper::Helper;
use crate::spec::Bundle;
use crate::sys;

/// Why an ordinary user gets no container.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The configuration has no new user namespace.
    #[error(
        "linux.namespaces has no new user namespace, without which an ordinary user can have no \
         container; `dyno-runtime spec --rootless` writes a configuration that has one"
    )]
    NoUserNamespace,
    /// The kernel refused an operation.
    #[error("could not {what}")]
    System {
        /// The operation, in words.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A helper that is needed is not installed.
    #[error(
        "{property} maps {ids} of the host, which is more than your own id and needs {helper}: \
         it is neither of {}; install it (Debian: the package uidmap)", places.join(", ")
    )]
    NoHelper {
        /// The property of the configuration.
        property: &'static str,
        /// The ids beyond the user's own.
        ids: String,
        /// The helper's name.
        helper: &'static str,
        /// Where it was looked for.
        places: Vec<String>,
    },
    /// A helper does not map the ids.
    #[error(
        "{property} maps {ids} of the host, and {helper} refuses that to uid {uid} ({words}): \
         {file} must grant them, with a line like {uid}:FIRST:COUNT"
    )]
    Refused {
        /// The property of the configuration.
        property: &'static str,
        /// The ids beyond the user's own.
        ids: String,
        /// The helper's path.
        helper: PathBuf,
        /// Who asked.
        uid: u32,
        /// What it said.
        words: String,
        /// Who decides.
        file: &'static str,
    },
}

impl Error {
    fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            what,
            source: source.into(),
        }
    }
}

/// Who an ordinary user is on the host, while he is root of a namespace of his own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    uid: u32,
    gid: u32,
}

impl FromStr for Ids {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ids = text.split_once(':').and_then(|(uid, gid)| {
            let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
            Some(Self { uid, gid })
        });
        ids.ok_or("expected UID:GID")
    }
}

/// Set in a process that was executed again in its own namespace.
static IDS: OnceLock<Ids> = OnceLock::new();

impl Ids {
    /// The argument by which the next program learns them.
    pub(crate) fn argument(self) -> String {
        format!("--ordinary-user={}:{}", self.uid, self.gid)
    }

    /// Lets everybody in this process know; a second call changes nothing.
    pub(crate) fn remember(self) {
        IDS.get_or_init(|| self);
    }
}

/// The uid of whoever called us, as the host counts.
pub(crate) fn caller() -> u32 {
    IDS.get().map_or_else(|| getuid().as_raw(), |ids| ids.uid)
}

/// Whether we are in a user namespace other than the host's first.
pub(crate) fn in_user_namespace() -> bool {
    // Whoever enters another executes this program again.
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        !map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
    })
}

/// Whether we are anybody but root of the host.
pub(crate) fn is_ordinary() -> bool {
    !geteuid().is_root() || in_user_namespace()
}

/// Whether groups can't be set here or in any namespace below: where a gid was
/// mapped without privilege, since a group may also take rights away.
pub(crate) fn keeps_groups() -> bool {
    let denied = || fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text == "deny\n");
    in_user_namespace() && denied()
}

/// Whether the folder of states is looked for below `XDG_RUNTIME_DIR`: runc's rule.
pub(crate) fn has_own_run_folder() -> bool {
    let root = std::env::var_os("USER").is_some_and(|user| user == "root");
    !geteuid().is_root() || IDS.get().is_some() || (in_user_namespace() && !root)
}

/// Becomes root of a new user namespace that holds what this configuration maps.
/// The program must be executed again then, with [`Ids::argument`].
///
/// # Errors
/// [`Error`], with nothing changed but this process.
pub(crate) fn enter_new(bundle: &Bundle) -> Result<Ids, Error> {
    if bundle.namespace(LinuxNamespaceType::User) != Some(None) {
        return Err(Error::NoUserNamespace);
    }
    let ids = Ids {
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
    };
    let uids = beyond(bundle.uid_mappings(), ids.uid);
    let gids = beyond(bundle.gid_mappings(), ids.gid);
    // They must stay outside, so they exist before the namespace does.
    let map_uids = Helper::new(&helper::UIDS, (ids.uid, ids.uid), &uids)?;
    let map_gids = Helper::new(&helper::GIDS, (ids.uid, ids.gid), &gids)?;
    sys::process::unshare(UnshareFlags::NEWUSER).map_err(Error::system(
        "make a user namespace (sysctl user.max_user_namespaces, or a security module, may forbid it)",
    ))?;
    match map_uids {
        Some(helper) => helper.run()?,
        None => map_own("uid_map", ids.uid)?,
    }
    match map_gids {
        Some(helper) => helper.run()?,
        None => {
            write("setgroups", "deny")?;
            map_own("gid_map", ids.gid)?;
        }
    }
    Ok(ids)
}

/// Becomes root of the user namespace that a container's own was made in.
///
/// # Errors
/// [`Error::System`], where the container is not one of this user's.
pub(crate) fn enter_parent_of(init: Pid) -> Result<Ids, Error> {
    let ids = Ids {
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
    };
    let path = format!("/proc/{}/ns/user", init.as_raw_nonzero());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let enter = || {
        let container = openat(CWD, path, flags, Mode::empty())?;
        let ours = sys::namespace::parent(container.as_fd())?;
        move_into_link_name_space(ours.as_fd(), Some(LinkNameSpaceType::User))
    };
    enter().map_err(Error::system(
        "enter the user namespace that the container was made in",
    ))?;
    Ok(ids)
}

fn map_own(file: &'static str, id: u32) -> Result<(), Error> {
    write(file, &format!("0 {id} 1\n"))
}

fn write(file: &'static str, text: &str) -> Result<(), Error> {
    let written = fs::OpenOptions::new()
        .write(true)
        .open(format!("/proc/self/{file}"))
        .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()));
    written.map_err(Error::system("map your own id in a user namespace"))
}

/// The host's ids of these mappings but this one, sorted, neighbours joined.
fn beyond(mappings: &[LinuxIdMapping], own: u32) -> Vec<Range<u32>> {
    let ranges = mappings.iter().flat_map(|mapping| {
        let end = mapping.host_id().saturating_add(mapping.size());
        without(mapping.host_id()..end, own)
    });
    let mut ranges: Vec<Range<u32>> = ranges.collect();
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u32>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// A range in the parts before and after this id.
fn without(range: Range<u32>, own: u32) -> impl Iterator<Item = Range<u32>> {
    let parts = match range.contains(&own) {
        true => [range.start..own, own + 1..range.end],
        false => [range, 0..0],
    };
    parts.into_iter().filter(|part| !part.is_empty())
}

/// The bundle with its mappings as our own namespace counts: its root is the user.
pub(crate) fn as_counted_here(bundle: Bundle) -> Bundle {
    let Some(ids) = IDS.get() else {
        return bundle;
    };
    let uids = counted_here(bundle.uid_mappings(), ids.uid);
    let gids = counted_here(bundle.gid_mappings(), ids.gid);
    bundle.with_mappings(uids, gids)
}

fn counted_here(mappings: &[LinuxIdMapping], own: u32) -> Vec<LinuxIdMapping> {
    let mut counted = Vec::new();
    for mapping in mappings {
        let inside = mapping.container_id();
        let hosts = mapping.host_id()..mapping.host_id().saturating_add(mapping.size());
        if hosts.contains(&own) {
            counted.extend(part(inside + (own - hosts.start), 0, 1));
        }
        for range in without(hosts.clone(), own) {
            let offset = range.start - hosts.start;
            counted.extend(part(inside + offset, range.start, range.end - range.start));
        }
    }
    counted
}

fn part(inside: u32, outside: u32, size: u32) -> Option<LinuxIdMapping> {
    let mapping = LinuxIdMappingBuilder::default()
        .container_id(inside)
        .host_id(outside)
        .size(size);
    mapping.build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mappings(list: &[(u32, u32, u32)]) -> Vec<LinuxIdMapping> {
        let parts = list.iter().flat_map(|&(a, b, c)| part(a, b, c));
        parts.collect()
    }

    #[test]
    fn ones_own_id_needs_no_other() {
        assert!(beyond(&mappings(&[(0, 1000, 1)]), 1000).is_empty());
        assert_eq!(
            beyond(&mappings(&[(0, 1000, 1), (1, 100_000, 65536)]), 1000),
            vec![Range {
                start: 100_000,
                end: 165_536
            }]
        );
    }

    #[test]
    fn ranges_are_joined_and_ones_own_id_is_taken_out() {
        let list = mappings(&[(0, 500, 100), (100, 400, 100), (200, 1000, 10)]);
        assert_eq!(beyond(&list, 1005), [400..600, 1000..1005, 1006..1010]);
    }

    #[test]
    fn the_user_is_root_of_his_namespace_and_others_keep_their_numbers() {
        let list = mappings(&[(0, 100_000, 7), (7, 1000, 1), (8, 100_007, 9)]);
        let expected = mappings(&[(0, 100_000, 7), (7, 0, 1), (8, 100_007, 9)]);
        assert_eq!(counted_here(&list, 1000), expected);
        let amid = counted_here(&mappings(&[(0, 998, 5)]), 1000);
        assert_eq!(amid, mappings(&[(2, 0, 1), (0, 998, 2), (3, 1001, 2)]));
    }

    #[test]
    fn ids_survive_the_command_line() {
        let ids = Ids { uid: 7, gid: 8 };
        let argument = ids.argument();
        assert_eq!(
            argument.split_once('=').map(|(_, ids)| ids.parse()),
            Some(Ok(ids))
        );
        for bad in ["", "1", "1:", ":1", "1:2:3", "-1:2"] {
            assert!(bad.parse::<Ids>().is_err(), "{bad:?}");
        }
    }
}
