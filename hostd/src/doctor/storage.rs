//! The file system of the state folder: images, layers, volumes, logs.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use dyno_api::doctor::HostCheck;
use dyno_runtime::quota;
use rustix::fs::{StatFs, statfs};

/// Below these parts in a thousand free, something is to be done, or too late.
const LITTLE: u64 = 100;
const NOTHING: u64 = 10;
/// Bytes that one image of some size needs.
const AN_IMAGE: u64 = 1 << 30;

/// `statfs(2)` and `linux/magic.h`: file systems that no dyno's changes can lie on,
/// as the upper layer of an overlay.
const NO_UPPER: [(i64, &str); 5] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x6573_5546, "FUSE"),
    (0x794c_7630, "overlayfs"),
];
const TMPFS: i64 = 0x0102_1994;

pub(super) fn checks(state_dir: &Path) -> Vec<HostCheck> {
    // hostd makes the folder: until then, where it will be.
    let there = state_dir.ancestors().find(|folder| folder.exists());
    let there = there.unwrap_or(Path::new("/"));
    match statfs(there) {
        Ok(found) => vec![
            kind(there, &found),
            space(&found),
            inodes(&found),
            quotas(there),
        ],
        Err(errno) => vec![unreadable(there, errno.into())],
    }
}

fn unreadable(folder: &Path, error: io::Error) -> HostCheck {
    HostCheck::failure("disk", format!("{}: {error}", folder.display()))
        .advise("give hostd another folder by --state-dir, or mount this one")
}

fn kind(folder: &Path, found: &StatFs) -> HostCheck {
    const NAME: &str = "file system";
    let magic = found.f_type;
    if let Some((_, name)) = NO_UPPER.iter().find(|(known, _)| *known == magic) {
        return HostCheck::failure(
            NAME,
            format!(
                "{} is on {name}, where no layers of dynos can be",
                folder.display()
            ),
        )
        .advise("give hostd a folder on ext4, xfs or btrfs by --state-dir");
    }
    if magic == TMPFS {
        return HostCheck::warning(
            NAME,
            format!(
                "{} is in memory: dynos and images go with a reboot",
                folder.display()
            ),
        )
        .advise("give hostd a folder on a disk by --state-dir");
    }
    HostCheck::ok(NAME, format!("{} takes layers", folder.display()))
}

fn space(found: &StatFs) -> HostCheck {
    const NAME: &str = "disk space";
    let size = u64::try_from(found.f_frsize).unwrap_or_default();
    let free = found.f_bavail.saturating_mul(size);
    let part = thousandths(found.f_bavail, found.f_blocks);
    let text = format!("{} GiB free, {}.{} %", free >> 30, part / 10, part % 10);
    let advice = "dyno images and dyno rmi make room; what dynos write is in dyno stats";
    if part < NOTHING {
        return HostCheck::failure(NAME, text).advise(advice);
    }
    if part < LITTLE && free < 10 * AN_IMAGE || free < AN_IMAGE {
        return HostCheck::warning(NAME, text).advise(advice);
    }
    HostCheck::ok(NAME, text)
}

fn inodes(found: &StatFs) -> HostCheck {
    const NAME: &str = "inodes";
    // btrfs and others have no table of them.
    if found.f_files == 0 {
        return HostCheck::ok(NAME, "no limit");
    }
    let part = thousandths(found.f_ffree, found.f_files);
    let text = format!("{} free, {}.{} %", found.f_ffree, part / 10, part % 10);
    let advice = "images of many small files use them up: dyno rmi removes some";
    match part {
        part if part < NOTHING => HostCheck::failure(NAME, text).advise(advice),
        part if part < LITTLE => HostCheck::warning(NAME, text).advise(advice),
        _ => HostCheck::ok(NAME, text),
    }
}

/// Nobody needs them who does not ask for a limit.
fn quotas(folder: &Path) -> HostCheck {
    const NAME: &str = "disk limits";
    let enforced = File::open(folder).is_ok_and(|folder| quota::is_enforced(folder.as_fd()));
    let text = match enforced {
        true => "what dynos write and volumes hold can be limited",
        false => {
            "none: `--disk` and quotas of volumes are refused, as the file system is not XFS \
             or ext4, or not mounted with `prjquota`"
        }
    };
    HostCheck::ok(NAME, text.to_owned())
}

fn thousandths(part: u64, whole: u64) -> u64 {
    match whole {
        0 => 0,
        whole => u64::try_from(u128::from(part) * 1000 / u128::from(whole)).unwrap_or(1000),
    }
}

#[cfg(test)]
mod tests {
    use dyno_api::doctor::CheckState::{Failure, Ok, Warning};

    use super::*;

    fn with(change: impl FnOnce(&mut StatFs)) -> StatFs {
        let mut found = statfs("/").unwrap();
        found.f_type = 0xef53;
        found.f_frsize = 4096;
        found.f_blocks = 100 << 18;
        found.f_bavail = 50 << 18;
        found.f_files = 1_000_000;
        found.f_ffree = 500_000;
        change(&mut found);
        found
    }

    #[test]
    fn what_is_left_is_a_part_and_an_amount() {
        assert_eq!(space(&with(|_| ())).state, Ok);
        assert_eq!(space(&with(|_| ())).found, "50 GiB free, 50.0 %");
        assert_eq!(
            space(&with(|found| found.f_bavail = 5 << 18)).state,
            Warning
        );
        assert_eq!(
            space(&with(|found| found.f_bavail = 1 << 17)).state,
            Failure
        );
        // Two percent of a petabyte are enough.
        let large = with(|found| (found.f_blocks, found.f_bavail) = (1 << 38, 1 << 32));
        assert_eq!(space(&large).state, Ok);
        assert_eq!(inodes(&with(|found| found.f_ffree = 50_000)).state, Warning);
        assert_eq!(inodes(&with(|found| found.f_ffree = 5000)).state, Failure);
        assert_eq!(inodes(&with(|found| found.f_files = 0)).state, Ok);
    }

    #[test]
    fn layers_lie_on_some_file_systems() {
        let of = |magic| kind(Path::new("/x"), &with(|found| found.f_type = magic)).state;
        assert_eq!(of(0xef53), Ok);
        assert_eq!(of(0x6969), Failure);
        assert_eq!(of(TMPFS), Warning);
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_looked_at_where_it_will_be() {
        let checks = checks(Path::new("/proc/nosuch/folder"));
        assert!(checks[0].found.starts_with("/proc takes"), "{checks:?}");
    }
}
