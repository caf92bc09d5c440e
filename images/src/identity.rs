//! Who `user[:group]` is, by the image's own passwd and group files.
//!
//! P7: nothing of the image runs and no library of it is asked. Its two files are opened beneath
//! its root, must be regular, and are read up to 1 MiB; links, devices and fifos are refused,
//! not followed. P11: digits are always a uid, and numbers parse strictly.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// P7: bytes of a passwd or group file.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The largest id inside a dyno.
const MAX_ID: u32 = 65_535;
/// `NGROUPS_MAX` of the kernel.
const MAX_GROUPS: usize = 65_536;

/// The identity that a process of a dyno starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups: exactly these.
    pub additional_gids: Vec<u32>,
    /// Home folder according to passwd, for `HOME`.
    pub home: Option<String>,
    /// Name according to passwd, for `USER`.
    pub name: Option<String>,
}

/// Why a user cannot be determined.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No such user.
    #[error("the image has no user `{0}`; use a number, or a name that its /etc/passwd has")]
    NoUser(String),
    /// No such group.
    #[error("the image has no group `{0}`; use a number, or a name that its /etc/group has")]
    NoGroup(String),
    /// An id that a dyno does not have.
    #[error("the id {0} is too large: a dyno has the ids 0 to 65535")]
    TooLarge(String),
    /// Not `user[:group]`.
    #[error("`{0}` is not user[:group]")]
    Syntax(String),
    /// The file is there but is not usable.
    #[error("cannot read /{file} of the image")]
    Read {
        /// Which file.
        file: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// The passwd and group files of an image; missing ones are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    passwd: Vec<u8>,
    group: Vec<u8>,
}

impl Accounts {
    /// Reads the accounts of an image that is not mounted: from its layers' folders, topmost
    /// first ([`crate::Image::layer_dirs`]), with whiteouts and opaque folders heeded as
    /// overlayfs does.
    ///
    /// # Errors
    /// If a file is there but is not a plain, small file in a plain `/etc`.
    pub fn of_layers(layers: &[PathBuf]) -> Result<Accounts, IdentityError> {
        Accounts::read(|name| {
            for layer in layers {
                match in_layer(layer, name)? {
                    InLayer::File(content) => return Ok(content),
                    InLayer::Hidden => return Ok(Vec::new()),
                    InLayer::Absent => {}
                }
            }
            Ok(Vec::new())
        })
    }

    /// Reads the accounts of a mounted root file system, where symlinks lead within it: `/etc`
    /// may be one, the files themselves may not.
    ///
    /// # Errors
    /// As [`Accounts::of_layers`].
    pub fn of_root(root: impl AsFd) -> Result<Accounts, IdentityError> {
        let confined = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Accounts::read(|name| {
            match rustix::fs::openat2(&root, "etc", flags, Mode::empty(), confined) {
                Ok(etc) => match open_regular(&etc, name)? {
                    Some(file) => read_bounded(file),
                    None => Ok(Vec::new()),
                },
                Err(Errno::NOENT) => Ok(Vec::new()),
                Err(errno) => Err(errno.into()),
            }
        })
    }

    fn read(file: impl Fn(&str) -> io::Result<Vec<u8>>) -> Result<Accounts, IdentityError> {
        let failed = |file| move |source| IdentityError::Read { file, source };
        Ok(Accounts {
            passwd: file("passwd").map_err(failed("etc/passwd"))?,
            group: file("group").map_err(failed("etc/group"))?,
        })
    }

