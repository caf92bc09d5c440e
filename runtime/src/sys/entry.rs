//! Where `dyno-runtime` begins: before the C library.
//!
//! This process shall run from a file that a container cannot write (P5, see
//! `own_file`): that of a read-only copy of its mount. Here, where nothing has been
//! written to yet and only a page of code been executed, that takes no second
//! `execve(2)`, which costs a machine without KVM a tenth of a start: each segment
//! of the program is mapped anew, over itself, from the copy, and the kernel told
//! that this is the process' file (`PR_SET_MM_MAP`, which it grants once nothing is
//! mapped from the former). All by system calls alone; none of the C library's
//! functions is usable yet.
//!
//! ```text
//!  /proc/self/exe ─ open_tree ─▶ copy ─ mount_setattr: read-only ─ open ─▶ file
//!                                                           mmap each PT_LOAD
//!                                                           prctl(PR_SET_MM_MAP)
//!                      the kernel refuses? execveat(copy) ◀──┘    │
//!                      from the start again, read-only now        ▼  _start
//! ```
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
/// `f_flags` at 80; `struct mount_attr` 32, with `attr_set` first; `struct
/// prctl_mm_map` 104, eleven addresses, those of the auxiliary vector, and the
/// file. ELF's: `e_phoff` at 32, `e_phnum` at 56; a program header has 56 bytes,
/// `p_type` 0, `p_flags` 4, `p_offset` 8, `p_vaddr` 16, `p_filesz` 32, `p_memsz` 40.
///
/// `r12` and `r13` keep what `_start` wants, `r14` is our file, `r15` the copy,
/// `ebx` the copy open for reading, `rbp` the program header.
///
/// # Safety
/// The kernel's to call.
#[unsafe(no_mangle)]
#[unsafe(naked)]
// SAFETY: it writes below the stack pointer that it was called with only, and
// ends in `_start` with stack pointer and `rdx` as they were, or in another
// program. The system calls are given pointers to its own text, to its own
// stack, and the vectors that the kernel put on the stack. What is mapped is the
// same content at the same place: nobody writes to a file that is executed, and
// nothing has been written to the segments; the zeros go behind `p_filesz`, into
// the last page that this segment has.
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
        // "/proc/self/fd/" and the copy's number: a file to map must be open for
        // reading, and the copy is not. Nobody's number has more than seven digits.
        "cmp r15d, 9999999",
        "ja 3f",
        "lea rsi, [rip + 8f]",
        "mov rax, qword ptr [rsi]",
        "mov qword ptr [rsp], rax",
        "mov rax, qword ptr [rsi + 6]",
        "mov qword ptr [rsp + 6], rax",
        "lea rdi, [rsp + 40]",
        "mov qword ptr [rdi], 0",
        "mov eax, r15d",
        "mov ecx, 10",
        "20:",
        "xor edx, edx",
        "div ecx",
        "add edx, 48",
        "dec rdi",
        "mov byte ptr [rdi], dl",
        "test eax, eax",
        "jnz 20b",
        "mov rax, qword ptr [rdi]",
        "mov qword ptr [rsp + 14], rax",
        // openat(AT_FDCWD, "/proc/self/fd/…", O_RDONLY | O_CLOEXEC)
        "mov eax, {openat}",
        "mov edi, {at_fdcwd}",
        "mov rsi, rsp",
        "mov edx, {cloexec}",
        "syscall",
        "test eax, eax",
        "js 3f",
        "mov ebx, eax",
        // Each segment anew, from the copy.
        "lea rbp, [rip + __ehdr_start]",
        "movzx eax, word ptr [rbp + 56]",
        "mov dword ptr [rsp + 128], eax",
        "add rbp, qword ptr [rbp + 32]",
        "21:",
        "cmp dword ptr [rbp], {pt_load}",
        "jne 25f",
        // R, W, X are 4, 2, 1 here, and 1, 2, 4 to mmap.
        "mov eax, dword ptr [rbp + 4]",
        "mov edx, eax",
        "and edx, 2",
        "mov ecx, eax",
        "shr ecx, 2",
        "and ecx, 1",
        "or edx, ecx",
        "and eax, 1",
        "shl eax, 2",
        "or edx, eax",
        // mmap(page of p_vaddr, p_filesz and what is before it in the page, …)
        "mov rdi, qword ptr [rbp + 16]",
        "mov r9, qword ptr [rbp + 8]",
        "mov rsi, qword ptr [rbp + 32]",
        "mov eax, edi",
        "and eax, 4095",
        "sub rdi, rax",
        "sub r9, rax",
        "add rsi, rax",
        "mov r10d, {mapping}",
        "mov r8d, ebx",
        "mov eax, {mmap}",
        "syscall",
        "cmp rax, rdi",
        "jne 28f",
        // Where it is, for ps(1): of the one with code, and of the last with data.
        "mov rax, qword ptr [rbp + 16]",
        "mov rdx, qword ptr [rbp + 32]",
        "add rdx, rax",
        "test byte ptr [rbp + 4], 1",
        "jz 22f",
        "mov qword ptr [rsp], rax",
        "mov qword ptr [rsp + 8], rdx",
        "22:",
        "test byte ptr [rbp + 4], 2",
        "jz 25f",
        "mov qword ptr [rsp + 16], rax",
        "mov qword ptr [rsp + 24], rdx",
        // What follows it in its last page is zero.
        "mov rcx, qword ptr [rbp + 40]",
        "cmp rcx, qword ptr [rbp + 32]",
        "jbe 25f",
        "mov rdi, rdx",
        "mov ecx, edx",
        "neg ecx",
        "and ecx, 4095",
        "xor eax, eax",
        "rep stosb",
        "25:",
        "add rbp, 56",
        "dec dword ptr [rsp + 128]",
        "jnz 21b",
        // The heap has not begun to grow.
        "mov eax, {brk}",
        "xor edi, edi",
        "syscall",
        "mov qword ptr [rsp + 32], rax",
        "mov qword ptr [rsp + 40], rax",
        "mov qword ptr [rsp + 48], r12",
        // Arguments and environment are one string after the other, to the end of
        // the last: that of the environment, if there is any.
        "mov rax, qword ptr [r12 + 8]",
        "mov qword ptr [rsp + 56], rax",
        "mov rcx, qword ptr [r12]",
        "mov rsi, qword ptr [r12 + 8 * rcx]",
        "lea rdi, [r12 + 8 * rcx + 16]",
        "call 30f",
        "mov qword ptr [rsp + 64], rsi",
        "mov qword ptr [rsp + 72], rsi",
        "26:",
        "mov rax, qword ptr [rdi]",
        "test rax, rax",
        "jz 27f",
        "mov rsi, rax",
        "add rdi, 8",
        "cmp qword ptr [rdi], 0",
        "jne 26b",
        "call 30f",
        "27:",
        "mov qword ptr [rsp + 80], rsi",
        // The auxiliary vector stays.
        "mov qword ptr [rsp + 88], 0",
        "mov dword ptr [rsp + 96], 0",
        "mov dword ptr [rsp + 100], ebx",
        // prctl(PR_SET_MM, PR_SET_MM_MAP, map, sizeof(map), 0)
        "mov eax, {prctl}",
        "mov edi, {set_mm}",
        "mov esi, {set_mm_map}",
        "mov rdx, rsp",
        "mov r10d, 104",
        "xor r8d, r8d",
        "syscall",
        "test eax, eax",
        "jnz 28f",
        "mov eax, {close}",
        "mov edi, ebx",
        "syscall",
        "jmp 3f",
        // rsi: to behind the string's end.
        "30:",
        "inc rsi",
        "cmp byte ptr [rsi - 1], 0",
        "jne 30b",
        "ret",
        // A kernel that does not let a process change its file executes it.
        // execveat(copy, "", argv, envp, AT_EMPTY_PATH)
        "28:",
        "mov eax, {execveat}",
        "mov edi, r15d",
        "lea rsi, [rip + 7f]",
        "lea rdx, [r12 + 8]",
        "mov r10, qword ptr [r12]",
        "lea r10, [r12 + 8 * r10 + 16]",
        "mov r8d, {empty_path}",
        "syscall",
        "mov eax, {close}",
        "mov edi, ebx",
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
        "8: .asciz \"/proc/self/fd/\"",
        openat = const libc::SYS_openat,
        fstatfs = const libc::SYS_fstatfs,
        open_tree = const libc::SYS_open_tree,
        mount_setattr = const libc::SYS_mount_setattr,
        execveat = const libc::SYS_execveat,
        close = const libc::SYS_close,
        mmap = const libc::SYS_mmap,
        brk = const libc::SYS_brk,
        prctl = const libc::SYS_prctl,
        cloexec = const libc::O_CLOEXEC,
        pt_load = const libc::PT_LOAD,
        mapping = const libc::MAP_PRIVATE | libc::MAP_FIXED,
        set_mm = const libc::PR_SET_MM,
        set_mm_map = const libc::PR_SET_MM_MAP,
        at_fdcwd = const libc::AT_FDCWD,
        path_only = const libc::O_PATH | libc::O_CLOEXEC,
        copy = const libc::OPEN_TREE_CLONE as i32 | libc::O_CLOEXEC | libc::AT_EMPTY_PATH,
        empty_path = const libc::AT_EMPTY_PATH,
        mount_attr_rdonly = const libc::MOUNT_ATTR_RDONLY,
        st_rdonly = const libc::ST_RDONLY,
        start = sym _start,
    )
}
