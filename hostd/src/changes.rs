//! What a dyno has changed of its image's files: its upper layer, read beside
//! the lower ones as overlayfs merges them.
//!
//! The dyno has made these names and may be making more: folders are opened by
//! descriptor and name and nothing is followed (P1), and no file is read.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use dyno_api::dyno::{Change, ChangeKind};
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::DynoId;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tokio::sync::mpsc;

use crate::desired::Record;
use crate::durable::{self, from_io};
use crate::host::{Host, blocking};

/// P15: deeper folders are told, but not what is in them; and those that would take
/// more open folders, where many layers have them.
const MAX_DEPTH: usize = 256;
const MAX_OPEN: usize = 1024;
/// P15: so many names of one folder are told in order; what is more, in lots. Those
/// of deeper folders are smaller: all on the way down are held at once.
const SORTED: usize = 10_000;
/// How overlayfs marks a folder that hides those below it: that of a dyno, whose
/// overlays are mounted with `userxattr`, and the usual one.
const OPAQUE: [&str; 2] = ["user.overlay.opaque", "trusted.overlay.opaque"];

/// The layers of one dyno.
#[derive(Debug)]
pub struct Changes {
    upper: OwnedFd,
    lower: Lower,
}

/// The folders of the lower layers that are merged at one path, topmost first.
#[derive(Debug, Default)]
struct Lower(Vec<OwnedFd>);

/// Nobody listens any more, or a folder cannot be read.
type Told = Result<(), Option<io::Error>>;

impl Changes {
    /// Opens the layers.
    ///
    /// # Errors
    /// NotFound where the dyno is gone; what the file system says.
    pub async fn open(host: &Arc<Host>, id: &DynoId) -> Result<Self, ApiError> {
        let own = host.paths.dyno(id);
        let id = id.clone();
        blocking(move || {
            let gone = || ApiError::new(ErrorKind::NotFound, format!("dyno {id} was removed"));
            let record: Record = durable::read_json(&own.record())?.ok_or_else(gone)?;
            Self::of(&own.upper(), record.image.folders.iter())
                .map_err(|error| from_io("cannot open the layers of the dyno", &error))
        })
        .await
    }

    fn of<'a>(
        upper: &Path,
        lower: impl Iterator<Item = impl AsRef<Path> + 'a>,
    ) -> io::Result<Self> {
        let mut folders = Vec::new();
        for layer in lower {
            let folder = rustix::fs::openat(CWD, layer.as_ref(), FOLDER, Mode::empty())?;
            let hides = is_opaque(&folder);
            folders.push(folder);
            if hides {
                break;
            }
        }
        Ok(Self {
            upper: rustix::fs::openat(CWD, upper, FOLDER, Mode::empty())?,
            lower: Lower(folders),
        })
    }

    /// Tells the changes, a folder before what is in it, until all are told or
    /// nobody listens. Blocks.
    pub fn tell(self, to: &mpsc::Sender<Change>) {
        let mut emit = |change| to.blocking_send(change).map_err(|_gone| None);
        let (path, open) = (&mut Vec::new(), self.lower.0.len() + 1);
        if let Err(Some(error)) = walk(&self.upper, &self.lower, (path, open), &mut emit) {
            tracing::warn!(%error, "the changes of a dyno were not all told");
        }
    }
}

