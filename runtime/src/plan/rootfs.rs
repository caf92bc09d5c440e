//! The root file system as one detached mount, prepared by the parent, which
//! may do what the child in its user namespace may not.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, chownat, mkdirat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    move_mount, open_tree, unmount,
};

use super::options::Options;
use super::{PlanError, SpecError};
use crate::sys::mount::mount_idmap;

/// A copy of the mounts at `source`, detached.
pub(crate) fn detached_tree(source: &Path, recursive: bool) -> Result<OwnedFd, PlanError> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, source, flags).map_err(|source_error| PlanError::Prepare {
        what: "take",
        subject: source.display().to_string(),
        source: source_error,
    })
}

/// No overlay has more lower layers: `OVL_MAX_STACK` of the kernel.
const LAYERS_MAX: usize = 500;

/// `mount(2)` reads one page of options.
const OPTIONS_MAX: usize = 4096;

/// What an overlay is made of (kernel docs, `filesystems/overlayfs.rst`).
#[derive(Debug)]
struct Layers {
    /// Topmost first.
    lower: Vec<PathBuf>,
    /// The folder that holds `upper` and `work`, and their names in it.
    upper: Option<(PathBuf, CString, CString)>,
    /// Further parameters.
    rest: Vec<(CString, Option<CString>)>,
}

/// An overlay to be mounted as the root.
#[derive(Debug)]
pub(crate) struct Overlay {
    layers: Layers,
    /// A folder to build it on, which nobody else may be using.
    scratch: PathBuf,
    /// Host ids of the container's root.
    owner: (Uid, Gid),
}

/// Mounts an overlay, each lower layer shown through the mappings of the user
/// namespace, and returns it detached.
///
/// The upper folder is not mapped: the kernel creates files in it as whoever
/// mounts, and the host's root has no id there. So it holds host ids, and its
/// top is given to the container's root here.
///
/// Linux 6.1 takes layers only by path and idmapped ones only where they are
/// attached. So they are attached below a tmpfs at `scratch`, under names of one
/// to three characters, and named relative to it. And it is made by `mount(2)`,
/// which takes a page of options where `fsconfig(2)` takes 255 bytes, enough for
/// 90 layers. The caller's mount namespace must be its own and must not propagate.
impl Overlay {
    pub(super) fn new(
        options: Options,
        scratch: &Path,
        owner: (Uid, Gid),
    ) -> Result<Self, PlanError> {
        Ok(Self {
            layers: Layers::from_options(options)?,
            scratch: scratch.to_owned(),
            owner,
        })
    }

