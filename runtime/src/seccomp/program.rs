//! Verdicts as classic BPF.
//!
//! ```text
//!  architecture    x86_64 ▸ number has the x32 bit ▸ tree of x32, or ENOSYS
//!                                             else ▸ tree of x86_64
//!                  i386   ▸ tree of i386, or kill the process
//!                  else   ▸ kill the process
//!  tree            number ≥ pivot ? right : left, over runs of equal verdicts
//!  leaf            ret action, or the cases with their conditions; shared by
//!                  those within reach
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
    let kill = &Verdict::Always(libc::SECCOMP_RET_KILL_PROCESS);
    let no_such_call = &Verdict::Always(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned());
    let mut out = Reversed {
        program: Vec::with_capacity(USUAL),
        leaves: Vec::new(),
    };
    let i386 = out.table(policy, Abi::I386, kill);
    let i386 = out.then(statement(LOAD, NUMBER), i386);
    let stranger = out.leaf(kill);
    let others = out.either((JUMP_EQ, ARCH_I386), i386, stranger);
    let x32 = out.table(policy, Abi::X32, no_such_call);
    let native = out.table(policy, Abi::X86_64, kill);
    let ours = out.either((JUMP_GE, X32_BIT), x32, native);
    let ours = out.then(statement(LOAD, NUMBER), ours);
    let begin = out.either((JUMP_EQ, ARCH_X86_64), ours, others);
    out.then(statement(LOAD, ARCHITECTURE), begin);
    let mut program = out.program;
    if program.len() > LONGEST {
        return Err(Error::TooLong {
            instructions: program.len(),
        });
    }
    program.reverse();
    Ok(program)
}

/// A place in a reversed program.
type Place = usize;

/// A program from its end to its beginning: jumps lead forward, so where they lead
/// is there before they are.
struct Reversed<'a> {
    program: Vec<sock_filter>,
    /// Where each verdict was last given. The kernel checks, translates and compiles
    /// every instruction at every start: one that is there already is taken again.
    leaves: Vec<(&'a Verdict, Place)>,
}

impl<'a> Reversed<'a> {
    fn push(&mut self, instruction: sock_filter) -> Place {
        self.program.push(instruction);
        self.program.len() - 1
    }

    /// How many instructions the next one would have to jump over.
    fn over(&self, target: Place) -> usize {
        self.program.len() - 1 - target
    }

    /// An instruction that `next` comes after.
    fn then(&mut self, instruction: sock_filter, next: Place) -> Place {
        if self.over(next) > 0 {
            self.jump(next);
        }
        self.push(instruction)
    }

    fn jump(&mut self, target: Place) -> Place {
        let over = u32::try_from(self.over(target)).unwrap_or(u32::MAX);
        self.push(statement(JUMP, over))
    }

    /// One of two ways on.
    fn either(&mut self, (code, k): (u16, u32), mut holds: Place, mut fails: Place) -> Place {
        // A conditional jump reaches this far; the other may yet need one more.
        const REACH: usize = u8::MAX as usize - 1;
        for target in [&mut holds, &mut fails] {
            if self.over(*target) > REACH {
                *target = self.jump(*target);
            }
        }
        let over = |target| u8::try_from(self.over(target)).unwrap_or(u8::MAX);
        let instruction = branch(code, k, over(holds), over(fails));
        self.push(instruction)
    }

    /// The verdicts of an ABI, or `closed` for all of it.
    fn table(&mut self, policy: &'a Policy, abi: Abi, closed: &'a Verdict) -> Place {
        match policy.tables.iter().find(|table| table.abi == abi) {
            Some(table) => search(table, self),
            None => self.leaf(closed),
        }
    }

    /// Gives a verdict.
    fn leaf(&mut self, verdict: &'a Verdict) -> Place {
        // So far that there is room for what jumps to it from a little above.
        const NEAR: usize = 192;
        let known = self.leaves.iter().position(|(known, _)| *known == verdict);
        if let Some(index) = known {
            let (_, place) = self.leaves[index];
            if self.over(place) <= NEAR {
                return place;
            }
            self.leaves.swap_remove(index);
        }
        let place = match verdict {
            Verdict::Always(action) => self.push(statement(RETURN, *action)),
            Verdict::ByArguments(cases, otherwise) => {
                self.push(statement(RETURN, *otherwise));
                for cases in cases.iter().rev() {
                    self.program.extend(case(cases).into_iter().rev());
                }
                self.program.len() - 1
            }
        };
        self.leaves.push((verdict, place));
        place
    }
}

/// Finds the verdict for the number that is loaded.
fn search<'a>(table: &'a Table, out: &mut Reversed<'a>) -> Place {
    let base = if table.abi == Abi::X32 { X32_BIT } else { 0 };
    // The first numbers of runs with the same verdict.
    let mut runs: Vec<(u32, &Verdict)> = Vec::new();
    let numbers = base..;
    for (number, verdict) in numbers.zip(table.verdicts.iter().chain([&table.newer])) {
        if runs.last().is_none_or(|(_, last)| *last != verdict) {
            runs.push((number, verdict));
        }
    }
    tree(&runs, out)
}

fn tree<'a>(runs: &[(u32, &'a Verdict)], out: &mut Reversed<'a>) -> Place {
    let [(_, verdict)] = runs else {
        let (left, right) = runs.split_at(runs.len() / 2);
        let pivot = right.first().map_or(0, |(number, _)| *number);
        let holds = tree(right, out);
        let fails = tree(left, out);
        return out.either((JUMP_GE, pivot), holds, fails);
    };
    out.leaf(verdict)
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
