//! A path of this machine as a tar stream, owned by root.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use tar::{Builder, EntryType, Header};

/// Writes the file or folder as an archive whose top is called `name`. Links in
/// it are kept as links; devices and sockets are left out.
pub(super) fn pack(path: &Path, name: &Path, to: impl Write) -> io::Result<()> {
    let mut archive = Builder::new(BufWriter::with_capacity(64 << 10, to));
    entry(&mut archive, path, name)?;
    archive.into_inner()?.flush()
}

fn entry(archive: &mut Builder<impl Write>, path: &Path, name: &Path) -> io::Result<()> {
    let meta = path.symlink_metadata()?;
    let kind = meta.file_type();
    if kind.is_dir() {
        append(archive, &meta, EntryType::Directory, name, io::empty())?;
        for found in fs::read_dir(path)? {
            let found = found?;
            entry(archive, &found.path(), &name.join(found.file_name()))?;
        }
        return Ok(());
    }
    if kind.is_symlink() {
        let mut header = header(&meta, EntryType::Symlink, 0);
        return archive.append_link(&mut header, name, fs::read_link(path)?);
    }
    if kind.is_fifo() {
        return append(archive, &meta, EntryType::Fifo, name, io::empty());
    }
    if kind.is_file() {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        // One that changes meanwhile has the length that it had when it was opened.
        let content = file.chain(io::repeat(0)).take(meta.len());
        return append(archive, &meta, EntryType::Regular, name, content);
    }
    eprintln!("{} is a device or a socket and left out", path.display());
    Ok(())
}

fn append(
    archive: &mut Builder<impl Write>,
    meta: &Metadata,
    kind: EntryType,
    name: &Path,
    content: impl Read,
) -> io::Result<()> {
    let size = if kind == EntryType::Regular {
        meta.len()
    } else {
        0
    };
    archive.append_data(&mut header(meta, kind, size), name, content)
}

fn header(meta: &Metadata, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(meta.mode() & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
    header
}
