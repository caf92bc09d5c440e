//! A profile as one verdict per system call: names resolved, rules in order.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use super::Error;
use super::syscalls::{LAST, SYSCALLS, is_foreign, number};

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
}

/// An unsigned comparison of all 64 bits.
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

/// The verdicts for all numbers.
#[derive(Debug)]
pub(super) struct Policy {
    /// From 0 to the last number of the table.
    pub(super) verdicts: Vec<Verdict>,
    /// For every number above.
    pub(super) newer: u32,
}

/// The rules met so far for one number.
#[derive(Clone, Default)]
struct Draft {
    cases: Vec<Case>,
    last: Option<u32>,
}

impl Policy {
    pub(super) fn new(profile: &LinuxSeccomp) -> Result<Self, Error> {
        let default = action(profile.default_action(), profile.default_errno_ret())?;
        let mut drafts = vec![Draft::default(); LAST as usize + 1];
        for rule in profile.syscalls().iter().flatten() {
            let act = action(rule.action(), rule.errno_ret())?;
            for name in rule.names() {
                let alternatives = alternatives(rule, name)?;
                let Some(number) = number(name) else {
                    let harmless = is_foreign(name) || permits(act) || !permits(default);
                    if harmless {
                        continue;
                    }
                    return Err(Error::UnknownCall { name: name.clone() });
                };
                let draft = &mut drafts[number as usize];
                if draft.last.is_some() {
                    continue;
                }
                if alternatives.is_empty() {
                    draft.last = Some(act);
                }
                let cases = alternatives.into_iter();
                draft.cases.extend(cases.map(|conditions| Case {
                    conditions,
                    action: act,
                }));
            }
        }
        let errno = libc::SECCOMP_RET_ERRNO;
        let is_errno = default & libc::SECCOMP_RET_ACTION_FULL == errno;
        let newer = if is_errno {
            errno | libc::ENOSYS.cast_unsigned()
        } else {
            default
        };
        let mut known = vec![false; drafts.len()];
        for (_, number) in SYSCALLS {
            known[*number as usize] = true;
        }
        let verdicts = drafts.into_iter().zip(known).map(|(draft, known)| {
            let otherwise = draft.last.unwrap_or(if known { default } else { newer });
            match draft.cases {
                cases if cases.is_empty() => Verdict::Always(otherwise),
                cases => Verdict::ByArguments(cases, otherwise),
            }
        });
        Ok(Self {
            verdicts: verdicts.collect(),
            newer,
        })
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
        LinuxSeccompAction::ScmpActNotify => return Err(Error::Notify("SCMP_ACT_NOTIFY")),
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
fn alternatives(rule: &LinuxSyscall, name: &str) -> Result<Vec<Vec<Condition>>, Error> {
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
    })
}
