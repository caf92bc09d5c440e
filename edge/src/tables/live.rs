//! The table in force.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Networks, ParseError};
use crate::causes;
use crate::control::protocol::TablesStatus;

/// No honest table of one host is larger (P15).
const MAX_BYTES: u64 = 16 << 20;

/// The table in force and the file it comes from.
#[derive(Debug)]
pub struct Live {
    folder: OwnedFd,
    file: OsString,
    networks: RefCell<Rc<Networks>>,
    status: RefCell<TablesStatus>,
    /// The refused file that was logged last, to log each only once.
    refused: Cell<Option<FileId>>,
}

/// Which file it is: hostd replaces it whole, so a change is a new inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    inode: u64,
    modified_ns: i64,
}

/// Why the tables were not taken into force.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The path of the tables names no file in a folder.
    #[error("{0:?} is no path of a file")]
    Path(std::path::PathBuf),
    /// The folder or file cannot be opened or looked at.
    #[error("cannot open {path:?}")]
    Open {
        /// Which one.
        path: std::path::PathBuf,
        /// The kernel's answer.
        source: Errno,
    },
    /// The file cannot be read.
    #[error("cannot read the tables")]
    Read(#[from] std::io::Error),
    /// The file is absurdly large.
    #[error("the tables are larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// The file's content is wrong.
    #[error(transparent)]
    Parse(#[from] ParseError),
}

impl Live {
    /// Remembers where the tables are; nothing is read yet.
    ///
    /// # Errors
    /// When the folder does not exist or `path` names no file in one.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let (Some(parent), Some(file)) = (path.parent(), path.file_name()) else {
            return Err(LoadError::Path(path.to_owned()));
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder =
            rustix::fs::open(parent, flags, Mode::empty()).map_err(|source| LoadError::Open {
                path: parent.to_owned(),
                source,
            })?;
        Ok(Self {
            folder,
            file: file.to_owned(),
            networks: RefCell::default(),
            status: RefCell::default(),
            refused: Cell::new(None),
        })
    }

    /// The folder of the tables.
    #[must_use]
    pub fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// The table in force.
    #[must_use]
    pub fn networks(&self) -> Rc<Networks> {
        Rc::clone(&self.networks.borrow())
    }

    /// Which file is in force, and what is wrong with the present one.
    #[must_use]
    pub fn status(&self) -> TablesStatus {
        self.status.borrow().clone()
    }

    /// Reads the file and takes it into force, if it is another one than the
    /// one in force. A broken or vanished file changes nothing but the status.
    pub fn reload(&self) {
        let (id, outcome) = self.load();
        let mut status = self.status.borrow_mut();
        match outcome {
            Ok(None) => status.error = None,
            Ok(Some(networks)) => {
                self.networks.replace(Rc::new(networks));
                status.generation += 1;
                (status.inode, status.modified_ns) =
                    id.map_or((0, 0), |id| (id.inode, id.modified_ns));
                status.error = None;
            }
            Err(error) => {
                let message = causes::line(&error);
                if self.refused.replace(id) != id {
                    tracing::warn!(%message, "the tables stay as they were");
                }
                status.error = Some(message);
            }
        }
    }

    /// The networks of the file, `None` where nothing has changed.
    fn load(&self) -> (Option<FileId>, Result<Option<Networks>, LoadError>) {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let open_error = |source| LoadError::Open {
            path: Path::new(&self.file).to_owned(),
            source,
        };
        let file = match rustix::fs::openat(&self.folder, &self.file, flags, Mode::empty()) {
            Ok(file) => file,
            // Before hostd wrote any, there are no networks.
            Err(Errno::NOENT) if self.status.borrow().generation == 0 => return (None, Ok(None)),
            Err(source) => return (None, Err(open_error(source))),
        };
        let stat = match rustix::fs::fstat(&file) {
            Ok(stat) => stat,
            Err(source) => return (None, Err(open_error(source))),
        };
        let id = FileId {
            inode: stat.st_ino,
            modified_ns: modified_ns(&stat),
        };
        let status = self.status.borrow();
        if (status.inode, status.modified_ns) == (id.inode, id.modified_ns) {
            return (Some(id), Ok(None));
        }
        (
            Some(id),
            read(file).and_then(|json| Ok(Some(Networks::parse(&json)?))),
        )
    }
}

fn modified_ns(stat: &rustix::fs::Stat) -> i64 {
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    stat.st_mtime
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

fn read(file: OwnedFd) -> Result<Vec<u8>, LoadError> {
    let mut json = Vec::new();
    std::fs::File::from(file)
        .take(MAX_BYTES + 1)
        .read_to_end(&mut json)?;
    if json.len() as u64 > MAX_BYTES {
        return Err(LoadError::TooLarge);
    }
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = r#"{"version":1,"upstreams":[],"networks":{}}"#;

    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("dyno-edge-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn tables(&self) -> std::path::PathBuf {
            self.0.join("tables.json")
        }

        fn put(&self, json: &str) {
            let temporary = self.0.join("new");
            std::fs::File::create(&temporary)
                .and_then(|mut file| std::io::Write::write_all(&mut file, json.as_bytes()))
                .unwrap();
            std::fs::rename(temporary, self.tables()).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            if let Err(error) = std::fs::remove_dir_all(&self.0) {
                eprintln!("{}: {error}", self.0.display());
            }
        }
    }

    #[test]
    fn a_missing_file_is_an_empty_table_until_it_appears() {
        let folder = Folder::new("missing");
        let live = Live::open(&folder.tables()).unwrap();
        live.reload();
        assert_eq!(live.status(), TablesStatus::default());
        folder.put(EMPTY);
        live.reload();
        assert_eq!((live.status().generation, live.status().error), (1, None));
        live.reload();
        assert_eq!(
            live.status().generation,
            1,
            "the same file is not taken twice"
        );
    }

    #[test]
    fn a_broken_or_vanished_file_leaves_the_old_table_in_force() {
        let folder = Folder::new("broken");
        let live = Live::open(&folder.tables()).unwrap();
        folder.put(r#"{"version":1,"upstreams":["192.0.2.1:53"],"networks":{}}"#);
        live.reload();
        folder.put("{broken");
        live.reload();
        assert_eq!(live.networks().upstreams().len(), 1);
        assert!(
            live.status().error.unwrap().starts_with("not a table: "),
            "with its cause"
        );
        std::fs::remove_file(folder.tables()).unwrap();
        live.reload();
        assert_eq!(live.networks().upstreams().len(), 1);
        assert!(live.status().error.is_some());
        folder.put(EMPTY);
        live.reload();
        assert_eq!((live.status().generation, live.status().error), (2, None));
        assert!(live.networks().upstreams().is_empty());
    }
}