    /// Looks up `user[:group]`; an empty user is root. Without a group, a known user has the
    /// groups of passwd and group, and an unknown number has group 0 and no others.
    ///
    /// # Errors
    /// If a name is unknown or a number too large.
    pub fn identity(&self, user: &str) -> Result<Identity, IdentityError> {
        let (user, group) = match user.split_once(':') {
            Some((_, group)) if group.is_empty() || group.contains(':') => {
                return Err(IdentityError::Syntax(user.to_owned()));
            }
            Some((user, group)) => (user, Some(group)),
            None => (user, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let number = number(user)?;
        let account = self.account(|account| match number {
            Some(uid) => account.uid == uid,
            None => account.name == user.as_bytes(),
        });
        let mut identity = match (&account, number) {
            (Some(account), _) => Identity {
                uid: account.uid,
                gid: account.gid,
                additional_gids: Vec::new(),
                home: text(account.home),
                name: text(account.name),
            },
            (None, Some(uid)) => Identity {
                uid,
                ..Identity::default()
            },
            (None, None) => return Err(IdentityError::NoUser(user.to_owned())),
        };
        match (group, &account) {
            // P11: whoever names a group gets that one and no others.
            (Some(group), _) => identity.gid = self.gid(group)?,
            (None, Some(account)) => {
                identity.additional_gids = self.groups_of(account.name, account.gid)
            }
            (None, None) => {}
        }
        Ok(identity)
    }

    fn account(&self, wanted: impl Fn(&Account<'_>) -> bool) -> Option<Account<'_>> {
        lines(&self.passwd).filter_map(Account::parse).find(wanted)
    }

    fn gid(&self, group: &str) -> Result<u32, IdentityError> {
        if let Some(gid) = number(group)? {
            return Ok(gid);
        }
        let found = self.groups().find(|(name, ..)| *name == group.as_bytes());
        found
            .map(|(_, gid, _)| gid)
            .ok_or_else(|| IdentityError::NoGroup(group.to_owned()))
    }

    fn groups_of(&self, user: &[u8], primary: u32) -> Vec<u32> {
        let is_member = |members: &[u8]| members.split(|b| *b == b',').any(|name| name == user);
        let mut gids: Vec<u32> = self
            .groups()
            .filter(|(_, gid, members)| *gid != primary && is_member(members))
            .map(|(_, gid, _)| gid)
            .collect();
        gids.sort_unstable();
        gids.dedup();
        gids.truncate(MAX_GROUPS);
        gids
    }

    /// Name, gid and members of each well-formed line of group(5).
    fn groups(&self) -> impl Iterator<Item = (&[u8], u32, &[u8])> {
        lines(&self.group).filter_map(|line| {
            let mut fields = line.split(|b| *b == b':');
            let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
            Some((name, id(gid)?, fields.next().unwrap_or_default()))
        })
    }
}

/// A line of passwd(5).
#[derive(Debug)]
struct Account<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

impl<'a> Account<'a> {
    /// A malformed line is no account, as for libc.
    fn parse(line: &'a [u8]) -> Option<Account<'a>> {
        let mut fields = line.split(|b| *b == b':');
        let (name, _, uid, gid) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        let home = fields.nth(1).unwrap_or_default();
        (!name.is_empty()).then_some(Account {
            name,
            uid: id(uid)?,
            gid: id(gid)?,
            home,
        })
    }
}

fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|b| *b == b'\n')
}

fn text(field: &[u8]) -> Option<String> {
    let text = str::from_utf8(field).ok()?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// P11: digits are always a number, whatever name a user may have; and only digits are.
fn number(text: &str) -> Result<Option<u32>, IdentityError> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match id(text.as_bytes()) {
        Some(id) => Ok(Some(id)),
        None => Err(IdentityError::TooLarge(text.chars().take(40).collect())),
    }
}

/// Strictly digits, strictly within a dyno's ids: `+0`, ` 0` and 2³² are not root.
fn id(field: &[u8]) -> Option<u32> {
    let digits = !field.is_empty() && field.iter().all(u8::is_ascii_digit);
    let id = if digits {
        str::from_utf8(field).ok()?.parse().ok()?
    } else {
        return None;
    };
    (id <= MAX_ID).then_some(id)
}

/// What one layer has to say about a file in `/etc`.
enum InLayer {
    File(Vec<u8>),
    /// Nothing, and layers below do not count.
    Hidden,
    Absent,
}

fn in_layer(layer: &Path, name: &str) -> io::Result<InLayer> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(layer, flags, Mode::empty())?;
    match kind(&root, "etc")? {
        None => return Ok(InLayer::Absent),
        Some(FileType::CharacterDevice) => return Ok(InLayer::Hidden),
        Some(FileType::Directory) => {}
        Some(_) => return Err(io::Error::other("/etc is not a folder")),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let etc = rustix::fs::openat(&root, "etc", flags, Mode::empty())?;
    match kind(&etc, name)? {
        Some(FileType::CharacterDevice) => Ok(InLayer::Hidden),
        Some(_) => match open_regular(&etc, name)? {
            Some(file) => Ok(InLayer::File(read_bounded(file)?)),
            None => Ok(InLayer::Absent),
        },
        None if is_opaque(&etc)? => Ok(InLayer::Hidden),
        None => Ok(InLayer::Absent),
    }
}

/// What a name is, following nothing.
fn kind(folder: impl AsFd, name: &str) -> io::Result<Option<FileType>> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn is_opaque(folder: impl AsFd) -> io::Result<bool> {
    let mut value = [0; 8];
    match rustix::fs::fgetxattr(folder, "user.overlay.opaque", &mut value) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// P7: pinned first, looked at, and only a regular file is then read. Opening a device or a fifo
/// already has effects, so that comes after the look, with `O_NONBLOCK` for the case of a swap.
fn open_regular(folder: impl AsFd, name: &str) -> io::Result<Option<OwnedFd>> {
    match kind(&folder, name)? {
        None => return Ok(None),
        Some(FileType::RegularFile) => {}
        Some(_) => return Err(io::Error::other("it is not a regular file")),
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(Some(file)),
        _ => Err(io::Error::other("it is not a regular file")),
    }
}

fn read_bounded(file: OwnedFd) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::from(file)
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut content)?;
    match content.len() as u64 > MAX_FILE_BYTES {
        true => Err(io::Error::other("it has more than 1 MiB")),
        false => Ok(content),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn accounts() -> Accounts {
        Accounts {
            passwd: b"root:x:0:0:root:/root:/bin/sh\n\
                www:x:33:33::/var/www:/bin/false\n\
                1000:x:7:7::/seven:\n\
                broken\nminus:x:-1:0::/:\nplus:x:+0:0::/:\nspace:x: 0:0::/:\n\
                wrap:x:4294967296:0::/:\nhuge:x:70000:0::/:\n"
                .to_vec(),
            group: b"root:x:0:\nwww:x:33:\nmail:x:8:www,other\nadm:x:4:www\nxwww:x:9:xwww\n"
                .to_vec(),
        }
    }

    fn ids(user: &str) -> (u32, u32, Vec<u32>) {
        let identity = accounts().identity(user).unwrap();
        (identity.uid, identity.gid, identity.additional_gids)
    }

    #[test]
    fn names_and_numbers_resolve_as_documented() {
        assert_eq!(ids(""), (0, 0, vec![]));
        assert_eq!(ids("www"), (33, 33, vec![4, 8]));
        assert_eq!(ids("33"), (33, 33, vec![4, 8]));
        assert_eq!(ids("www:mail"), (33, 8, vec![]));
        assert_eq!(ids("www:12"), (33, 12, vec![]));
        assert_eq!(ids("4242"), (4242, 0, vec![]));
        assert_eq!(
            accounts().identity("www").unwrap().home.unwrap(),
            "/var/www"
        );
    }

    // P11
    #[test]
    fn digits_are_a_uid_even_if_a_user_has_that_name() {
        assert_eq!(ids("1000"), (1000, 0, vec![]));
    }

    // P11: none of these is root.
    #[test]
    fn numbers_parse_strictly() {
        for user in [
            "-1", "+0", " 0", "0x0", "0 ", "plus", "minus", "space", "wrap", "huge", "nobody",
            "broken",
        ] {
            assert!(
                matches!(accounts().identity(user), Err(IdentityError::NoUser(_))),
                "{user}"
            );
        }
        for user in ["65536", "4294967296", "99999999999999999999"] {
            assert!(
                matches!(accounts().identity(user), Err(IdentityError::TooLarge(_))),
                "{user}"
            );
        }
        for user in ["a:", ":", "0:0:0"] {
            assert!(
                matches!(accounts().identity(user), Err(IdentityError::Syntax(_))),
                "{user}"
            );
        }
        assert!(matches!(
            accounts().identity("0:nogroup"),
            Err(IdentityError::NoGroup(_))
        ));
    }

    fn layer(files: &[(&str, &str)]) -> tempfile::TempDir {
        let layer = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = layer.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            write(&path, content);
        }
        layer
    }

    fn write(path: &Path, content: &str) {
        use std::io::Write;
        File::create(path)
            .unwrap()
            .write_all(content.as_bytes())
            .unwrap();
    }

    fn whiteout(path: &Path) {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path,
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        )
        .unwrap();
    }

    fn of(layers: &[&tempfile::TempDir]) -> Result<Accounts, IdentityError> {
        let paths: Vec<PathBuf> = layers.iter().map(|layer| layer.path().to_owned()).collect();
        Accounts::of_layers(&paths)
    }

    #[test]
    fn the_topmost_layer_that_knows_the_file_counts() {
        let top = layer(&[("etc/passwd", "a:x:1:1::/:")]);
        let bottom = layer(&[("etc/passwd", "a:x:2:2::/:"), ("etc/group", "g:x:5:a")]);
        let identity = of(&[&top, &bottom]).unwrap().identity("a").unwrap();
        assert_eq!((identity.uid, identity.additional_gids), (1, vec![5]));
    }

    #[test]
    fn whiteouts_and_opaque_folders_hide_lower_layers() {
        let bottom = layer(&[("etc/passwd", "a:x:2:2::/:")]);
        let file_gone = layer(&[("etc/x", "")]);
        whiteout(&file_gone.path().join("etc/passwd"));
        let folder_gone = layer(&[]);
        whiteout(&folder_gone.path().join("etc"));
        let opaque = layer(&[("etc/x", "")]);
        rustix::fs::setxattr(
            opaque.path().join("etc"),
            "user.overlay.opaque",
            b"y",
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        for top in [file_gone, folder_gone, opaque] {
            let accounts = of(&[&top, &bottom]).unwrap();
            assert!(matches!(
                accounts.identity("a"),
                Err(IdentityError::NoUser(_))
            ));
        }
        let beside = layer(&[("etc/x", "")]);
        assert_eq!(
            of(&[&beside, &bottom]).unwrap().identity("a").unwrap().uid,
            2
        );
    }

    // P7
    #[test]
    fn only_small_regular_files_are_read() {
        let outside = layer(&[("secret", "a:x:0:0::/:")]);
        let link = layer(&[("etc/x", "")]);
        symlink(
            outside.path().join("secret"),
            link.path().join("etc/passwd"),
        )
        .unwrap();
        let folder_link = layer(&[]);
        symlink(outside.path(), folder_link.path().join("etc")).unwrap();
        let fifo = layer(&[("etc/x", "")]);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            fifo.path().join("etc/passwd"),
            FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        let big = layer(&[("etc/passwd", &"x".repeat((1 << 20) + 1))]);
        for bad in [&link, &folder_link, &fifo, &big] {
            assert!(matches!(of(&[bad]), Err(IdentityError::Read { .. })));
        }
        for bad in [&link, &fifo, &big] {
            let root = File::open(bad.path()).unwrap();
            assert!(matches!(
                Accounts::of_root(&root),
                Err(IdentityError::Read { .. })
            ));
        }
        // Positive control: the same read works on a plain file.
        let plain = layer(&[("etc/passwd", "a:x:3:3::/:")]);
        let root = File::open(plain.path()).unwrap();
        assert_eq!(
            Accounts::of_root(&root).unwrap().identity("a").unwrap().uid,
            3
        );
    }
}
