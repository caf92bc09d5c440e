//! `linux.resources.devices` in force: as a program of the kernel's cgroup device hook,
//! or as the lists of the v1 devices controller.
//!
//! ```text
//!  rules    the configuration's, then the default devices
//!  policy   what they amount to: a default and the exceptions from it
//!  program  the policy as eBPF            v1 writes are a walk from policy to policy
//! ```
//!
//! P16: everything is denied unless a rule allows it. The rules have the meaning that
//! the v1 devices controller gives them, on v2 too, which is what every OCI runtime
//! does: see [`Policy`].

mod policy;
mod program;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

pub use self::policy::Policy;
pub use self::program::compile;
use crate::sys::bpf;
pub use crate::sys::bpf::Insn;

/// Device rules that cannot be understood or applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A rule is not one of the spec's.
    #[error("rule {index}: {what} {value:?} is unknown")]
    Rule {
        /// Its place in `linux.resources.devices`.
        index: usize,
        /// Which part.
        what: &'static str,
        /// The part's value.
        value: String,
    },
    /// A rule takes some devices out of a wildcard, which the kernel would ignore.
    #[error(
        "rule {rule:?} makes a hole in {wildcard:?}, which no cgroup can have: \
         name the devices one by one, or change the whole wildcard"
    )]
    Hole {
        /// The rule.
        rule: String,
        /// The earlier one that it would make a hole in.
        wildcard: String,
    },
    /// `devices.list` has a line that is none.
    #[error("devices.list has the line {line:?}")]
    List {
        /// The line.
        line: String,
    },
    /// The kernel did not take the rules as they were written.
    #[error("devices.list does not show the rules that were written")]
    NotInForce,
    /// bpf(2) refused.
    #[error("cannot {action} the device program")]
    Bpf {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// A set of the accesses that a rule speaks of, in the encoding of
/// `struct bpf_cgroup_dev_ctx`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Access(u8);

impl Access {
    /// Making a node.
    pub const MKNOD: Self = Self(1);
    /// Opening for reading.
    pub const READ: Self = Self(2);
    /// Opening for writing.
    pub const WRITE: Self = Self(4);
    /// All three.
    pub const ALL: Self = Self(7);
    const NONE: Self = Self(0);

    /// The set from its letters `r`, `w`, `m`.
    fn parse(letters: &str) -> Option<Self> {
        letters.chars().try_fold(Self::NONE, |set, letter| {
            let one = match letter {
                'm' => Self::MKNOD,
                'r' => Self::READ,
                'w' => Self::WRITE,
                _ => return None,
            };
            Some(set.with(one))
        })
    }

    /// The set as its letters, in the order of the kernel.
    #[must_use]
    pub fn letters(self) -> String {
        let all = [(Self::READ, 'r'), (Self::WRITE, 'w'), (Self::MKNOD, 'm')];
        all.into_iter()
            .filter(|(one, _)| self.0 & one.0 != 0)
            .map(|(_, letter)| letter)
            .collect()
    }

    const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    const fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Block or character devices.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    Block,
    Char,
}

/// Some device nodes; `None` stands for every number.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Nodes {
    /// With which major number.
    pub major: Option<u32>,
    /// With which minor number.
    pub minor: Option<u32>,
    /// Of which kind.
    pub kind: Kind,
}

/// One rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rule {
    /// Allow or deny.
    pub allow: bool,
    /// Of which nodes; none for type `a`, which is all of them, whatever numbers and
    /// access it has beside.
    pub nodes: Option<Nodes>,
    /// Which accesses.
    pub access: Access,
}

impl Rule {
    /// The rule as the v1 controller writes it: `c 1:3 rwm`.
    #[must_use]
    pub fn line(&self) -> String {
        let Some(nodes) = self.nodes else {
            return "a".to_owned();
        };
        let number = |number: Option<u32>| number.map_or("*".into(), |number| number.to_string());
        let kind = match nodes.kind {
            Kind::Block => 'b',
            Kind::Char => 'c',
        };
        let (major, minor) = (number(nodes.major), number(nodes.minor));
        format!("{kind} {major}:{minor} {}", self.access.letters())
    }

    /// The file of the v1 controller that takes this rule.
    #[must_use]
    pub fn v1_file(&self) -> &'static str {
        if self.allow {
            "devices.allow"
        } else {
            "devices.deny"
        }
    }
}

