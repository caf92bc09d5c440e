//! A profile as one verdict per system call and ABI: names resolved, rules in order.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use super::Error;
use super::abi::{Abi, MULTIPLEXERS, Multiplexer};
use super::syscalls::{SYSCALLS, is_foreign, last, numbers, row};

/// What happens to a system call. Actions are `SECCOMP_RET_*` with their data.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Always(u32),
    /// The first case whose conditions all hold, or else the last.
    ByArguments(Vec<Case>, u32),
}

/// Conditions that must all hold, and what then happens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Case {
    pub(super) conditions: Vec<Condition>,
    pub(super) action: u32,
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) argument: u8,
    pub(super) test: Test,
    /// Whether the upper half is compared, too; of i386 it is always zero.
    pub(super) wide: bool,
}

/// An unsigned comparison.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Test {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    Masked { mask: u64, value: u64 },
}

/// The verdicts for all numbers of the ABIs that are open.
#[derive(Debug)]
pub(super) struct Policy {
    /// The native ABI is always among them.
    pub(super) tables: Vec<Table>,
}

/// The verdicts for all numbers of one ABI.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) abi: Abi,
    /// From 0 to the last number that it has.
    pub(super) verdicts: Vec<Verdict>,
    /// For every number above.
    pub(super) newer: Verdict,
}

/// What the rules say of one name.
#[derive(Clone, Default)]
struct Draft {
    /// Of the rules with conditions.
    cases: Vec<Case>,
    /// Of the first rule without.
    always: Option<u32>,
}

impl Policy {
    pub(super) fn new(profile: &LinuxSeccomp) -> Result<Self, Error> {
        let default = action(profile.default_action(), profile.default_errno_ret())?;
        let mut rules = Rules {
            default,
            drafts: vec![Draft::default(); SYSCALLS.len()],
        };
        for rule in profile.syscalls().iter().flatten() {
            rules.add(rule)?;
        }
        let listed = profile.architectures().iter().flatten();
        let listed: Vec<Abi> = listed.filter_map(|arch: &Arch| Abi::of(*arch)).collect();
        let open = |abi: &Abi| *abi == Abi::X86_64 || listed.contains(abi);
        let tables = Abi::ALL.into_iter().filter(open);
        Ok(Self {
            tables: tables.map(|abi| rules.table(abi)).collect(),
        })
    }

    /// The same with other actions.
    pub(super) fn map(self, change: impl Fn(u32) -> u32) -> Self {
        let tables = self.tables.into_iter().map(|table| Table {
            abi: table.abi,
            verdicts: table
                .verdicts
                .into_iter()
                .map(|verdict| verdict.map(&change))
                .collect(),
            newer: table.newer.map(&change),
        });
        Self {
            tables: tables.collect(),
        }
    }
}

impl Verdict {
    fn map(self, change: impl Fn(u32) -> u32) -> Self {
        match self {
            Self::Always(action) => Self::Always(change(action)),
            Self::ByArguments(mut cases, otherwise) => {
                for case in &mut cases {
                    case.action = change(case.action);
                }
                Self::of_cases(cases, change(otherwise))
            }
        }
    }

    /// Cases that make no difference are none: the kernel remembers a call that is
    /// allowed whatever its arguments.
    fn of_cases(mut cases: Vec<Case>, otherwise: u32) -> Self {
        while cases.last().is_some_and(|case| case.action == otherwise) {
            cases.pop();
        }
        if cases.is_empty() {
            Self::Always(otherwise)
        } else {
            Self::ByArguments(cases, otherwise)
        }
    }
}

/// The rules by the names in the table.
struct Rules {
    default: u32,
    drafts: Vec<Draft>,
}

