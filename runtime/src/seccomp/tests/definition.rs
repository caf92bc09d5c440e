//! Random profiles, against a plain reading of them and against another compiler.

use oci_spec::runtime::{
    Arch, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator,
    LinuxSyscall,
};
use proptest::prelude::*;

use super::*;
use crate::seccomp::syscalls::SYSCALLS;

/// A profile read as its documentation says, without any of the compiler's steps.
struct Reading<'a> {
    profile: &'a LinuxSeccomp,
    abi: Abi,
    arguments: [u64; 6],
}

/// What makes sense of a rule's value where there are only 32 bits.
fn meant(abi: Abi, value: u64) -> u64 {
    match i32::try_from(value.cast_signed()) {
        Ok(negative) if negative < 0 && abi == Abi::I386 => word_of(negative),
        _ => value,
    }
}

impl<'a> Reading<'a> {
    fn default(&self) -> u32 {
        let profile = self.profile;
        profile.default_action().as_u32(profile.default_errno_ret())
    }

    fn rules(&self, name: &'a str) -> impl Iterator<Item = (u32, &'a [LinuxSeccompArg])> {
        let all = self.profile.syscalls().iter().flatten();
        let named = all.filter(move |rule| rule.names().iter().any(|n| n == name));
        named.map(|rule| {
            let arguments = rule.args().as_deref().unwrap_or_default();
            (rule.action().as_u32(rule.errno_ret()), arguments)
        })
    }

    fn holds(&self, argument: &LinuxSeccompArg) -> bool {
        let actual = self.arguments[argument.index()];
        let value = meant(self.abi, argument.value());
        match argument.op() {
            LinuxSeccompOperator::ScmpCmpEq => actual == value,
            LinuxSeccompOperator::ScmpCmpNe => actual != value,
            LinuxSeccompOperator::ScmpCmpLt => actual < value,
            LinuxSeccompOperator::ScmpCmpLe => actual <= value,
            LinuxSeccompOperator::ScmpCmpGt => actual > value,
            LinuxSeccompOperator::ScmpCmpGe => actual >= value,
            LinuxSeccompOperator::ScmpCmpMaskedEq => {
                actual & argument.value() == meant(self.abi, argument.value_two().unwrap_or(0))
            }
        }
    }

    fn all_hold(&self, arguments: &[LinuxSeccompArg]) -> bool {
        let mut indices: Vec<usize> = arguments.iter().map(LinuxSeccompArg::index).collect();
        indices.sort_unstable();
        if indices.windows(2).any(|pair| pair[0] == pair[1]) {
            arguments.iter().any(|argument| self.holds(argument))
        } else {
            arguments.iter().all(|argument| self.holds(argument))
        }
    }

    /// The first rule without conditions that says something.
    fn always(&self, name: &'a str) -> Option<u32> {
        let mut rules = self.rules(name);
        let says =
            |(action, arguments): &(u32, &[_])| arguments.is_empty() && *action != self.default();
        Some(rules.find(says)?.0)
    }

    /// The strictest answer that any arguments could bring.
    fn strictest(&self, name: &'a str) -> u32 {
        let order = [
            libc::SECCOMP_RET_KILL_PROCESS,
            libc::SECCOMP_RET_KILL_THREAD,
            libc::SECCOMP_RET_TRAP,
            libc::SECCOMP_RET_ERRNO,
            libc::SECCOMP_RET_USER_NOTIF,
            libc::SECCOMP_RET_TRACE,
            libc::SECCOMP_RET_LOG,
            libc::SECCOMP_RET_ALLOW,
        ];
        let possible = self
            .rules(name)
            .filter(|(_, conditions)| !conditions.is_empty());
        let possible = possible.map(|(action, _)| action);
        let possible: Vec<u32> = [self.default()].into_iter().chain(possible).collect();
        let of_kind = |kind: u32| {
            possible
                .iter()
                .find(move |action| *action & 0xffff_0000 == kind)
        };
        order
            .into_iter()
            .find_map(|kind| of_kind(kind).copied())
            .unwrap()
    }

    fn first(&self, name: &'a str) -> Option<u32> {
        let mut rules = self
            .rules(name)
            .filter(|(_, conditions)| !conditions.is_empty());
        Some(rules.find(|(_, conditions)| self.all_hold(conditions))?.0)
    }

