//! The compiler against the machine that runs its programs.

mod abis;
mod definition;
mod length;
mod profiles;
mod rules;

use super::abi::{Abi, X32_BIT};
use super::program::{ARCH_I386, ARCH_X86_64};
use super::syscalls::number;
use super::*;

fn errno(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()
}

/// An `int` as it arrives in a register.
fn word_of(int: i32) -> u64 {
    u64::from(int.cast_unsigned())
}

/// What the kernel would return, and how many instructions it takes.
fn run(filter: &Filter, arch: u32, number: u32, arguments: [u64; 6]) -> (u32, usize) {
    let program = filter.program().iter();
    let program: Vec<_> = program.map(|i| (i.code, i.jt, i.jf, i.k)).collect();
    interpret(&program, arch, number, arguments)
}

fn interpret(
    program: &[(u16, u8, u8, u32)],
    arch: u32,
    number: u32,
    arguments: [u64; 6],
) -> (u32, usize) {
    let mut data = vec![number, arch, 0, 0];
    for argument in arguments {
        data.push((argument & 0xffff_ffff) as u32);
        data.push((argument >> 32) as u32);
    }
    let (mut at, mut steps, mut accumulator) = (0, 0, 0_u32);
    loop {
        let (code, jt, jf, k) = program[at];
        at += 1;
        steps += 1;
        let holds = match code {
            0x20 => {
                accumulator = data[k as usize / 4];
                continue;
            }
            0x54 => {
                accumulator &= k;
                continue;
            }
            0x05 => {
                at += k as usize;
                continue;
            }
            0x06 => return (k, steps),
            0x15 => accumulator == k,
            0x25 => accumulator > k,
            0x35 => accumulator >= k,
            other => panic!("instruction {other:#x}"),
        };
        at += usize::from(if holds { jt } else { jf });
    }
}

/// What a filter says of a call of an ABI.
fn verdict_in(filter: &Filter, abi: Abi, name: &str, arguments: [u64; 6]) -> u32 {
    let number = number(name, abi).unwrap();
    let (arch, number) = match abi {
        Abi::X86_64 => (ARCH_X86_64, number),
        Abi::I386 => (ARCH_I386, number),
        Abi::X32 => (ARCH_X86_64, number | X32_BIT),
    };
    run(filter, arch, number, arguments).0
}

/// The same for the native ABI.
fn verdict(filter: &Filter, name: &str, arguments: [u64; 6]) -> u32 {
    verdict_in(filter, Abi::X86_64, name, arguments)
}

fn from_json(profile: serde_json::Value) -> Result<Filter, Error> {
    compile(&serde_json::from_value(profile).unwrap())
}