impl Rules {
    fn add(&mut self, rule: &LinuxSyscall) -> Result<(), Error> {
        let act = action(rule.action(), rule.errno_ret())?;
        let alternatives = alternatives(rule)?;
        for name in rule.names() {
            let Some(row) = row(name) else {
                if is_foreign(name) || permits(act) || !permits(self.default) {
                    continue;
                }
                return Err(Error::UnknownCall { name: name.clone() });
            };
            let draft = &mut self.drafts[row];
            // A rule that only repeats the default takes nothing from the others.
            if alternatives.is_empty() && act != self.default {
                draft.always.get_or_insert(act);
            }
            let cases = alternatives.iter().cloned();
            draft.cases.extend(cases.map(|conditions| Case {
                conditions,
                action: act,
            }));
        }
        Ok(())
    }

    fn table(&self, abi: Abi) -> Table {
        let errno = libc::SECCOMP_RET_ERRNO;
        let newer = if self.default & libc::SECCOMP_RET_ACTION_FULL == errno {
            errno | libc::ENOSYS.cast_unsigned()
        } else {
            self.default
        };
        let newer = Verdict::Always(newer);
        let mut verdicts = vec![newer.clone(); last(abi) + 1];
        for (number, row) in numbers(abi) {
            verdicts[number] = self.verdict(row, abi);
        }
        Table {
            abi,
            verdicts,
            newer,
        }
    }

    fn verdict(&self, row: usize, abi: Abi) -> Verdict {
        let (draft, name) = (&self.drafts[row], SYSCALLS[row].0);
        if let Some(action) = draft.always {
            return Verdict::Always(action);
        }
        let mut cases = draft.cases.clone();
        if abi == Abi::I386 {
            if let Some(multiplexer) = MULTIPLEXERS.iter().find(|one| one.name == name) {
                cases.extend(self.multiplexed(multiplexer));
            }
            let hidden = abi.first_hidden(name);
            let mut conditions = cases.iter().flat_map(|case| &case.conditions);
            if conditions.any(|condition| condition.argument >= hidden) {
                return Verdict::Always(self.strictest(draft));
            }
            for condition in cases.iter_mut().flat_map(|case| &mut case.conditions) {
                *condition = condition.narrow();
            }
        }
        Verdict::of_cases(cases, self.default)
    }

    /// What happens to the calls that one call stands for. Their own arguments are
    /// out of sight, so where those would decide, the strictest answer is given.
    fn multiplexed(&self, multiplexer: &Multiplexer) -> impl Iterator<Item = Case> {
        let mask = u64::from(multiplexer.mask);
        multiplexer.calls.iter().filter_map(move |(call, name)| {
            let draft = &self.drafts[row(name)?];
            let action = draft.always.unwrap_or_else(|| self.strictest(draft));
            let test = Test::Masked {
                mask,
                value: u64::from(*call),
            };
            let condition = Condition {
                argument: 0,
                test,
                wide: true,
            };
            (action != self.default).then(|| Case {
                conditions: vec![condition],
                action,
            })
        })
    }

    /// Of everything that could happen, what the kernel would give precedence.
    fn strictest(&self, draft: &Draft) -> u32 {
        let actions = draft.cases.iter().map(|case| case.action);
        let rank = |action: &u32| (action & libc::SECCOMP_RET_ACTION_FULL).cast_signed();
        let all = std::iter::once(self.default).chain(actions);
        all.min_by_key(rank).unwrap_or(self.default)
    }
}

impl Condition {
    /// The same where arguments have 32 bits: a negative number is written in 64.
    fn narrow(self) -> Self {
        const NEGATIVE: u64 = 0xffff_ffff_8000_0000;
        const LOW: u64 = 0xffff_ffff;
        let word = |value: u64| {
            if value >= NEGATIVE {
                value & LOW
            } else {
                value
            }
        };
        let test = match self.test {
            Test::Equal(value) => Test::Equal(word(value)),
            Test::NotEqual(value) => Test::NotEqual(word(value)),
            Test::Less(value) => Test::Less(word(value)),
            Test::LessOrEqual(value) => Test::LessOrEqual(word(value)),
            Test::Greater(value) => Test::Greater(word(value)),
            Test::GreaterOrEqual(value) => Test::GreaterOrEqual(word(value)),
            Test::Masked { mask, value } => Test::Masked {
                mask,
                value: word(value),
            },
        };
        let wide = match test {
            Test::Equal(value)
            | Test::NotEqual(value)
            | Test::Less(value)
            | Test::LessOrEqual(value)
            | Test::Greater(value)
            | Test::GreaterOrEqual(value)
            | Test::Masked { value, .. } => value > LOW,
        };
        Self { test, wide, ..self }
    }
}

