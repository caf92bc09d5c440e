//! A [`Policy`] as a program for `BPF_PROG_TYPE_CGROUP_DEVICE`.
//!
//! ```text
//!  r2 = kind, r3 = access asked for, r4 = major, r5 = minor
//!  exception:  kind, major, minor differ?           → next
//!    allowed:  asks for more than r3 & access?      → next; else return 1
//!    denied:   asks for nothing of r3 & access?     → next; else return 0
//!  end:        return the default
//! ```

use super::{Access, Kind, Nodes, Policy};
use crate::sys::bpf::Insn;

/// `enum { BPF_DEVCG_DEV_BLOCK = 1, BPF_DEVCG_DEV_CHAR = 2 }`
pub(super) const DEV_BLOCK: i32 = 1;
pub(super) const DEV_CHAR: i32 = 2;

const CTX: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;
const RESULT: u8 = 0;

/// Compiles a policy.
#[must_use]
pub fn compile(policy: &Policy) -> Vec<Insn> {
    // struct bpf_cgroup_dev_ctx { u32 access_type; /* access << 16 | kind */ u32 major, minor; }
    let mut program = vec![
        Insn::load_u32(KIND, CTX, 0),
        Insn::mov(ACCESS, KIND),
        Insn::and_imm(KIND, 0xffff),
        Insn::shift_right_imm(ACCESS, 16),
        Insn::load_u32(MAJOR, CTX, 4),
        Insn::load_u32(MINOR, CTX, 8),
    ];
    for (nodes, access) in &policy.exceptions {
        exception(*nodes, *access, !policy.allow_by_default, &mut program);
    }
    let default = i32::from(policy.allow_by_default);
    program.extend([Insn::mov_imm(RESULT, default), Insn::exit()]);
    program
}

fn exception(nodes: Nodes, access: Access, allow: bool, program: &mut Vec<Insn>) {
    let bits = i32::from(access.0);
    let kind = match nodes.kind {
        Kind::Block => DEV_BLOCK,
        Kind::Char => DEV_CHAR,
    };
    let major = nodes.major.map(|major| (MAJOR, major.cast_signed()));
    let minor = nodes.minor.map(|minor| (MINOR, minor.cast_signed()));
    let tests = [Some((KIND, kind)), major, minor].into_iter().flatten();
    let mut act = Vec::new();
    // What is left of the request after all that is allowed, or within what is denied.
    let relevant = if allow { !bits } else { bits };
    if !(allow && access == Access::ALL) {
        act.extend([Insn::mov(SCRATCH, ACCESS), Insn::and_imm(SCRATCH, relevant)]);
        act.push(if allow {
            Insn::jump_ne_imm(SCRATCH, 0, 2)
        } else {
            Insn::jump_eq_imm(SCRATCH, 0, 2)
        });
    }
    act.extend([Insn::mov_imm(RESULT, i32::from(allow)), Insn::exit()]);
    let tests: Vec<(u8, i32)> = tests.collect();
    // At most three tests and five instructions: the offsets are single digits.
    let mut skip = i16::try_from(tests.len() + act.len()).unwrap_or(i16::MAX);
    for (register, value) in tests {
        skip -= 1;
        program.push(Insn::jump_ne_imm(register, value, skip));
    }
    program.extend(act);
}