    pub(super) fn mount(
        &self,
        user_namespace: Option<BorrowedFd<'_>>,
    ) -> Result<OwnedFd, PlanError> {
        let scratch = &self.scratch;
        let tmpfs = empty_tmpfs().map_err(|source| prepare("make a tmpfs for", scratch, source))?;
        move_mount(
            tmpfs.as_fd(),
            c"",
            CWD,
            scratch,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .map_err(|source| prepare("mount a tmpfs on", scratch, source))?;
        let overlay = self.assemble(tmpfs.as_fd(), user_namespace);
        // The overlay holds private copies of its layers: the scaffold can go.
        unmount(scratch, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
            .map_err(|source| prepare("unmount", scratch, source))?;
        overlay
    }

    fn assemble(
        &self,
        tmpfs: BorrowedFd<'_>,
        user_namespace: Option<BorrowedFd<'_>>,
    ) -> Result<OwnedFd, PlanError> {
        let layers = &self.layers;
        let mut lower = String::new();
        for (index, folder) in layers.lower.iter().enumerate() {
            let name = format!("{index:x}");
            let tree = detached_tree(folder, false)?;
            if let Some(user_namespace) = user_namespace {
                mount_idmap(tree.as_fd(), false, user_namespace)
                    .map_err(|source| prepare("map the owners of", folder, source))?;
            }
            attach(tree, tmpfs, &name)
                .map_err(|source| prepare("attach the layer", folder, source))?;
            if !lower.is_empty() {
                lower.push(':');
            }
            lower.push_str(&name);
        }
        let mut data = format!("lowerdir={lower}").into_bytes();
        if let Some((folder, upper, work)) = &layers.upper {
            let tree = detached_tree(folder, false)?;
            if user_namespace.is_some() {
                let (uid, gid) = (Some(self.owner.0), Some(self.owner.1));
                chownat(&tree, upper, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|source| prepare("hand over", folder, source))?;
            }
            if layers
                .rest
                .iter()
                .any(|(key, _)| key.as_c_str() == c"volatile")
            {
                forget_last_mount(&tree, work)
                    .map_err(|source| prepare("use again", folder, source))?;
            }
            attach(tree, tmpfs, "upper")
                .map_err(|source| prepare("attach the layer", folder, source))?;
            for (key, name) in [("upperdir", upper), ("workdir", work)] {
                data.extend(format!(",{key}=upper/").bytes());
                data.extend(name.as_bytes());
            }
        }
        for (key, value) in &layers.rest {
            data.push(b',');
            data.extend(key.as_bytes());
            if let Some(value) = value {
                data.push(b'=');
                data.extend(value.as_bytes());
            }
        }
        let overlay = mount_overlay(tmpfs, c_string(data)?);
        overlay.map_err(|source| prepare("mount the overlay of", &layers.lower[0], source))
    }
}

/// A volatile overlay is never synced, and so refuses an upper folder that was
/// used so before: the machine may have crashed in between. Whoever asks for
/// one says that its content need not outlive the machine; a container that is
/// started again in the same boot finds it whole.
fn forget_last_mount(folder: &OwnedFd, work: &CStr) -> Result<(), Errno> {
    let marks = [
        ("incompat/volatile/dirty", AtFlags::empty()),
        ("incompat/volatile", AtFlags::REMOVEDIR),
    ];
    for (mark, flags) in marks {
        let path = [work.to_bytes(), b"/work/", mark.as_bytes()].concat();
        match unlinkat(folder, path.as_slice(), flags) {
            Err(Errno::NOENT) | Ok(()) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Mounts at a folder of the tmpfs, which is ours alone, and takes a copy of that.
fn mount_overlay(tmpfs: BorrowedFd<'_>, data: CString) -> Result<OwnedFd, Errno> {
    // The kernel would read on where its page ends, and understand less.
    if data.as_bytes_with_nul().len() > OPTIONS_MAX {
        return Err(Errno::TOOBIG);
    }
    mkdirat(tmpfs, "merged", Mode::RWXU)?;
    let before = rustix::fs::open(".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    rustix::process::fchdir(tmpfs)?;
    let none = MountFlags::empty();
    let mounted = rustix::mount::mount("overlay", "merged", "overlay", none, data.as_c_str());
    rustix::process::fchdir(before)?;
    mounted?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(tmpfs, "merged", flags)
}

fn attach(tree: OwnedFd, tmpfs: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    mkdirat(tmpfs, name, Mode::RWXU)?;
    move_mount(
        tree,
        c"",
        tmpfs,
        name,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

impl Layers {
    fn from_options(options: Options) -> Result<Self, PlanError> {
        let mut lower = Vec::new();
        let (mut upper, mut work) = (None, None);
        let mut rest = Vec::new();
        for (key, value) in options.data {
            match (key.as_bytes(), value) {
                (b"lowerdir", Some(value)) => lower = split_lower(value.as_bytes()),
                (b"upperdir", Some(value)) => upper = Some(path(value.as_bytes())),
                (b"workdir", Some(value)) => work = Some(path(value.as_bytes())),
                (_, value) => rest.push((key, value)),
            }
        }
        if lower.is_empty() {
            return Err(SpecError::Missing("lowerdir among the overlay's options").into());
        }
        if lower.len() > LAYERS_MAX {
            let found = PathBuf::from(format!("{} folders", lower.len()));
            return Err(invalid("lowerdir", &found, "at most 500 folders"));
        }
        let splits = |text: &CString| text.as_bytes().iter().any(|byte| b",\\".contains(byte));
        if let Some((key, _)) = rest
            .iter()
            .find(|(_, value)| value.as_ref().is_some_and(splits))
        {
            let key = path(key.as_bytes());
            return Err(invalid(
                "an overlay's option",
                &key,
                "a value without , and \\",
            ));
        }
        let upper = match (upper, work) {
            (None, _) => None,
            (Some(upper), Some(work)) => {
                let split = |path: &Path| {
                    let name = path
                        .file_name()
                        .map(|name| name.as_encoded_bytes().to_vec());
                    Some((path.parent()?.to_owned(), c_string(name?).ok()?))
                };
                let both = split(&upper).zip(split(&work));
                let same =
                    both.filter(|((a, one), (b, other))| a == b && !splits(one) && !splits(other));
                let Some(((folder, upper_name), (_, work_name))) = same else {
                    return Err(invalid(
                        "upperdir and workdir",
                        &upper,
                        "names in one folder, without , and \\",
                    ));
                };
                Some((folder, upper_name, work_name))
            }
            (Some(upper), None) => return Err(invalid("upperdir", &upper, "a workdir beside it")),
        };
        Ok(Self { lower, upper, rest })
    }
}

fn invalid(property: &'static str, value: &Path, expected: &'static str) -> PlanError {
    let value = value.display().to_string();
    SpecError::Invalid {
        property,
        value,
        expected,
    }
    .into()
}

/// Splits at colons; a backslash takes the next character's meaning away.
fn split_lower(value: &[u8]) -> Vec<PathBuf> {
    let mut parts = vec![Vec::new()];
    let mut bytes = value.iter();
    while let Some(&byte) = bytes.next() {
        let escaped = (byte == b'\\').then(|| bytes.next()).flatten();
        match (byte, escaped, parts.last_mut()) {
            (b':', None, _) => parts.push(Vec::new()),
            (_, Some(&escaped), Some(part)) => part.push(escaped),
            (_, None, Some(part)) => part.push(byte),
            (_, _, None) => {}
        }
    }
    parts.iter().map(|part| path(part)).collect()
}

fn path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

fn c_string(bytes: Vec<u8>) -> Result<CString, PlanError> {
    CString::new(bytes).map_err(|_nul| PlanError::Nul("a layer's path"))
}

fn prepare(what: &'static str, subject: &Path, source: Errno) -> PlanError {
    PlanError::Prepare {
        what,
        subject: subject.display().to_string(),
        source,
    }
}

fn empty_tmpfs() -> Result<OwnedFd, Errno> {
    let mode = (c"mode".to_owned(), Some(c"700".to_owned()));
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    file_system(c"tmpfs", None, &[mode], attributes)
}

/// A new file system as a detached mount. Allocates nothing: the child uses it too.
pub(crate) fn file_system(
    kind: &std::ffi::CStr,
    source: Option<&std::ffi::CStr>,
    parameters: &[(CString, Option<CString>)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(source) = source {
        fsconfig_set_string(context.as_fd(), c"source", source)?;
    }
    set_parameters(context.as_fd(), parameters)?;
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Sets parameters of a file system that is being made or changed.
pub(crate) fn set_parameters(
    context: BorrowedFd<'_>,
    parameters: &[(CString, Option<CString>)],
) -> Result<(), Errno> {
    for (key, value) in parameters {
        match value {
            Some(value) => fsconfig_set_string(context, key.as_c_str(), value.as_c_str())?,
            None => fsconfig_set_flag(context, key.as_c_str())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_folders_are_split_at_unescaped_colons() {
        let parts = split_lower(br"/a:/b\:c:/d\\e");
        assert_eq!(
            parts,
            [
                PathBuf::from("/a"),
                PathBuf::from("/b:c"),
                PathBuf::from(r"/d\e")
            ]
        );
    }

    #[test]
    fn upper_and_work_must_be_neighbours() {
        let options = |upper: &str, work: &str| {
            let list = [
                format!("upperdir={upper}"),
                format!("workdir={work}"),
                "lowerdir=/l".into(),
            ];
            super::super::options::parse(&list).unwrap()
        };
        let layers = Layers::from_options(options("/x/upper", "/x/work")).unwrap();
        let (folder, upper, work) = layers.upper.unwrap();
        assert_eq!(
            (folder, upper, work),
            ("/x".into(), c"upper".into(), c"work".into())
        );
        for (upper, work) in [
            ("/x/upper", "/y/work"),
            ("/x/up,per", "/x/work"),
            ("/x/upper", r"/x/wo\rk"),
            ("/", "/work"),
        ] {
            let layers = Layers::from_options(options(upper, work));
            assert!(layers.is_err(), "{upper} {work}");
        }
    }
}
