//! The three ABIs by which an x86_64 kernel can be called, and what a filter cannot
//! see of the arguments in the oldest of them.

use oci_spec::runtime::Arch;

/// An ABI. Each has its own numbers for the system calls.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Abi {
    /// The native one.
    X86_64,
    /// That of 32-bit x86: `int 0x80`, also from 64-bit code.
    I386,
    /// 64-bit code with 32-bit pointers; its numbers have a bit of their own.
    X32,
}

/// What the x32 ABI adds to a number.
pub(super) const X32_BIT: u32 = 0x4000_0000;

impl Abi {
    /// All of them, in the order of the table's columns.
    pub(super) const ALL: [Self; 3] = [Self::X86_64, Self::I386, Self::X32];

    /// The ABI that a profile's architecture stands for, if this machine has it.
    pub(super) fn of(arch: Arch) -> Option<Self> {
        match arch {
            Arch::ScmpArchNative | Arch::ScmpArchX86_64 => Some(Self::X86_64),
            Arch::ScmpArchX86 => Some(Self::I386),
            Arch::ScmpArchX32 => Some(Self::X32),
            _ => None,
        }
    }

    /// The first argument of the call that means something else than natively, or
    /// lies behind a pointer: nothing can be said about it and those after it.
    pub(super) fn first_hidden(self, name: &str) -> u8 {
        let hidden = HIDDEN_ON_I386.iter().find(|(hidden, _)| *hidden == name);
        match (self, hidden) {
            (Self::I386, Some((_, first))) => *first,
            _ => 6,
        }
    }
}

/// All arguments behind a pointer, a 64-bit argument in two halves, another order.
pub(super) const HIDDEN_ON_I386: [(&str, u8); 11] = [
    ("mmap", 0),
    ("select", 0),
    ("lookup_dcookie", 0),
    ("fadvise64", 1),
    ("readahead", 1),
    ("sync_file_range", 1),
    ("fallocate", 2),
    ("fanotify_mark", 2),
    ("clone", 3),
    ("pread64", 3),
    ("pwrite64", 3),
];

/// A call of i386 that stands for many: the first argument says which, and the
/// others are not those of that call.
pub(super) struct Multiplexer {
    pub(super) name: &'static str,
    /// What the kernel looks at in the first argument.
    pub(super) mask: u32,
    /// Its calls.
    pub(super) calls: &'static [(u32, &'static str)],
}

/// `socketcall(2)` takes a pointer to the arguments. `ipc(2)` has a version in the
/// upper half of its first argument.
pub(super) const MULTIPLEXERS: [Multiplexer; 2] = [
    Multiplexer {
        name: "socketcall",
        mask: u32::MAX,
        calls: &[
            (1, "socket"),
            (2, "bind"),
            (3, "connect"),
            (4, "listen"),
            (5, "accept"),
            (6, "getsockname"),
            (7, "getpeername"),
            (8, "socketpair"),
            (9, "send"),
            (10, "recv"),
            (11, "sendto"),
            (12, "recvfrom"),
            (13, "shutdown"),
            (14, "setsockopt"),
            (15, "getsockopt"),
            (16, "sendmsg"),
            (17, "recvmsg"),
            (18, "accept4"),
            (19, "recvmmsg"),
            (20, "sendmmsg"),
        ],
    },
    Multiplexer {
        name: "ipc",
        mask: 0xffff,
        calls: &[
            (1, "semop"),
            (2, "semget"),
            (3, "semctl"),
            (4, "semtimedop"),
            (11, "msgsnd"),
            (12, "msgrcv"),
            (13, "msgget"),
            (14, "msgctl"),
            (21, "shmat"),
            (22, "shmdt"),
            (23, "shmget"),
            (24, "shmctl"),
        ],
    },
];
