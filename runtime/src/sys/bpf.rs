//! bpf(2), as far as a device program of a cgroup needs it: load, attach, find again.
//!
//! The structures are those of `linux/bpf.h`; the kernel reads as many bytes of
//! the attributes as it is told, zero standing for every later field.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One eBPF instruction, `struct bpf_insn`, by its constructors (`instruction-set.rst`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct Insn {
    code: u8,
    /// Destination in the low four bits, source in the high ones.
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Insn {
    const fn new(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Self {
        Self {
            code,
            registers: dst | src << 4,
            offset,
            immediate,
        }
    }

    /// `dst = *(u32 *)(src + offset)`
    pub(crate) const fn load_u32(dst: u8, src: u8, offset: i16) -> Self {
        Self::new(0x61, dst, src, offset, 0)
    }

    /// `dst = src`, 64 bits.
    pub(crate) const fn mov(dst: u8, src: u8) -> Self {
        Self::new(0xbf, dst, src, 0, 0)
    }

    /// `dst = immediate`, 64 bits.
    pub(crate) const fn mov_imm(dst: u8, immediate: i32) -> Self {
        Self::new(0xb7, dst, 0, 0, immediate)
    }

    /// `dst &= immediate`, 32 bits; the upper half becomes zero.
    pub(crate) const fn and_imm(dst: u8, immediate: i32) -> Self {
        Self::new(0x54, dst, 0, 0, immediate)
    }

    /// `dst >>= immediate`, 32 bits.
    pub(crate) const fn shift_right_imm(dst: u8, immediate: i32) -> Self {
        Self::new(0x74, dst, 0, 0, immediate)
    }

    /// `if (u32) dst == immediate: skip offset instructions`
    pub(crate) const fn jump_eq_imm(dst: u8, immediate: i32, offset: i16) -> Self {
        Self::new(0x16, dst, 0, offset, immediate)
    }

    /// `if (u32) dst != immediate: skip offset instructions`
    pub(crate) const fn jump_ne_imm(dst: u8, immediate: i32, offset: i16) -> Self {
        Self::new(0x56, dst, 0, offset, immediate)
    }

    /// `return r0`
    pub(crate) const fn exit() -> Self {
        Self::new(0x95, 0, 0, 0, 0)
    }

    /// Code, destination, source, offset and immediate, for the tests' interpreter.
    #[cfg(test)]
    pub(crate) const fn parts(self) -> (u8, usize, usize, i16, i32) {
        let (dst, src) = (self.registers & 15, self.registers >> 4);
        (
            self.code,
            dst as usize,
            src as usize,
            self.offset,
            self.immediate,
        )
    }
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_F_REPLACE: u32 = 4;

/// What our programs are called, so that we know them again.
const NAME: [u8; 16] = *b"dyno_devices\0\0\0\0";

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// The head of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
struct ProgAttach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

/// The head of `union bpf_attr` for `BPF_PROG_QUERY`.
#[repr(C)]
struct ProgQuery {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct GetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; 16],
}

/// The kernel attaches at most so many programs to a cgroup (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;

/// Loads a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`; the kernel verifies it.
pub(crate) fn prog_load_cgroup_device(program: &[Insn]) -> io::Result<OwnedFd> {
    let insn_cnt = u32::try_from(program.len()).map_err(io::Error::other)?;
    let attr = ProgLoad {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt,
        insns: program.as_ptr().addr() as u64,
        // No helper is called, so any licence will do, but it must be a string.
        license: c"Apache-2.0".as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: NAME,
    };
    // SAFETY: the kernel reads `size` bytes of `attr`, which is that large, without
    // padding and fully initialised; `insns` and `license` point to `insn_cnt`
    // instructions and a C string that both outlive the call; it writes nothing,
    // having no log buffer.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attr,
            size_of::<ProgLoad>(),
        )
    };
    let fd = match i32::try_from(fd) {
        Ok(fd) if fd >= 0 => fd,
        _ => return Err(io::Error::last_os_error()),
    };
    // SAFETY: the kernel has just made this descriptor for us (with O_CLOEXEC), so
    // nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a device program to a cgroup of the v2 tree, next to others
/// (`BPF_F_ALLOW_MULTI`) or, in one step, instead of one of them (`BPF_F_REPLACE`).
pub(crate) fn prog_attach_cgroup_device(
    program: &OwnedFd,
    instead_of: Option<&OwnedFd>,
    cgroup: BorrowedFd<'_>,
) -> io::Result<()> {
    let attr = ProgAttach {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        attach_bpf_fd: program.as_raw_fd().cast_unsigned(),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI | instead_of.map_or(0, |_| BPF_F_REPLACE),
        replace_bpf_fd: instead_of.map_or(0, |old| old.as_raw_fd().cast_unsigned()),
    };
    // SAFETY: the kernel reads `size` bytes of `attr`, which is that large, without
    // padding and fully initialised; the descriptors are borrowed for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_ATTACH,
            &raw const attr,
            size_of::<ProgAttach>(),
        )
    };
    super::checked(result).map(|_| ())
}

/// The device program of this cgroup itself that has our name.
pub(crate) fn own_cgroup_device_prog(cgroup: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    for id in prog_query_cgroup_device(cgroup)? {
        match prog_by_id(id) {
            Ok(program) if prog_name(&program)? == NAME => return Ok(Some(program)),
            Ok(_) => {}
            // Detached meanwhile, or another's that a security module hides: not ours.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EACCES)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The ids of the device programs that are attached to this very cgroup.
fn prog_query_cgroup_device(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; MAX_PROGRAMS];
    let mut attr = ProgQuery {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr().addr() as u64,
        prog_cnt: u32::try_from(ids.len()).map_err(io::Error::other)?,
        padding: 0,
    };
    // SAFETY: `attr` is that large, without padding, initialised and ours alone; the
    // kernel writes into it and at most `prog_cnt` numbers to `prog_ids`, which has
    // room for as many and outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_QUERY,
            &raw mut attr,
            size_of::<ProgQuery>(),
        )
    };
    super::checked(result)?;
    ids.truncate(attr.prog_cnt as usize);
    Ok(ids)
}

fn prog_by_id(id: u32) -> io::Result<OwnedFd> {
    // prog_id, next_id, open_flags
    let attr = [id, 0, 0];
    // SAFETY: the kernel reads the twelve bytes of `attr` and writes nothing.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_GET_FD_BY_ID,
            &raw const attr,
            size_of_val(&attr),
        )
    };
    let fd = i32::try_from(super::checked(fd)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us (with O_CLOEXEC), so
    // nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn prog_name(program: &OwnedFd) -> io::Result<[u8; 16]> {
    let mut info = ProgInfo::default();
    let mut attr = GetInfo {
        bpf_fd: program.as_raw_fd().cast_unsigned(),
        info_len: u32::try_from(size_of::<ProgInfo>()).map_err(io::Error::other)?,
        info: (&raw mut info).addr() as u64,
    };
    // SAFETY: `attr` is that large, without padding and ours alone; the kernel writes
    // its length back and at most `info_len` bytes to `info`, which is that large,
    // and to no other buffer, as all lengths and pointers in it are zero.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw mut attr,
            size_of::<GetInfo>(),
        )
    };
    super::checked(result)?;
    Ok(info.name)
}
