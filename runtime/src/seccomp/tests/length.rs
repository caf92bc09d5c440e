//! How long programs are, and how much of them a call takes.

use oci_spec::runtime::{LinuxSeccompAction, LinuxSyscall};

use super::*;
use crate::seccomp::syscalls::SYSCALLS;

/// As the default profiles of Docker and Podman: about as many names, for three ABIs.
fn for_three_abis() -> LinuxSeccomp {
    let mut profile = default_profile(&[]);
    let natively = profile
        .syscalls()
        .iter()
        .flatten()
        .flat_map(LinuxSyscall::names);
    let known: Vec<String> = natively.cloned().collect();
    let only_old = SYSCALLS
        .iter()
        .filter(|(name, _)| number(name, Abi::X86_64).is_none());
    let only_old = only_old.map(|(name, _)| (*name).to_owned());
    let mut rule = LinuxSyscall::default();
    rule.set_names(only_old.collect());
    rule.set_action(LinuxSeccompAction::ScmpActAllow);
    assert!(known.len() + rule.names().len() > 350);
    let mut rules = profile.syscalls().clone().unwrap();
    rules.push(rule);
    profile.set_syscalls(Some(rules));
    profile.set_architectures(Some(support::ARCHS.to_vec()));
    profile
}

#[test]
fn a_call_is_found_in_few_instructions_in_each_of_three_abis() {
    let filter = compile(&for_three_abis()).unwrap();
    let length = filter.program().len();
    assert!(length < 1024, "{length}");
    for abi in Abi::ALL {
        let numbers = SYSCALLS.iter().filter_map(|(name, _)| number(name, abi));
        let steps = numbers.map(|number| match abi {
            Abi::X86_64 => run(&filter, ARCH_X86_64, number, [0; 6]).1,
            Abi::I386 => run(&filter, ARCH_I386, number, [0; 6]).1,
            Abi::X32 => run(&filter, ARCH_X86_64, number | X32_BIT, [0; 6]).1,
        });
        let steps: Vec<usize> = steps.collect();
        let mean = steps.iter().sum::<usize>() / steps.len();
        assert!(mean <= 14, "{abi:?}: {mean} on average");
        let most = steps.iter().max();
        assert!(most <= Some(&64), "{abi:?}: {most:?}");
    }
}

#[test]
#[ignore = "prints a time, which depends on the machine"]
#[expect(clippy::print_stdout, reason = "that is all it is for")]
fn how_long_it_takes_to_compile() {
    let profile = for_three_abis();
    let rounds = 200;
    let begin = std::time::Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(compile(std::hint::black_box(&profile)).unwrap());
    }
    let each = begin.elapsed() / rounds;
    let length = compile(&profile).unwrap().program().len();
    println!("{length} instructions in {each:?}");
}

#[test]
fn a_call_is_found_in_few_instructions() {
    let filter = compile(&default_profile(&[])).unwrap();
    let steps = |number| run(&filter, ARCH_X86_64, number, [0; 6]).1;
    let native = SYSCALLS
        .iter()
        .filter_map(|(name, _)| number(name, Abi::X86_64));
    let all: Vec<usize> = native.map(steps).collect();
    let mean = all.iter().sum::<usize>() / all.len();
    assert!(mean <= 13, "{mean} on average");
    assert!(filter.program().len() < 512, "{}", filter.program().len());
}