    /// What happens to a call.
    fn says(&self, name: &'a str) -> u32 {
        if let Some(always) = self.always(name) {
            return always;
        }
        let i386 = self.abi == Abi::I386;
        let hidden = match name {
            "mmap" if i386 => 0,
            "pread64" | "clone" if i386 => 3,
            _ => 6,
        };
        let asked = self.rules(name).flat_map(|(_, conditions)| conditions);
        if asked
            .into_iter()
            .any(|condition| condition.index() >= hidden)
        {
            return self.strictest(name);
        }
        if let Some(action) = self.first(name) {
            return action;
        }
        let stands_for = match (name, self.arguments[0]) {
            ("socketcall", 1) if i386 => "socket",
            ("socketcall", 5) if i386 => "accept",
            ("ipc", call) if i386 && call & 0xffff == 1 => "semop",
            _ => return self.default(),
        };
        self.always(stands_for)
            .unwrap_or_else(|| self.strictest(stands_for))
    }
}

const NAMES: [&str; 14] = [
    "read",
    "write",
    "open",
    "socket",
    "clone",
    "openat2",
    "ioctl",
    "mmap",
    "pread64",
    "accept",
    "semop",
    "stat64",
    "socketcall",
    "ipc",
];

/// Around the boundary of the halves, where a compiler goes wrong.
fn word() -> impl Strategy<Value = u64> {
    let half = || {
        prop_oneof![
            0_u64..3,
            Just(0x7fff_ffff),
            Just(0x8000_0000),
            0xffff_fffe_u64..=0xffff_ffff
        ]
    };
    let both = (half(), half()).prop_map(|(high, low)| high << 32 | low);
    prop_oneof![half(), both, Just(5), Just(0x1_0001)]
}

fn argument() -> impl Strategy<Value = LinuxSeccompArg> {
    let operator = prop::sample::select(support::OPERATORS.to_vec());
    let index = prop_oneof![0_usize..3, 0_usize..6];
    (index, operator, word(), word()).prop_map(|(index, op, value, two)| {
        let builder = LinuxSeccompArgBuilder::default()
            .index(index)
            .op(op)
            .value(value);
        builder.value_two(two & value).build().unwrap()
    })
}

fn rule_with(
    action: impl Strategy<Value = (LinuxSeccompAction, Option<u32>)>,
) -> impl Strategy<Value = LinuxSyscall> {
    let names = prop::sample::subsequence(NAMES.to_vec(), 1..4);
    let arguments = prop::option::of(prop::collection::vec(argument(), 1..4));
    (names, action, arguments).prop_map(|(names, (action, errno), arguments)| {
        let mut rule = LinuxSyscall::default();
        rule.set_names(names.into_iter().map(str::to_owned).collect());
        rule.set_action(action)
            .set_errno_ret(errno)
            .set_args(arguments);
        rule
    })
}

fn any_rule() -> impl Strategy<Value = LinuxSyscall> {
    rule_with(prop_oneof![
        Just((LinuxSeccompAction::ScmpActAllow, None)),
        Just((LinuxSeccompAction::ScmpActKillProcess, None)),
        Just((LinuxSeccompAction::ScmpActLog, None)),
        Just((LinuxSeccompAction::ScmpActTrap, None)),
        Just((LinuxSeccompAction::ScmpActNotify, None)),
        (1_u32..4).prop_map(|errno| (LinuxSeccompAction::ScmpActErrno, Some(errno))),
        (0_u32..65536).prop_map(|data| (LinuxSeccompAction::ScmpActTrace, Some(data))),
    ])
}

fn profile() -> impl Strategy<Value = LinuxSeccomp> {
    let action = prop_oneof![
        Just((LinuxSeccompAction::ScmpActAllow, None)),
        Just((LinuxSeccompAction::ScmpActKill, None)),
        (1_u32..4).prop_map(|errno| (LinuxSeccompAction::ScmpActErrno, Some(errno))),
    ];
    let archs = vec![
        Arch::ScmpArchX86_64,
        Arch::ScmpArchX86,
        Arch::ScmpArchX32,
        Arch::ScmpArchAarch64,
    ];
    let archs = prop::sample::subsequence(archs, 0..=4);
    let rules = prop::collection::vec(any_rule(), 0..12);
    (action, archs, rules).prop_map(|((action, errno), archs, rules)| {
        let mut profile = LinuxSeccomp::default();
        profile
            .set_default_action(action)
            .set_default_errno_ret(errno)
            .set_architectures(Some(archs))
            .set_listener_path(Some("/agent".into()))
            .set_syscalls(Some(rules));
        profile
    })
}