/// What every container has. Opening: runtime-spec `config-linux.md` "Default Devices",
/// with null, zero, full, random, urandom, tty, ptmx and the terminals. Making: any
/// node, as in runc and crun, or images with nodes in them could not be unpacked;
/// it takes `CAP_MKNOD` of the host, and what is made still cannot be opened.
const DEFAULTS: [(Kind, Option<u32>, Option<u32>, Access); 10] = [
    (Kind::Char, None, None, Access::MKNOD),
    (Kind::Block, None, None, Access::MKNOD),
    (Kind::Char, Some(1), Some(3), Access::ALL),
    (Kind::Char, Some(1), Some(5), Access::ALL),
    (Kind::Char, Some(1), Some(7), Access::ALL),
    (Kind::Char, Some(1), Some(8), Access::ALL),
    (Kind::Char, Some(1), Some(9), Access::ALL),
    (Kind::Char, Some(5), Some(0), Access::ALL),
    (Kind::Char, Some(5), Some(2), Access::ALL),
    (Kind::Char, Some(136), None, Access::ALL),
];

/// What a container may do with devices: by the configuration's rules, then by those
/// of the default devices.
///
/// # Errors
/// [`Error::Rule`] for a kind, number or access that does not exist, [`Error::Hole`].
pub fn policy(devices: &[LinuxDeviceCgroup]) -> Result<Policy, Error> {
    let mut policy = Policy::default();
    for (index, device) in devices.iter().enumerate() {
        policy.apply(&parse(index, device)?)?;
    }
    for (kind, major, minor, access) in DEFAULTS {
        policy.apply(&Rule {
            allow: true,
            nodes: Some(Nodes { major, minor, kind }),
            access,
        })?;
    }
    Ok(policy)
}

fn parse(index: usize, device: &LinuxDeviceCgroup) -> Result<Rule, Error> {
    let unknown = |what, value: String| Error::Rule { index, what, value };
    let kind = match device.typ().unwrap_or_default() {
        LinuxDeviceType::A => None,
        LinuxDeviceType::B => Some(Kind::Block),
        LinuxDeviceType::C => Some(Kind::Char),
        // A node may be of these types, a rule may not: config-linux.md.
        LinuxDeviceType::U => return Err(unknown("type", "u".into())),
        LinuxDeviceType::P => return Err(unknown("type", "p".into())),
    };
    let number = |what, value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(number) => match u32::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(unknown(what, number.to_string())),
        },
    };
    let letters = device
        .access()
        .as_deref()
        .filter(|access| !access.is_empty())
        .unwrap_or("rwm");
    let Some(access) = Access::parse(letters) else {
        return Err(unknown("access", letters.to_owned()));
    };
    let (major, minor) = (
        number("major", device.major())?,
        number("minor", device.minor())?,
    );
    Ok(Rule {
        allow: device.allow(),
        nodes: kind.map(|kind| Nodes { major, minor, kind }),
        access,
    })
}

/// Puts a program in force for a cgroup of the v2 tree and everything below it,
/// besides programs that others have put there: each must allow. One that this
/// function has put there before is replaced in one step, so that at every moment
/// one of the two decides (`BPF_F_REPLACE`, Linux 5.6). Returns that one.
///
/// # Errors
/// [`Error::Bpf`] when bpf(2) refuses.
pub fn attach(program: &[Insn], cgroup: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Error> {
    let failed = |action| move |source| Error::Bpf { action, source };
    let old = bpf::own_cgroup_device_prog(cgroup).map_err(failed("find"))?;
    let loaded = bpf::prog_load_cgroup_device(program).map_err(failed("load"))?;
    // From here on the cgroup holds the program, until it is removed.
    bpf::prog_attach_cgroup_device(&loaded, old.as_ref(), cgroup).map_err(failed("attach"))?;
    Ok(old)
}

/// Puts back what [`attach`] has replaced.
///
/// # Errors
/// As [`attach`].
pub fn reattach(program: &OwnedFd, cgroup: BorrowedFd<'_>) -> Result<(), Error> {
    let failed = |action| move |source| Error::Bpf { action, source };
    let current = bpf::own_cgroup_device_prog(cgroup).map_err(failed("find"))?;
    bpf::prog_attach_cgroup_device(program, current.as_ref(), cgroup).map_err(failed("attach"))
}

#[cfg(test)]
mod tests;
