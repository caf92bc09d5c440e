//! Replaces state files so that a crash leaves the old or the new one, whole.

use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use dyno_api::error::{ApiError, ErrorKind};
use dyno_failpoint::failpoint;
use dyno_runtime::replace;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, openat, renameat_with, statvfs, unlinkat,
};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a written record shall survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survives {
    /// A power cut: the file and its folder are synced before the call returns.
    PowerCut,
    /// A crash of this program only; the kernel writes it back in its own time.
    Crash,
}

/// Why a record was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// The file could not be replaced; the old one is still there.
    #[error("cannot write {path}")]
    Write {
        /// The record.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The record.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file was written by another version of hostd.
    #[error("{path} has version {found}; this hostd knows version {known}")]
    Version {
        /// The record.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// That of this hostd.
        known: u32,
    },
    /// The file is not what this version writes.
    #[error("{path} is damaged or of another version")]
    Format {
        /// The record.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl From<DurableError> for ApiError {
    fn from(error: DurableError) -> Self {
        match &error {
            DurableError::Write { path, source } => from_io_at("cannot write", path, source),
            DurableError::Read { .. }
            | DurableError::Version { .. }
            | DurableError::Format { .. } => internal(&error),
        }
    }
}

/// The error for a failed file operation: a full disk is the host's lack, not a fault.
pub fn from_io(operation: &str, source: &io::Error) -> ApiError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ApiError::new(ErrorKind::Exhausted, format!("{operation}: {source}"))
                .hint("free space on that disk (`dyno rm`, `dyno rmi`), then try again")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            ApiError::new(ErrorKind::Exhausted, format!("{operation}: {source}"))
                .hint("the file system is mounted read-only: look at the kernel's log")
        }
        _ if source.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
            ApiError::new(ErrorKind::Exhausted, format!("{operation}: {source}"))
                .hint("the disk fails: look at the kernel's log")
        }
        _ => ApiError::new(ErrorKind::Internal, format!("{operation}: {source}")),
    }
}

/// [`from_io`] for what was done to this path: where a disk is full of files rather than
/// of bytes, that is said.
pub fn from_io_at(operation: &str, path: &Path, source: &io::Error) -> ApiError {
    let error = from_io(&format!("{operation} {}", path.display()), source);
    match is_out_of_inodes(path, source) {
        true => ApiError {
            message: format!("{}: {NO_INODES}", error.message),
            ..error
        }
        .hint("remove files there (`dyno rm`, `dyno rmi`), then try again"),
        false => error,
    }
}

/// The words for a file system that has room, and none for one more file.
pub const NO_INODES: &str = "no inodes are left on that file system";

/// Whether this failed as there is no inode for it. A file system that makes them as it
/// needs them counts none.
pub fn is_out_of_inodes(path: &Path, source: &io::Error) -> bool {
    let there = path.ancestors().find(|path| path.exists());
    let counted = || statvfs(there?).ok();
    source.kind() == io::ErrorKind::StorageFull
        && counted().is_some_and(|counted| counted.f_files > 0 && counted.f_favail == 0)
}

/// The error for a failure of hostd itself, with everything that caused it.
pub fn internal(error: &dyn std::error::Error) -> ApiError {
    ApiError::new(ErrorKind::Internal, chain(error))
}

/// An error and its causes in one sentence.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Replaces the record at `path`, mode 0600.
///
/// # Errors
/// [`DurableError::Write`]; the old record is untouched then.
pub fn write_json<T: Serialize>(
    path: &Path,
    record: &T,
    survives: Survives,
) -> Result<(), DurableError> {
    let bytes = serde_json::to_vec_pretty(record)
        .map_err(io::Error::from)
        .map_err(|source| DurableError::Write {
            path: path.to_owned(),
            source,
        })?;
    write(path, &bytes, survives).map_err(|source| DurableError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Replaces the file at `path`, mode 0600.
///
/// # Errors
/// Whatever the file system says; the old file is untouched then.
pub fn write(path: &Path, bytes: &[u8], survives: Survives) -> io::Result<()> {
    write_mode(path, bytes, 0o600, survives)
}

/// Replaces the file at `path`, with this mode whatever the umask.
///
/// # Errors
/// As [`write()`].
pub fn write_mode(path: &Path, bytes: &[u8], mode: u32, survives: Survives) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = path.with_extension("new");
    let written = write_temporary(&temporary, bytes, mode, survives)
        .inspect(|()| failpoint("record.written"))
        .and_then(|()| put_in_place(&temporary, path, survives));
    if let Err(error) = written {
        match fs::remove_file(&temporary) {
            Err(left) if left.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = %temporary.display(), %left, "a temporary file stays behind");
            }
            _ => {}
        }
        return Err(error);
    }
    failpoint("record.named");
    if survives == Survives::PowerCut {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn put_in_place(temporary: &Path, path: &Path, survives: Survives) -> io::Result<()> {
    match survives {
        Survives::PowerCut => fs::rename(temporary, path),
        Survives::Crash => replace::put_in_place(temporary, path),
    }
}

fn write_temporary(path: &Path, bytes: &[u8], mode: u32, survives: Survives) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    if survives == Survives::PowerCut {
        file.sync_all()?;
    }
    Ok(())
}

/// Removes the file at `path`; a missing one is fine.
///
/// # Errors
/// Whatever the file system says.
pub fn remove(path: &Path, survives: Survives) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed?,
    }
    match (survives, path.parent()) {
        (Survives::PowerCut, Some(folder)) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// The record at `path`; `None` where there is none.
///
/// # Errors
/// [`DurableError`] when it is there and cannot be used.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, DurableError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(DurableError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| DurableError::Format {
            path: path.to_owned(),
            source,
        })
}

