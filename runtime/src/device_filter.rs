//! `linux.resources.devices` as a program of the kernel's cgroup device hook.
//!
//! P16: everything is denied unless a rule allows it. For each kind of access the
//! *last* rule that mentions it decides, as in the v1 devices controller and in
//! every OCI runtime. The devices that the spec promises to each container come
//! last and are always allowed.
//!
//! The program walks the rules backwards and strikes out what is allowed until
//! nothing is left of the request (allow) or a rule forbids some of it (deny):
//!
//! ```text
//!  r2 = kind, r3 = access asked for, r4 = major, r5 = minor
//!  rule:  kind, major, minor differ?  → next rule
//!         allow: r3 &= ~access; r3 == 0 → return 1
//!         deny:  r3 & access != 0       → return 0
//!  end:   return 0
//! ```

use std::io;
use std::os::fd::BorrowedFd;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

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

    /// The set from its letters `r`, `w`, `m`.
    fn parse(letters: &str) -> Option<Self> {
        letters.chars().try_fold(Self(0), |set, letter| {
            let one = match letter {
                'm' => Self::MKNOD,
                'r' => Self::READ,
                'w' => Self::WRITE,
                _ => return None,
            };
            Some(Self(set.0 | one.0))
        })
    }

    fn letters(self) -> String {
        let all = [(Self::READ, 'r'), (Self::WRITE, 'w'), (Self::MKNOD, 'm')];
        all.into_iter()
            .filter(|(one, _)| self.0 & one.0 != 0)
            .map(|(_, letter)| letter)
            .collect()
    }
}

/// Which nodes a rule speaks of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Both.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Char,
}

/// One rule; `None` stands for every number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rule {
    /// Allow or deny.
    pub allow: bool,
    /// Of which kind.
    pub kind: Kind,
    /// With which major number.
    pub major: Option<u32>,
    /// With which minor number.
    pub minor: Option<u32>,
    /// Which accesses.
    pub access: Access,
}

/// What every container has, runtime-spec `config-linux.md` "Default Devices": null,
/// zero, full, random, urandom, tty, the pts slaves, ptmx.
const DEFAULTS: [(u32, Option<u32>); 8] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (136, None),
    (5, Some(2)),
];

/// The rules in force for a container: the spec's, then those of the default devices.
///
/// # Errors
/// [`Error::Rule`] for a kind, number or access that does not exist.
pub fn rules(devices: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>, Error> {
    let asked = devices
        .iter()
        .enumerate()
        .map(|(index, device)| parse(index, device));
    let defaults = DEFAULTS.into_iter().map(|(major, minor)| {
        Ok(Rule {
            allow: true,
            kind: Kind::Char,
            major: Some(major),
            minor,
            access: Access::ALL,
        })
    });
    asked.chain(defaults).collect()
}

fn parse(index: usize, device: &LinuxDeviceCgroup) -> Result<Rule, Error> {
    let unknown = |what, value: String| Error::Rule { index, what, value };
    let kind = match device.typ().unwrap_or_default() {
        LinuxDeviceType::A => Kind::All,
        LinuxDeviceType::B => Kind::Block,
        LinuxDeviceType::C | LinuxDeviceType::U => Kind::Char,
        // mknod(2) asks nobody about a fifo.
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
        kind,
        major,
        minor,
        access,
    })
}

/// `enum { BPF_DEVCG_DEV_BLOCK = 1, BPF_DEVCG_DEV_CHAR = 2 }`
const DEV_BLOCK: i32 = 1;
const DEV_CHAR: i32 = 2;

const CTX: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;
const RESULT: u8 = 0;

