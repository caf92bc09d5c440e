//! A tar stream put among the files there are: the inside of `dyno-unpack place`, which runs
//! among a dyno's files (`dyno-runtime inside`).
//!
//! Where the path is a folder, the archive goes into it. Else the archive has one top, which
//! becomes the path; the folder it is in must be there. What is there makes place for what has
//! its name, but no folder for a file and no file for a folder.

use std::io::Read;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Summary;
use super::archive::{Archive, Member};
use super::error::Refusal;
use super::layer::Layer;
use super::stream::Stream;
use crate::limits::Limits;

/// P15: what an archive may hold; how much, the dyno's disk decides.
const LIMITS: Limits = Limits {
    bytes: 1 << 50,
    entries: 10_000_000,
    depth: 512,
    path_bytes: 4096,
};

pub(super) fn place(path: &str, input: impl Read + 'static) -> Result<Summary, Refusal> {
    rustix::process::umask(Mode::empty());
    let (root, top) = target(path)?;
    let stream = Stream::new(input, LIMITS.bytes, |_| Ok(())).map_err(Refusal::Stream)?;
    let mut archive = Archive::new(stream);
    let mut layer = Layer::plain(root, LIMITS);
    let mut renamed = top.map(Renamed::new);
    while let Some(mut member) = archive.next()? {
        if let Some(renamed) = &mut renamed {
            renamed.apply(&mut member)?;
        }
        layer.apply(&member, &mut archive)?;
    }
    let digest = archive.finish()?;
    layer.finish(digest)
}

/// The folder that the archive goes into, and what its top is called there.
fn target(path: &str) -> Result<(std::os::fd::OwnedFd, Option<Vec<u8>>), Refusal> {
    let open = |path: &str| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
    };
    let failed = |errno| Refusal::writing("open", path.as_bytes())(errno);
    let missing = match open(path) {
        Ok(folder) => return Ok((folder, None)),
        Err(errno @ (Errno::NOENT | Errno::NOTDIR)) => errno,
        Err(errno) => return Err(failed(errno)),
    };
    match path.rsplit_once('/') {
        Some((parent, name)) if !matches!(name, "" | "." | "..") => {
            let parent = open(if parent.is_empty() { "/" } else { parent }).map_err(failed)?;
            Ok((parent, Some(name.as_bytes().to_vec())))
        }
        _ => Err(failed(missing)),
    }
}

/// Gives the only top of an archive another name.
struct Renamed {
    to: Vec<u8>,
    from: Option<Vec<u8>>,
}

impl Renamed {
    fn new(to: Vec<u8>) -> Self {
        Self { to, from: None }
    }

    fn apply(&mut self, member: &mut Member) -> Result<(), Refusal> {
        let path = self.path(&member.path)?;
        if member.kind == tar::EntryType::Link {
            member.link = self.path(&member.link)?;
        }
        member.path = path;
        Ok(())
    }

    fn path(&mut self, path: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut parts = path
            .split(|byte| *byte == b'/')
            .filter(|part| !matches!(*part, b"" | b"."));
        let Some(top) = parts.next() else {
            return Ok(Vec::new());
        };
        if self.from.get_or_insert_with(|| top.to_vec()) != top {
            return Err(Refusal::entry(
                path,
                "the archive has more than one top, and there is no folder for them",
            ));
        }
        let mut renamed = self.to.clone();
        for part in parts {
            renamed.push(b'/');
            renamed.extend_from_slice(part);
        }
        if path.ends_with(b"/") {
            renamed.push(b'/');
        }
        Ok(renamed)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{self, Write};
    use std::os::unix::fs::symlink;

    use super::*;

    /// An archive of files with these names, which are their content, too.
    fn archive(names: &[&str]) -> io::Cursor<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_size(name.len() as u64);
            header.set_mode(0o644);
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            archive.append(&header, name.as_bytes()).unwrap();
        }
        io::Cursor::new(archive.into_inner().unwrap())
    }

    fn put(folder: &std::path::Path, path: &str, names: &[&str]) -> Result<(), String> {
        let path = folder.join(path).to_string_lossy().into_owned();
        place(&path, archive(names))
            .map(drop)
            .map_err(|refusal| refusal.chain())
    }

    #[test]
    fn an_archive_goes_into_a_folder_or_becomes_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        put(folder.path(), "", &["a", "d/b", ".wh.c"]).unwrap();
        assert_eq!(
            (read("a"), read("d/b"), read(".wh.c")),
            ("a".into(), "d/b".into(), ".wh.c".into())
        );
        put(folder.path(), "new", &["x/1", "./x/2"]).unwrap();
        assert_eq!(read("new/1"), "x/1");
        put(folder.path(), "d/b", &["other"]).unwrap();
        assert_eq!(read("d/b"), "other");
        let refused = put(folder.path(), "more", &["x", "y"]).unwrap_err();
        assert!(refused.contains("more than one top"), "{refused}");
        assert!(put(folder.path(), "no/such", &["x"]).is_err());
    }

    #[test]
    fn nothing_of_another_kind_makes_place_and_nothing_leaves_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let canary = folder.path().join("canary");
        fs::File::create(&canary)
            .unwrap()
            .write_all(b"alive")
            .unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir_all(inner.join("kept/deep")).unwrap();
        symlink(folder.path(), inner.join("out")).unwrap();
        symlink("kept", inner.join("in")).unwrap();
        assert!(put(folder.path(), "inner", &["kept"]).is_err());
        assert!(inner.join("kept/deep").exists());
        for hostile in ["../canary", "/../canary", "out/canary", "in/../../canary"] {
            put(folder.path(), "inner", &[hostile]).ok();
            assert_eq!(fs::read_to_string(&canary).unwrap(), "alive", "{hostile}");
        }
        put(folder.path(), "inner", &["in/file"]).unwrap();
        assert!(inner.join("kept/file").exists());
    }
}
