//! Verdicts as classic BPF.
//!
//! ```text
//!  architecture    x86_64 ▸ number has the x32 bit ▸ tree of x32, or ENOSYS
//!                                             else ▸ tree of x86_64
//!                  i386   ▸ tree of i386, or kill the process
//!                  else   ▸ kill the process
//!  tree            number ≥ pivot ? right : left, over runs of equal verdicts
//!  leaf            ret action, or the cases with their conditions
//! ```
//!
//! A call costs about eight instructions to find, and nothing at all where its
//! verdict is "allow" whatever the arguments: the kernel then remembers that in a
//! bitmap (since 5.11), which works only because leaves look at no memory.

use libc::sock_filter;

use super::Error;
use super::abi::{Abi, X32_BIT};
use super::policy::{Case, Condition, Policy, Table, Test, Verdict};

/// `AUDIT_ARCH_X86_64`: the machine's ELF number, 64 bits, little endian.
pub(super) const ARCH_X86_64: u32 = 0xc000_003e;
/// `AUDIT_ARCH_I386`: little endian.
pub(super) const ARCH_I386: u32 = 0x4000_0003;
/// The kernel's `BPF_MAXINSNS`.
const LONGEST: usize = 4096;
/// Room for the profiles that people use.
const USUAL: usize = 1024;

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
    let open = |abi, closed, out: &mut Reversed| {
        let table = policy.tables.iter().find(|table| table.abi == abi);
        match table {
            Some(table) => search(table, out),
            None => out.push(statement(RETURN, closed)),
        }
    };
    let mut out = Reversed(Vec::with_capacity(USUAL));
    out.either(
        (JUMP_EQ, ARCH_X86_64),
        |out| {
            let x32 = |out: &mut Reversed| open(Abi::X32, no_such_call, out);
            let native =
                |out: &mut Reversed| open(Abi::X86_64, libc::SECCOMP_RET_KILL_PROCESS, out);
            out.either((JUMP_GE, X32_BIT), x32, native);
            out.push(statement(LOAD, NUMBER));
        },
        |out| {
            let i386 = |out: &mut Reversed| {
                open(Abi::I386, libc::SECCOMP_RET_KILL_PROCESS, out);
                out.push(statement(LOAD, NUMBER));
            };
            let stranger =
                |out: &mut Reversed| out.push(statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS));
            out.either((JUMP_EQ, ARCH_I386), i386, stranger);
        },
    );
    out.push(statement(LOAD, ARCHITECTURE));
    let Reversed(mut program) = out;
    if program.len() > LONGEST {
        return Err(Error::TooLong {
            instructions: program.len(),
        });
    }
    program.reverse();
    Ok(program)
}

/// A program from its end to its beginning: jumps lead forward, so where they lead
/// is there before they are.
struct Reversed(Vec<sock_filter>);

impl Reversed {
    fn push(&mut self, instruction: sock_filter) {
        self.0.push(instruction);
    }

    /// One of two ways on.
    fn either(
        &mut self,
        (code, k): (u16, u32),
        holds: impl FnOnce(&mut Self),
        fails: impl FnOnce(&mut Self),
    ) {
        holds(self);
        let before = self.0.len();
        fails(self);
        let over = self.0.len() - before;
        match u8::try_from(over) {
            Ok(over) => self.push(branch(code, k, over, 0)),
            // Too far for a conditional jump.
            Err(_) => {
                let over = u32::try_from(over).unwrap_or(u32::MAX);
                self.push(statement(JUMP, over));
                self.push(branch(code, k, 0, 1));
            }
        }
    }
}

/// Finds the verdict for the number that is loaded.
fn search(table: &Table, out: &mut Reversed) {
    let newer = Verdict::Always(table.newer);
    let base = if table.abi == Abi::X32 { X32_BIT } else { 0 };
    // The first numbers of runs with the same verdict.
    let mut runs: Vec<(u32, &Verdict)> = Vec::new();
    let numbers = base..;
    for (number, verdict) in numbers.zip(table.verdicts.iter().chain([&newer])) {
        if runs.last().is_none_or(|(_, last)| *last != verdict) {
            runs.push((number, verdict));
        }
    }
    tree(&runs, out);
}

fn tree(runs: &[(u32, &Verdict)], out: &mut Reversed) {
    let [(_, verdict)] = runs else {
        let (left, right) = runs.split_at(runs.len() / 2);
        let pivot = right.first().map_or(0, |(number, _)| *number);
        out.either(
            (JUMP_GE, pivot),
            |out| tree(right, out),
            |out| tree(left, out),
        );
        return;
    };
    match verdict {
        Verdict::Always(action) => out.push(statement(RETURN, *action)),
        Verdict::ByArguments(cases, otherwise) => {
            out.push(statement(RETURN, *otherwise));
            for cases in cases.iter().rev() {
                out.0.extend(case(cases).into_iter().rev());
            }
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
#[derive(Clone, Copy)]
struct Step(u16, u32, To, To);

/// Compares an argument by halves: the machine has 32-bit words, arguments 64 bits.
fn condition(condition: &Condition) -> Vec<Step> {
    if !condition.wide {
        return narrow_condition(condition);
    }
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

/// The same where only the lower half can be anything but zero.
fn narrow_condition(condition: &Condition) -> Vec<Step> {
    let low = ARGUMENTS + 8 * u32::from(condition.argument);
    let load = Step(LOAD, low, To::Next, To::Next);
    let compare = |code, value, yes, no| vec![load, Step(code, halves(value).1, yes, no)];
    match condition.test {
        Test::Equal(value) => compare(JUMP_EQ, value, To::Holds, To::Fails),
        Test::NotEqual(value) => compare(JUMP_EQ, value, To::Fails, To::Holds),
        Test::Greater(value) => compare(JUMP_GT, value, To::Holds, To::Fails),
        Test::GreaterOrEqual(value) => compare(JUMP_GE, value, To::Holds, To::Fails),
        Test::Less(value) => compare(JUMP_GE, value, To::Fails, To::Holds),
        Test::LessOrEqual(value) => compare(JUMP_GT, value, To::Fails, To::Holds),
        Test::Masked { mask, value } => {
            let and = Step(AND, halves(mask).1, To::Next, To::Next);
            vec![
                load,
                and,
                Step(JUMP_EQ, halves(value).1, To::Holds, To::Fails),
            ]
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the halves of the number")]
const fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}
