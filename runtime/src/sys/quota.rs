//! Project quotas: `quotactl_fd(2)`, and the two ioctls that give a file its project.
//! The structures are those of `linux/quota.h`, `linux/dqblk_xfs.h` and `linux/fs.h`.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::done;

/// `PRJQUOTA`: the kind of quota.
const PROJECT: u32 = 2;
const Q_GETQUOTA: u32 = 0x0080_0007;
const Q_SETQUOTA: u32 = 0x0080_0008;
/// `Q_XGETQSTAT`, which ext4 answers, too.
const Q_XGETQSTAT: u32 = ('X' as u32) << 8 | 5;

/// `_IOR('X', 31, struct fsxattr)` and `_IOW('X', 32, struct fsxattr)`.
const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;

/// `struct if_dqblk`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Block {
    /// In units of 1,024 bytes.
    pub(crate) bytes_hard: u64,
    pub(crate) bytes_soft: u64,
    pub(crate) bytes_used: u64,
    pub(crate) inodes_hard: u64,
    pub(crate) inodes_soft: u64,
    pub(crate) inodes_used: u64,
    pub(crate) bytes_time: u64,
    pub(crate) inodes_time: u64,
    /// Which of them are meant.
    pub(crate) valid: u32,
}

/// `struct fsxattr`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attributes {
    pub(crate) flags: u32,
    pub(crate) extent_size: u32,
    pub(crate) extents: u32,
    pub(crate) project: u32,
    pub(crate) cow_extent_size: u32,
    pub(crate) padding: [u8; 8],
}

/// The beginning of `struct fs_quota_stat`, and room for the rest.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct State {
    version: i8,
    flags: u16,
    rest: [u64; 16],
}

/// The flags of the file system's quotas: `FS_QUOTA_PDQ_ACCT` and the like.
pub(crate) fn state(file: BorrowedFd<'_>) -> rustix::io::Result<u16> {
    let mut state = MaybeUninit::<State>::zeroed();
    quotactl(file, Q_XGETQSTAT, 0, state.as_mut_ptr().cast())?;
    // SAFETY: every bit pattern is a State, and it was zeroed before.
    Ok(unsafe { state.assume_init() }.flags)
}

/// Limits and usage of a project.
pub(crate) fn get(file: BorrowedFd<'_>, project: u32) -> rustix::io::Result<Block> {
    let mut block = Block::default();
    quotactl(file, Q_GETQUOTA, project, (&raw mut block).cast())?;
    Ok(block)
}

/// Sets what `valid` of the block says.
pub(crate) fn set(file: BorrowedFd<'_>, project: u32, block: Block) -> rustix::io::Result<()> {
    let mut block = block;
    quotactl(file, Q_SETQUOTA, project, (&raw mut block).cast())
}

/// `quotactl_fd(2)`. `at` is what the command's structure is read from or written to:
/// every caller has one of at least its size.
fn quotactl(
    file: BorrowedFd<'_>,
    command: u32,
    id: u32,
    at: *mut libc::c_void,
) -> rustix::io::Result<()> {
    // SAFETY: the descriptor is open, and `at` leads to a live structure of the
    // command's kind, which the kernel fills or reads and does not keep.
    done(unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            file.as_raw_fd(),
            command << 8 | PROJECT,
            id,
            at,
        )
    })
}

/// The attributes of a file or folder.
pub(crate) fn attributes(file: BorrowedFd<'_>) -> rustix::io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the ioctl writes one `struct fsxattr` into a live one.
    let result = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            FS_IOC_FSGETXATTR as libc::Ioctl,
            &raw mut attributes,
        )
    };
    done(result.into()).map(|()| attributes)
}

/// Sets them.
pub(crate) fn set_attributes(
    file: BorrowedFd<'_>,
    attributes: Attributes,
) -> rustix::io::Result<()> {
    // SAFETY: the ioctl reads one `struct fsxattr` from a live one.
    let result = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            FS_IOC_FSSETXATTR as libc::Ioctl,
            &raw const attributes,
        )
    };
    done(result.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<Attributes>(), 28);
        assert_eq!(size_of::<Block>(), 72);
        // fs_quota_stat has 80 bytes.
        assert!(size_of::<State>() >= 80);
        assert_eq!(std::mem::offset_of!(State, flags), 2);
    }
}