/// What the kernel makes of both filters: the stricter answer.
fn both(profile: &LinuxSeccomp, abi: Abi, name: &str, arguments: [u64; 6]) -> u32 {
    let filter = compile(profile).unwrap();
    let answer = verdict_in(&filter, abi, name, arguments);
    let Some(notifier) = compile_notifier(profile).unwrap() else {
        return answer;
    };
    let notifies = verdict_in(notifier.filter(), abi, name, arguments);
    let strictness = |answer: &u32| (answer & 0xffff_0000).cast_signed();
    [answer, notifies]
        .into_iter()
        .min_by_key(strictness)
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(768))]
    #[test]
    fn the_program_decides_as_the_profile_reads(
        profile in profile(),
        name in prop::sample::select(NAMES.to_vec()),
        arguments in prop::array::uniform6(word()),
    ) {
        let listed = profile.architectures().clone().unwrap();
        for (abi, arch) in [
            (Abi::X86_64, None),
            (Abi::I386, Some(Arch::ScmpArchX86)),
            (Abi::X32, Some(Arch::ScmpArchX32)),
        ] {
            if number(name, abi).is_none() {
                continue;
            }
            let arguments = match abi {
                Abi::I386 => arguments.map(|argument| argument & 0xffff_ffff),
                _ => arguments,
            };
            let open = arch.is_none_or(|arch| listed.contains(&arch));
            let expected = match abi {
                _ if open => Reading { profile: &profile, abi, arguments }.says(name),
                Abi::X32 => errno(libc::ENOSYS),
                _ => libc::SECCOMP_RET_KILL_PROCESS,
            };
            prop_assert_eq!(both(&profile, abi, name, arguments), expected, "{:?}", abi);
        }
        let filter = compile(&profile).unwrap();
        let aarch64 = 0xc000_00b7;
        prop_assert_eq!(run(&filter, aarch64, 0, arguments).0, libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn another_compiler_decides_the_same(
        rules in prop::collection::vec(
            rule_with(Just((LinuxSeccompAction::ScmpActAllow, None))),
            1..8,
        ),
        name in prop::sample::select(NAMES[..6].to_vec()),
        arguments in prop::array::uniform6(word()),
    ) {
        let mut profile = LinuxSeccomp::default();
        profile
            .set_default_action(LinuxSeccompAction::ScmpActErrno)
            .set_syscalls(Some(rules));
        let theirs = by_seccompiler(&profile);
        let number = number(name, Abi::X86_64).unwrap();
        let expected = interpret(&theirs, ARCH_X86_64, number, arguments).0;
        prop_assert_eq!(verdict(&compile(&profile).unwrap(), name, arguments), expected);
    }
}

/// A profile that allows with conditions and refuses all else, by another compiler.
fn by_seccompiler(profile: &LinuxSeccomp) -> Vec<(u16, u8, u8, u32)> {
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule, TargetArch,
    };
    let condition = |argument: &LinuxSeccompArg| {
        let (operator, value) = match argument.op() {
            LinuxSeccompOperator::ScmpCmpEq => (SeccompCmpOp::Eq, argument.value()),
            LinuxSeccompOperator::ScmpCmpNe => (SeccompCmpOp::Ne, argument.value()),
            LinuxSeccompOperator::ScmpCmpLt => (SeccompCmpOp::Lt, argument.value()),
            LinuxSeccompOperator::ScmpCmpLe => (SeccompCmpOp::Le, argument.value()),
            LinuxSeccompOperator::ScmpCmpGt => (SeccompCmpOp::Gt, argument.value()),
            LinuxSeccompOperator::ScmpCmpGe => (SeccompCmpOp::Ge, argument.value()),
            LinuxSeccompOperator::ScmpCmpMaskedEq => {
                let mask = SeccompCmpOp::MaskedEq(argument.value());
                (mask, argument.value_two().unwrap_or(0))
            }
        };
        let index = u8::try_from(argument.index()).unwrap();
        SeccompCondition::new(index, SeccompCmpArgLen::Qword, operator, value).unwrap()
    };
    let mut rules: std::collections::BTreeMap<i64, Vec<SeccompRule>> = Default::default();
    for (name, _) in SYSCALLS.iter().filter(|(name, _)| NAMES.contains(name)) {
        let Some(number) = number(name, Abi::X86_64) else {
            continue;
        };
        let named = profile.syscalls().iter().flatten();
        let named: Vec<_> = named
            .filter(|rule| rule.names().iter().any(|n| n == name))
            .collect();
        if named.is_empty() {
            continue;
        }
        let chain = rules.entry(i64::from(number)).or_default();
        // To it, no rules at all mean "always".
        if named.iter().any(|rule| rule.args().is_none()) {
            continue;
        }
        for rule in named {
            let conditions: Vec<_> = rule.args().iter().flatten().map(condition).collect();
            let mut indices: Vec<_> = rule.args().iter().flatten().map(|a| a.index()).collect();
            indices.sort_unstable();
            if indices.windows(2).any(|pair| pair[0] == pair[1]) {
                let one = |condition| SeccompRule::new(vec![condition]).unwrap();
                chain.extend(conditions.into_iter().map(one));
            } else {
                chain.push(SeccompRule::new(conditions).unwrap());
            }
        }
    }
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, TargetArch::x86_64);
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    program
        .into_iter()
        .map(|i| (i.code, i.jt, i.jf, i.k))
        .collect()
}
