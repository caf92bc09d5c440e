//! Verdicts as classic BPF.
//!
//! ```text
//!  architecture is not ours        → kill the process
//!  number has the x32 bit          → ENOSYS
//!  number ≥ pivot ? right : left   a balanced tree over runs of equal verdicts
//!  leaf: ret action, or the cases with their conditions
//! ```
//!
//! A call costs about eight instructions to find, and nothing at all where its
//! verdict is "allow" whatever the arguments: the kernel then remembers that in a
//! bitmap (since 5.11), which works only because leaves look at no memory.

use libc::sock_filter;

use super::Error;
use super::policy::{Case, Condition, Policy, Test, Verdict};
use super::syscalls::LAST;

/// `AUDIT_ARCH_X86_64`: the machine's ELF number, 64 bits, little endian.
pub(super) const ARCH: u32 = 0xc000_003e;
/// What the x32 ABI adds to a number.
pub(super) const X32_BIT: u32 = 0x4000_0000;
/// The kernel's `BPF_MAXINSNS`.
const LONGEST: usize = 4096;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Instructions, filter.rst of the kernel.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;
const JUMP_EQ: u16 = 0x15;
const JUMP_GT: u16 = 0x25;
const JUMP_GE: u16 = 0x35;

const fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

const fn branch(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// The whole program.
pub(super) fn assemble(policy: &Policy) -> Result<Vec<sock_filter>, Error> {
    let no_such_call = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    let mut program = vec![
        statement(LOAD, ARCHITECTURE),
        branch(JUMP_EQ, ARCH, 1, 0),
        statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        statement(LOAD, NUMBER),
        branch(JUMP_GE, X32_BIT, 0, 1),
        statement(RETURN, no_such_call),
    ];
    program.extend(tree(&runs(policy)));
    if program.len() > LONGEST {
        return Err(Error::TooLong {
            instructions: program.len(),
        });
    }
    Ok(program)
}

/// The first numbers of runs with the same verdict.
fn runs(policy: &Policy) -> Vec<(u32, Verdict)> {
    let mut runs: Vec<(u32, Verdict)> = Vec::new();
    let newer = Verdict::Always(policy.newer);
    for (number, verdict) in (0..)
        .zip(policy.verdicts.iter())
        .chain([(LAST + 1, &newer)])
    {
        if runs.last().is_none_or(|(_, last)| last != verdict) {
            runs.push((number, verdict.clone()));
        }
    }
    runs
}

fn tree(runs: &[(u32, Verdict)]) -> Vec<sock_filter> {
    let [(_, verdict)] = runs else {
        let (left, right) = runs.split_at(runs.len() / 2);
        let pivot = right.first().map_or(0, |(number, _)| *number);
        let (left, right) = (tree(left), tree(right));
        let mut out = Vec::with_capacity(left.len() + right.len() + 2);
        match u8::try_from(left.len()) {
            Ok(over) => out.push(branch(JUMP_GE, pivot, over, 0)),
            // Too far for a conditional jump.
            Err(_) => {
                let over = u32::try_from(left.len()).unwrap_or(u32::MAX);
                out.extend([branch(JUMP_GE, pivot, 0, 1), statement(JUMP, over)]);
            }
        }
        out.extend(left);
        out.extend(right);
        return out;
    };
    match verdict {
        Verdict::Always(action) => vec![statement(RETURN, *action)],
        Verdict::ByArguments(cases, otherwise) => {
            let mut out: Vec<sock_filter> = cases.iter().flat_map(case).collect();
            out.push(statement(RETURN, *otherwise));
            out
        }
    }
}

/// Where a conditional jump goes.
#[derive(Clone, Copy)]
enum To {
    Next,
    /// This condition holds: on to the one after it.
    Holds,
    /// It does not: on to the next case.
    Fails,
}

/// Six conditions of five instructions each at most: every offset fits in a byte.
fn case(case: &Case) -> Vec<sock_filter> {
    let blocks: Vec<Vec<Step>> = case.conditions.iter().map(condition).collect();
    let end = blocks.iter().map(Vec::len).sum::<usize>() + 1;
    let mut out: Vec<sock_filter> = Vec::with_capacity(end);
    for block in blocks {
        let holds = out.len() + block.len();
        for step in block {
            let next = out.len() + 1;
            let offset = |to| {
                let target = match to {
                    To::Next => next,
                    To::Holds => holds,
                    To::Fails => end,
                };
                u8::try_from(target - next).unwrap_or(u8::MAX)
            };
            let Step(code, k, yes, no) = step;
            out.push(branch(code, k, offset(yes), offset(no)));
        }
    }
    out.push(statement(RETURN, case.action));
    out
}

/// An instruction with its two ways out.
struct Step(u16, u32, To, To);

/// Compares an argument by halves: the machine has 32-bit words, arguments 64 bits.
fn condition(condition: &Condition) -> Vec<Step> {
    let low = ARGUMENTS + 8 * u32::from(condition.argument);
    let high = low + 4;
    let load = |offset| Step(LOAD, offset, To::Next, To::Next);
    let equal = |value: u64, yes: To, no: To| {
        let (upper, lower) = halves(value);
        vec![
            load(high),
            Step(JUMP_EQ, upper, To::Next, no),
            load(low),
            Step(JUMP_EQ, lower, yes, no),
        ]
    };
    // The upper half decides unless it is equal.
    let above = |code: u16, value: u64, yes: To, no: To| {
        let (upper, lower) = halves(value);
        vec![
            load(high),
            Step(JUMP_GT, upper, yes, To::Next),
            Step(JUMP_EQ, upper, To::Next, no),
            load(low),
            Step(code, lower, yes, no),
        ]
    };
    match condition.test {
        Test::Equal(value) => equal(value, To::Holds, To::Fails),
        Test::NotEqual(value) => equal(value, To::Fails, To::Holds),
        Test::Greater(value) => above(JUMP_GT, value, To::Holds, To::Fails),
        Test::GreaterOrEqual(value) => above(JUMP_GE, value, To::Holds, To::Fails),
        Test::Less(value) => above(JUMP_GE, value, To::Fails, To::Holds),
        Test::LessOrEqual(value) => above(JUMP_GT, value, To::Fails, To::Holds),
        Test::Masked { mask, value } => {
            let ((upper_mask, lower_mask), (upper, lower)) = (halves(mask), halves(value));
            let parts = [(high, upper_mask, upper), (low, lower_mask, lower)];
            let part = |(offset, mask, value)| {
                let and = Step(AND, mask, To::Next, To::Next);
                [load(offset), and, Step(JUMP_EQ, value, To::Next, To::Fails)]
            };
            // A half without mask bits is equal to zero, which it must be.
            parts
                .into_iter()
                .filter(|(_, mask, _)| *mask != 0)
                .flat_map(part)
                .collect()
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the halves of the number")]
const fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}
