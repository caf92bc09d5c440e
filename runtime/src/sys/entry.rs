//! Where `dyno-runtime` begins: before the C library.
//!
//! A program's start is dear where the C library is part of it: it relocates
//! 220 kB of pointers and asks the processor about its caches, which costs a
//! virtual machine half a millisecond. Whoever executes himself once more (P5,
//! see `own_file`) would pay that twice, and the first time for nothing. So the
//! first thing here is the second execution, by system calls alone; without a
//! stack frame, a relocated pointer, or a function of the C library, none of
//! which is usable yet.
//!
//! Nothing is reported from here. Whatever fails leads to the C library's
//! `_start` as if nothing had been tried, and `own_file` tries again and says
//! why it cannot.

#![expect(clippy::too_many_lines, reason = "one straight line of system calls")]

use std::arch::naked_asm;

unsafe extern "C" {
    /// The C library's entry point.
    fn _start() -> !;
}

/// The entry point, as the System V ABI for x86-64 calls it ("Process
/// Initialization"): `argc`, `argv` and `envp` lie on the stack, `rdx` holds
/// what `_start` wants to be given. `build.rs` tells the linker its name.
///
/// The kernel's structures, at `rsp`: `struct statfs` has 120 bytes with
/// `f_flags` at 80; `struct mount_attr` 32, with `attr_set` first.
///
/// # Safety
/// The kernel's to call.
#[unsafe(no_mangle)]
#[unsafe(naked)]
// SAFETY: it writes below the stack pointer that it was called with only, and
// ends in `_start` with stack pointer and `rdx` as they were, or in another
// program. The system calls are given pointers to its own text, to its own
// stack, and the vectors that the kernel put on the stack.
unsafe extern "C" fn dyno_runtime_start() -> ! {
    naked_asm!(
        "mov r12, rsp",
        "mov r13, rdx",
        "sub rsp, 256",
        // openat(AT_FDCWD, "/proc/self/exe", O_PATH | O_CLOEXEC)
        "mov eax, {openat}",
        "mov edi, {at_fdcwd}",
        "lea rsi, [rip + 6f]",
        "mov edx, {path_only}",
        "syscall",
        "test eax, eax",
        "js 5f",
        "mov r14d, eax",
        // fstatfs: is it out of reach already?
        "mov eax, {fstatfs}",
        "mov edi, r14d",
        "mov rsi, rsp",
        "syscall",
        "test eax, eax",
        "jnz 4f",
        "test byte ptr [rsp + 80], {st_rdonly}",
        "jnz 4f",
        // open_tree(file, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)
        "mov eax, {open_tree}",
        "mov edi, r14d",
        "lea rsi, [rip + 7f]",
        "mov edx, {copy}",
        "syscall",
        "test eax, eax",
        "js 4f",
        "mov r15d, eax",
        // mount_setattr(copy, "", AT_EMPTY_PATH, { .attr_set = MOUNT_ATTR_RDONLY }, 32)
        "mov qword ptr [rsp], {mount_attr_rdonly}",
        "mov qword ptr [rsp + 8], 0",
        "mov qword ptr [rsp + 16], 0",
        "mov qword ptr [rsp + 24], 0",
        "mov eax, {mount_setattr}",
        "mov edi, r15d",
        "lea rsi, [rip + 7f]",
        "mov edx, {empty_path}",
        "mov r10, rsp",
        "mov r8d, 32",
        "syscall",
        "test eax, eax",
        "jnz 3f",
        // Or it would execute itself for ever.
        "mov eax, {fstatfs}",
        "mov edi, r15d",
        "mov rsi, rsp",
        "syscall",
        "test eax, eax",
        "jnz 3f",
        "test byte ptr [rsp + 80], {st_rdonly}",
        "jz 3f",
        // execveat(copy, "", argv, envp, AT_EMPTY_PATH)
        "mov eax, {execveat}",
        "mov edi, r15d",
        "lea rsi, [rip + 7f]",
        "lea rdx, [r12 + 8]",
        "mov r10, qword ptr [r12]",
        "lea r10, [r12 + 8 * r10 + 16]",
        "mov r8d, {empty_path}",
        "syscall",
        "3:",
        "mov eax, {close}",
        "mov edi, r15d",
        "syscall",
        "4:",
        "mov eax, {close}",
        "mov edi, r14d",
        "syscall",
        "5:",
        "mov rsp, r12",
        "mov rdx, r13",
        "jmp {start}",
        "6: .asciz \"/proc/self/exe\"",
        "7: .asciz \"\"",
        openat = const libc::SYS_openat,
        fstatfs = const libc::SYS_fstatfs,
        open_tree = const libc::SYS_open_tree,
        mount_setattr = const libc::SYS_mount_setattr,
        execveat = const libc::SYS_execveat,
        close = const libc::SYS_close,
        at_fdcwd = const libc::AT_FDCWD,
        path_only = const libc::O_PATH | libc::O_CLOEXEC,
        copy = const libc::OPEN_TREE_CLONE as i32 | libc::O_CLOEXEC | libc::AT_EMPTY_PATH,
        empty_path = const libc::AT_EMPTY_PATH,
        mount_attr_rdonly = const libc::MOUNT_ATTR_RDONLY,
        st_rdonly = const libc::ST_RDONLY,
        start = sym _start,
    )
}