/// Whether the call is executed.
fn permits(action: u32) -> bool {
    matches!(
        action & libc::SECCOMP_RET_ACTION_FULL,
        libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG
    )
}

/// The kernel cuts an errno off here (`MAX_ERRNO`).
const ERRNO_MAX: u32 = 4095;

fn action(action: LinuxSeccompAction, value: Option<u32>) -> Result<u32, Error> {
    let data = |most: u32| match value {
        None => Ok(libc::EPERM.cast_unsigned()),
        Some(value) if value <= most => Ok(value),
        Some(value) => Err(Error::ReturnValue { action, value }),
    };
    let plain = match action {
        LinuxSeccompAction::ScmpActErrno => return Ok(libc::SECCOMP_RET_ERRNO | data(ERRNO_MAX)?),
        LinuxSeccompAction::ScmpActTrace => {
            return Ok(libc::SECCOMP_RET_TRACE | data(libc::SECCOMP_RET_DATA)?);
        }
        LinuxSeccompAction::ScmpActNotify => libc::SECCOMP_RET_USER_NOTIF,
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            libc::SECCOMP_RET_KILL_THREAD
        }
        LinuxSeccompAction::ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => libc::SECCOMP_RET_TRAP,
        LinuxSeccompAction::ScmpActLog => libc::SECCOMP_RET_LOG,
        LinuxSeccompAction::ScmpActAllow => libc::SECCOMP_RET_ALLOW,
    };
    match value {
        None => Ok(plain),
        Some(value) => Err(Error::ReturnValue { action, value }),
    }
}

/// The sets of conditions of which one must hold; none at all where the rule has no
/// arguments.
fn alternatives(rule: &LinuxSyscall) -> Result<Vec<Vec<Condition>>, Error> {
    let name = rule.names().first().map_or("", String::as_str);
    let Some(arguments) = rule
        .args()
        .as_ref()
        .filter(|arguments| !arguments.is_empty())
    else {
        return Ok(Vec::new());
    };
    let conditions: Vec<Condition> = arguments
        .iter()
        .map(|argument| condition(argument, name))
        .collect::<Result<_, _>>()?;
    let same = |a: &Condition| {
        conditions
            .iter()
            .filter(|b| a.argument == b.argument)
            .count()
            > 1
    };
    if conditions.iter().any(same) {
        return Ok(conditions
            .iter()
            .map(|condition| vec![*condition])
            .collect());
    }
    Ok(vec![conditions])
}

fn condition(argument: &LinuxSeccompArg, name: &str) -> Result<Condition, Error> {
    let index = argument.index();
    let Some(number) = u8::try_from(index).ok().filter(|index| *index <= 5) else {
        return Err(Error::Argument {
            name: name.to_owned(),
            index,
        });
    };
    let value = argument.value();
    let test = match argument.op() {
        LinuxSeccompOperator::ScmpCmpEq => Test::Equal(value),
        LinuxSeccompOperator::ScmpCmpNe => Test::NotEqual(value),
        LinuxSeccompOperator::ScmpCmpLt => Test::Less(value),
        LinuxSeccompOperator::ScmpCmpLe => Test::LessOrEqual(value),
        LinuxSeccompOperator::ScmpCmpGt => Test::Greater(value),
        LinuxSeccompOperator::ScmpCmpGe => Test::GreaterOrEqual(value),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            let (mask, value) = (value, argument.value_two().unwrap_or(0));
            if value & !mask != 0 {
                return Err(Error::NeverMatches {
                    name: name.to_owned(),
                    index,
                    mask,
                    value,
                });
            }
            Test::Masked { mask, value }
        }
    };
    Ok(Condition {
        argument: number,
        test,
        wide: true,
    })
}