fn walk(
    upper: &OwnedFd,
    lower: &Lower,
    (path, open): (&mut Vec<Vec<u8>>, usize),
    emit: &mut impl FnMut(Change) -> Told,
) -> Told {
    let opaque = !path.is_empty() && is_opaque(upper);
    in_lots(upper, path.len(), |name| {
        let Some(stat) = look(upper, &name).map_err(failed)? else {
            return Ok(());
        };
        path.push(name);
        one(upper, &stat, lower, (path, open), emit)?;
        path.pop();
        Ok(())
    })?;
    if !opaque {
        return Ok(());
    }
    for (index, layer) in lower.0.iter().enumerate() {
        let above = &lower.0[..index];
        in_lots(layer, path.len(), |name| {
            let hidden = is_in_one_of(above, &name).map_err(failed)?
                || look(upper, &name).map_err(failed)?.is_some()
                || lower.look(&name).map_err(failed)?.is_none();
            if !hidden {
                path.push(name);
                emit(change(ChangeKind::Deleted, path))?;
                path.pop();
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Hands on the names in a folder, in order as far as they fit into one lot.
fn in_lots(folder: &OwnedFd, depth: usize, mut each: impl FnMut(Vec<u8>) -> Told) -> Told {
    let lot = SORTED / (depth + 1);
    let mut entries = Dir::read_from(folder).map_err(failed)?;
    loop {
        let mut names = Vec::new();
        while names.len() < lot
            && let Some(entry) = entries.next()
        {
            let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        if names.is_empty() {
            return Ok(());
        }
        names.sort_unstable();
        names.into_iter().try_for_each(&mut each)?;
    }
}

/// One name of an upper folder, the last of the path.
fn one(
    parent: &OwnedFd,
    stat: &Stat,
    lower: &Lower,
    (path, open): (&mut Vec<Vec<u8>>, usize),
    emit: &mut impl FnMut(Change) -> Told,
) -> Told {
    let name = path.last().cloned().unwrap_or_default();
    let before = lower.look(&name).map_err(failed)?;
    if is_whiteout(stat) {
        return match before {
            Some(_) => emit(change(ChangeKind::Deleted, path)),
            None => Ok(()),
        };
    }
    emit(change(
        match before {
            Some(_) => ChangeKind::Changed,
            None => ChangeKind::Added,
        },
        path,
    ))?;
    let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    // Its own, that of its names, and those of the layers.
    let open = open + 2 + lower.0.len();
    if !is_folder || path.len() >= MAX_DEPTH || open > MAX_OPEN {
        return Ok(());
    }
    let folder = match open_folder(parent, &name) {
        Ok(folder) => folder,
        // It has gone, or become something else.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
    };
    let below = match before {
        Some(FileType::Directory) => lower.inside(&name).map_err(failed)?,
        _ => Lower::default(),
    };
    walk(&folder, &below, (path, open), emit)
}

impl Lower {
    /// What has this name below, seen through whiteouts.
    fn look(&self, name: &[u8]) -> Result<Option<FileType>, Errno> {
        for layer in &self.0 {
            if let Some(stat) = look(layer, name)? {
                let kind = FileType::from_raw_mode(stat.st_mode);
                return Ok((!is_whiteout(&stat)).then_some(kind));
            }
        }
        Ok(None)
    }

    /// The folders of this name.
    fn inside(&self, name: &[u8]) -> Result<Self, Errno> {
        let mut folders = Vec::new();
        for layer in &self.0 {
            match look(layer, name)? {
                None => continue,
                Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
                Some(_) => break,
            }
            let folder = open_folder(layer, name)?;
            let hides = is_opaque(&folder);
            folders.push(folder);
            if hides {
                break;
            }
        }
        Ok(Self(folders))
    }
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn open_folder(parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(parent, name, FOLDER, Mode::empty())
}

fn look(parent: &OwnedFd, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn is_in_one_of(layers: &[OwnedFd], name: &[u8]) -> Result<bool, Errno> {
    for layer in layers {
        if look(layer, name)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A character device 0/0: how overlayfs says that there is nothing.
fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_opaque(folder: &OwnedFd) -> bool {
    let mut value = [0; 1];
    OPAQUE.iter().any(|name| {
        let got = rustix::fs::fgetxattr(folder, *name, &mut value);
        matches!(got, Ok(1)) && value == *b"y"
    })
}

fn change(kind: ChangeKind, path: &[Vec<u8>]) -> Change {
    let mut text = Vec::new();
    for part in path {
        text.push(b'/');
        text.extend_from_slice(part);
    }
    let path = String::from_utf8_lossy(&text).into_owned();
    Change { kind, path }
}

fn failed(errno: Errno) -> Option<io::Error> {
    Some(errno.into())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{XattrFlags, mknodat, setxattr};

    use super::*;

    fn told(folder: &Path) -> Vec<String> {
        let layers = ["top", "bottom"].map(|name| folder.join(name));
        let changes = Changes::of(&folder.join("upper"), layers.iter()).unwrap();
        let (to, mut from) = mpsc::channel(100);
        changes.tell(&to);
        drop(to);
        std::iter::from_fn(|| from.blocking_recv())
            .map(|change| format!("{:?} {}", change.kind, change.path))
            .collect()
    }

    /// Needs root: nobody else may make an overlay's marks.
    #[test]
    fn layers_are_told_as_overlayfs_merges_them() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let file = |path: &str| {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::File::create(path).unwrap();
        };
        let whiteout = |path: &str| {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        };
        let opaque = |path: &str| {
            setxattr(folder.join(path), OPAQUE[0], b"y", XattrFlags::empty()).unwrap();
        };
        for path in [
            "bottom/etc/a",
            "bottom/etc/gone",
            "bottom/old/x",
            "bottom/again/y",
        ] {
            file(path);
        }
        whiteout("top/etc/gone");
        file("top/old/z");
        opaque("top/old");
        file("top/again/w");
        // A file changed, one added where one had gone before, one deleted that is
        // in no layer any more, one deleted indeed, and a folder made anew.
        file("upper/etc/a");
        file("upper/etc/gone");
        whiteout("upper/old/x");
        whiteout("upper/old/z");
        file("upper/again/y");
        opaque("upper/again");
        file("upper/new/deep/file");
        std::os::unix::fs::symlink("/", folder.join("upper/new/link")).unwrap();
        let expected = [
            "Changed /again",
            "Changed /again/y",
            "Deleted /again/w",
            "Changed /etc",
            "Changed /etc/a",
            "Added /etc/gone",
            "Added /new",
            "Added /new/deep",
            "Added /new/deep/file",
            "Added /new/link",
            "Changed /old",
            "Deleted /old/z",
        ];
        assert_eq!(told(folder), expected);
    }
}