/// Compiles rules to a program for `BPF_PROG_TYPE_CGROUP_DEVICE`.
#[must_use]
pub fn compile(rules: &[Rule]) -> Vec<Insn> {
    // struct bpf_cgroup_dev_ctx { u32 access_type; /* access << 16 | kind */ u32 major, minor; }
    let mut program = vec![
        Insn::load_u32(KIND, CTX, 0),
        Insn::mov(ACCESS, KIND),
        Insn::and_imm(KIND, 0xffff),
        Insn::shift_right_imm(ACCESS, 16),
        Insn::load_u32(MAJOR, CTX, 4),
        Insn::load_u32(MINOR, CTX, 8),
    ];
    for rule in rules.iter().rev() {
        let decides_all = block(rule, &mut program);
        if decides_all {
            // The verifier refuses what can never be reached.
            return program;
        }
    }
    program.extend([Insn::mov_imm(RESULT, 0), Insn::exit()]);
    program
}

/// Appends one rule; true if it leaves nothing to decide for earlier ones.
fn block(rule: &Rule, program: &mut Vec<Insn>) -> bool {
    let access = i32::from(rule.access.0);
    let everything = rule.access == Access::ALL;
    let act: Vec<Insn> = match (rule.allow, everything) {
        (allow, true) => vec![Insn::mov_imm(RESULT, i32::from(allow)), Insn::exit()],
        (true, false) => vec![
            Insn::and_imm(ACCESS, !access),
            Insn::jump_ne_imm(ACCESS, 0, 2),
            Insn::mov_imm(RESULT, 1),
            Insn::exit(),
        ],
        (false, false) => vec![
            Insn::mov(SCRATCH, ACCESS),
            Insn::and_imm(SCRATCH, access),
            Insn::jump_eq_imm(SCRATCH, 0, 2),
            Insn::mov_imm(RESULT, 0),
            Insn::exit(),
        ],
    };
    let kind = match rule.kind {
        Kind::All => None,
        Kind::Block => Some((KIND, DEV_BLOCK)),
        Kind::Char => Some((KIND, DEV_CHAR)),
    };
    let major = rule.major.map(|major| (MAJOR, major.cast_signed()));
    let minor = rule.minor.map(|minor| (MINOR, minor.cast_signed()));
    let tests: Vec<(u8, i32)> = [kind, major, minor].into_iter().flatten().collect();
    // At most three tests and five instructions: the offsets are single digits.
    let mut skip = i16::try_from(tests.len() + act.len()).unwrap_or(i16::MAX);
    for (register, value) in &tests {
        skip -= 1;
        program.push(Insn::jump_ne_imm(*register, *value, skip));
    }
    program.extend(act);
    tests.is_empty() && everything
}

/// Puts a program in force for a cgroup of the v2 tree and everything below it,
/// besides programs that others have put there: each must allow.
///
/// # Errors
/// [`Error::Bpf`] when bpf(2) refuses.
pub fn attach(program: &[Insn], cgroup: BorrowedFd<'_>) -> Result<(), Error> {
    let failed = |action| move |source| Error::Bpf { action, source };
    let loaded = bpf::prog_load_cgroup_device(program).map_err(failed("load"))?;
    // From here on the cgroup holds the program, until it is removed.
    bpf::prog_attach_cgroup_device(&loaded, cgroup).map_err(failed("attach"))
}

/// The same rules for the v1 devices controller: file names and what to write there,
/// in order. The kernel lets later writes win by itself.
#[must_use]
pub fn v1_writes(rules: &[Rule]) -> Vec<(&'static str, String)> {
    let mut writes = vec![("devices.deny", "a".to_owned())];
    for rule in rules {
        let file = if rule.allow {
            "devices.allow"
        } else {
            "devices.deny"
        };
        let number = |number: Option<u32>| number.map_or("*".into(), |number| number.to_string());
        let (major, minor) = (number(rule.major), number(rule.minor));
        if rule.kind == Kind::All && major == "*" && minor == "*" && rule.access == Access::ALL {
            writes.push((file, "a".into()));
            continue;
        }
        // `a` with numbers would be read as `a` alone: say both kinds.
        let kinds = match rule.kind {
            Kind::All => ["b", "c"].as_slice(),
            Kind::Block => &["b"],
            Kind::Char => &["c"],
        };
        for kind in kinds {
            writes.push((
                file,
                format!("{kind} {major}:{minor} {}", rule.access.letters()),
            ));
        }
    }
    writes
}

#[cfg(test)]
mod tests;