/// Removes a folder and all in it; a missing one is fine.
///
/// Only for folders whose whole path is hostd's own. What dynos made inside is removed
/// by descriptor, never through a link (P1), and however deep it is, with few
/// descriptors and little stack (P15): a folder that is too deep is moved up to the top
/// and removed from there. `fs::remove_dir_all` has a descriptor and a stack frame for each.
///
/// # Errors
/// Whatever the file system says.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(meta) if meta.is_symlink() => return fs::remove_file(path),
        Ok(_) => {}
    }
    let mut moved = 0;
    loop {
        let before = moved;
        empty_folder(path, &mut moved)?;
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // Those that were moved up are next.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && moved > before => {}
            removed => return removed,
        }
    }
}

/// How deep a folder may be to be removed where it is.
const DEEPEST: usize = 64;

/// Removes what is in a folder, and moves up to it what is too deep.
fn empty_folder(path: &Path, moved: &mut u64) -> io::Result<()> {
    let open = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::open(path, open, Mode::empty())?;
    // Each with its name in the one before.
    let mut levels = vec![(Dir::read_from(&top)?, CString::default())];
    loop {
        let too_deep = levels.len() >= DEEPEST;
        let Some((folder, _)) = levels.last_mut() else {
            return Ok(());
        };
        let Some(entry) = folder.next() else {
            let name = levels.pop().map(|(_, name)| name).unwrap_or_default();
            if let Some((parent, _)) = levels.last() {
                gone(unlinkat(parent.fd()?, &name, AtFlags::REMOVEDIR))?;
            }
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let within = folder.fd()?;
        if entry.file_type() != FileType::Directory {
            match gone(unlinkat(within, name, AtFlags::empty())) {
                Err(Errno::ISDIR) => {}
                removed => {
                    removed?;
                    continue;
                }
            }
        }
        match gone(unlinkat(within, name, AtFlags::REMOVEDIR)) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            removed => {
                removed?;
                continue;
            }
        }
        if too_deep {
            move_up(within, name, &top, moved)?;
            continue;
        }
        let inner = openat(within, name, open, Mode::empty())?;
        let name = name.to_owned();
        levels.push((Dir::new(inner)?, name));
    }
}

/// Gives a folder a name in the top one that nothing there has.
fn move_up(from: BorrowedFd<'_>, name: &CStr, top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let unused = format!(".deep-{moved}");
        match renameat_with(from, name, top, unused, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            done => return Ok(done?),
        }
    }
}

/// That it is not there any more is what is wanted.
fn gone(removed: Result<(), Errno>) -> Result<(), Errno> {
    match removed {
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn a_tree_deeper_than_any_stack_is_removed() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("tree");
        fs::create_dir(&path).unwrap();
        let mut at = File::open(&path).unwrap();
        for _ in 0..10_000 {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            // A name that those which are moved up would like to have.
            mkdirat(&at, ".deep-1", Mode::RWXU).unwrap();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            at = openat(&at, "d", flags, Mode::empty()).unwrap().into();
        }
        drop(at);
        // As on the threads that hostd removes with.
        let thread = std::thread::Builder::new().stack_size(256 << 10);
        let removal = thread.spawn({
            let path = path.clone();
            move || remove_tree(&path)
        });
        removal.unwrap().join().unwrap().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let top = tempfile::tempdir().unwrap();
        let (path, kept) = (top.path().join("tree"), top.path().join("kept"));
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::create_dir(&kept).unwrap();
        File::create(kept.join("file")).unwrap();
        symlink(&kept, path.join("a/b/link")).unwrap();
        File::create(path.join("a/file")).unwrap();
        remove_tree(&path).unwrap();
        assert!(!path.exists() && kept.join("file").exists());
        symlink(&kept, &path).unwrap();
        remove_tree(&path).unwrap();
        assert!(!path.is_symlink() && kept.join("file").exists());
        remove_tree(&path).unwrap();
        let file = kept.join("file");
        assert!(remove_tree(&file).is_err() && file.exists());
    }

    #[test]
    fn a_failed_write_leaves_the_old_record_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_json(&path, &1, Survives::PowerCut).unwrap();
        fs::create_dir(path.with_extension("new")).unwrap();
        assert!(write_json(&path, &2, Survives::PowerCut).is_err());
        assert_eq!(read_json::<u32>(&path).unwrap(), Some(1));
    }

    #[test]
    fn a_replaced_record_leaves_no_other_file() {
        for survives in [Survives::PowerCut, Survives::Crash] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.json");
            for value in [1, 2, 3] {
                write_json(&path, &value, survives).unwrap();
                assert_eq!(read_json(&path).unwrap(), Some(value), "{survives:?}");
            }
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "{survives:?}");
        }
    }

    #[test]
    fn a_full_disk_is_exhausted_and_says_what_to_try() {
        let error = from_io("cannot write x", &io::Error::from_raw_os_error(28));
        assert_eq!(error.kind, ErrorKind::Exhausted);
        assert!(error.hint.is_some());
    }

    #[test]
    fn a_missing_record_is_none_and_a_damaged_one_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        assert_eq!(read_json::<u32>(&path).unwrap(), None);
        write(&path, b"{", Survives::Crash).unwrap();
        assert!(matches!(
            read_json::<u32>(&path),
            Err(DurableError::Format { .. })
        ));
    }
}
