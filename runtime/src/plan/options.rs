//! The options of an OCI mount, sorted into what each system call wants.

use std::ffi::{CStr, CString};

use rustix::mount::MountAttrFlags;

use crate::sys::mount::Attributes;

/// A mount's options, parsed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Attributes of the mount itself.
    pub(super) attributes: Attributes,
    /// Attributes of the mount and of all below it (`rro`, `rnosuid`, …).
    pub(super) recursive: Attributes,
    /// `bind` or `rbind`; the latter takes the mounts below along.
    pub(super) bind: Option<Bind>,
    /// `idmap` or `ridmap`: show owners through id mappings.
    pub(super) idmap: Option<Bind>,
    /// `remount`: change the mount that is there.
    pub(super) remount: bool,
    /// `tmpcopyup`: fill a new tmpfs with what it hides.
    pub(super) copy_up: bool,
    /// Flags of the superblock, in their order.
    pub(super) superblock: Vec<&'static CStr>,
    /// Parameters of the file system: `key` or `key=value`.
    pub(super) data: Vec<(CString, Option<CString>)>,
}

/// What the mount of a new file system is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NewMount {
    /// Its attributes.
    pub(super) attributes: MountAttrFlags,
    /// Its propagation, or 0: it is born private.
    pub(super) propagation: u64,
}

impl Options {
    /// The attributes for a file system that is mounted anew: with nothing below
    /// it the recursive ones mean the same. `Err` names what only a bind can be.
    pub(super) fn for_new_mount(&self) -> Result<NewMount, &'static str> {
        if self.idmap.is_some() {
            return Err("idmap");
        }
        let set = self.attributes.set | self.recursive.set;
        let bits = u32::try_from(set).map_err(|_range| "an attribute")?;
        let propagation = match self.attributes.propagation {
            0 => self.recursive.propagation,
            plain => plain,
        };
        Ok(NewMount {
            attributes: MountAttrFlags::from_bits_retain(bits),
            // As nobody's copy it is no less private as a slave.
            propagation: propagation & (libc::MS_SHARED | libc::MS_UNBINDABLE),
        })
    }

    /// All parameters of a new file system.
    pub(super) fn parameters(&self) -> Vec<(CString, Option<CString>)> {
        let flags = self.superblock.iter().map(|&flag| (flag.to_owned(), None));
        flags.chain(self.data.iter().cloned()).collect()
    }

    /// The first option that would change the file system behind a bind mount,
    /// for the host and everybody else, or that it cannot know.
    pub(super) fn beyond_a_bind(&self) -> Option<String> {
        let changes = |flag: &&&CStr| SET_ON_SUPERBLOCK.contains(*flag);
        let flag = self.superblock.iter().find(changes).copied();
        let data = self.data.first().map(|(key, _)| key.as_c_str());
        let found = flag.or(data);
        found.map(|option| option.to_string_lossy().into_owned())
    }
}

/// How much a bind mount takes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bind {
    /// One mount.
    Plain,
    /// The mount and all below it.
    Recursive,
}

/// `(option, attributes to set, attributes to clear)`; with an `r` before the
/// name it holds for the whole tree (OCI config.md, "Linux mount options").
const ATTRIBUTES: &[(&str, u64, u64)] = &[
    ("ro", libc::MOUNT_ATTR_RDONLY, 0),
    ("rw", 0, libc::MOUNT_ATTR_RDONLY),
    ("nosuid", libc::MOUNT_ATTR_NOSUID, 0),
    ("suid", 0, libc::MOUNT_ATTR_NOSUID),
    ("nodev", libc::MOUNT_ATTR_NODEV, 0),
    ("dev", 0, libc::MOUNT_ATTR_NODEV),
    ("noexec", libc::MOUNT_ATTR_NOEXEC, 0),
    ("exec", 0, libc::MOUNT_ATTR_NOEXEC),
    ("nodiratime", libc::MOUNT_ATTR_NODIRATIME, 0),
    ("diratime", 0, libc::MOUNT_ATTR_NODIRATIME),
    // The access-time modes are one field: to set one is to clear the field.
    ("noatime", libc::MOUNT_ATTR_NOATIME, libc::MOUNT_ATTR__ATIME),
    ("atime", 0, libc::MOUNT_ATTR__ATIME),
    (
        "relatime",
        libc::MOUNT_ATTR_RELATIME,
        libc::MOUNT_ATTR__ATIME,
    ),
    ("norelatime", 0, libc::MOUNT_ATTR__ATIME),
    (
        "strictatime",
        libc::MOUNT_ATTR_STRICTATIME,
        libc::MOUNT_ATTR__ATIME,
    ),
    ("nostrictatime", 0, libc::MOUNT_ATTR__ATIME),
    ("nosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
    ("symfollow", 0, libc::MOUNT_ATTR_NOSYMFOLLOW),
];

/// `(option, propagation)`; with an `r` before the name it is recursive.
const PROPAGATION: &[(&str, u64)] = &[
    ("private", libc::MS_PRIVATE),
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// Flags of a superblock that change what is usual.
const SET_ON_SUPERBLOCK: &[&CStr] = &[c"sync", c"dirsync", c"lazytime", c"mand"];

/// Flags of a superblock that ask for what is usual.
const CLEARED_ON_SUPERBLOCK: &[&CStr] = &[c"async", c"nolazytime", c"nomand"];

/// Options without an effect: the kernel log is no mount's to fill, and whether
/// a file counts its changes is for its file system to know since Linux 6.1.
const IGNORED: &[&str] = &[
    "defaults",
    "nofail",
    "loud",
    "silent",
    "iversion",
    "noiversion",
];

/// Options of their own kind, see [`Options`].
const SPECIAL: &[&str] = &["bind", "rbind", "idmap", "ridmap", "remount", "tmpcopyup"];

/// Every option that is not a file system's own (OCI config.md, "Linux mount options").
pub(crate) fn known() -> Vec<String> {
    let attributes = ATTRIBUTES.iter().map(|(name, ..)| *name);
    let tree: Vec<&str> = attributes
        .chain(PROPAGATION.iter().map(|(name, _)| *name))
        .collect();
    let flags = SET_ON_SUPERBLOCK.iter().chain(CLEARED_ON_SUPERBLOCK);
    let flags = flags.map(|flag| flag.to_string_lossy().into_owned());
    let recursive: Vec<String> = tree.iter().map(|name| format!("r{name}")).collect();
    let plain = tree.iter().chain(IGNORED).chain(SPECIAL);
    let mut known: Vec<String> = plain
        .map(|&name| name.to_owned())
        .chain(recursive)
        .chain(flags)
        .collect();
    known.sort_unstable();
    known
}

/// Parses the options of a mount; `Err` names the one that cannot be honoured.
pub(super) fn parse(options: &[String]) -> Result<Options, &str> {
    let mut parsed = Options::default();
    for option in options {
        apply(&mut parsed, option).ok_or(option.as_str())?;
    }
    Ok(parsed)
}

fn apply(parsed: &mut Options, option: &str) -> Option<()> {
    match option {
        "bind" => parsed.bind = parsed.bind.or(Some(Bind::Plain)),
        "rbind" => parsed.bind = Some(Bind::Recursive),
        "idmap" => parsed.idmap = parsed.idmap.or(Some(Bind::Plain)),
        "ridmap" => parsed.idmap = Some(Bind::Recursive),
        "remount" => parsed.remount = true,
        "tmpcopyup" => parsed.copy_up = true,
        _ if IGNORED.contains(&option) => {}
        _ => {
            if let Some(attributes) = attributes(option) {
                merge(&mut parsed.attributes, attributes);
            } else if let Some(attributes) = option.strip_prefix('r').and_then(attributes) {
                merge(&mut parsed.recursive, attributes);
            } else if let Some(flag) = superblock_flag(option) {
                parsed.superblock.push(flag);
            } else {
                parsed.data.push(parameter(option)?);
            }
        }
    }
    Some(())
}

fn superblock_flag(option: &str) -> Option<&'static CStr> {
    let mut flags = SET_ON_SUPERBLOCK.iter().chain(CLEARED_ON_SUPERBLOCK);
    flags
        .find(|flag| flag.to_bytes() == option.as_bytes())
        .copied()
}

fn attributes(option: &str) -> Option<Attributes> {
    if let Some((_, set, clear)) = ATTRIBUTES.iter().find(|(name, ..)| *name == option) {
        return Some(Attributes {
            set: *set,
            clear: *clear,
            propagation: 0,
        });
    }
    let (_, propagation) = PROPAGATION.iter().find(|(name, _)| *name == option)?;
    Some(Attributes {
        set: 0,
        clear: 0,
        propagation: *propagation,
    })
}

/// The later option wins.
fn merge(into: &mut Attributes, new: Attributes) {
    into.set = (into.set & !new.clear) | new.set;
    into.clear = (into.clear & !new.set) | new.clear;
    if new.propagation != 0 {
        into.propagation = new.propagation;
    }
}

fn parameter(option: &str) -> Option<(CString, Option<CString>)> {
    Some(match option.split_once('=') {
        Some((key, value)) => (CString::new(key).ok()?, Some(CString::new(value).ok()?)),
        None => (CString::new(option).ok()?, None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_all(options: &[&str]) -> Options {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        parse(&options).unwrap_or_else(|bad| panic!("{bad} was refused"))
    }

    #[test]
    fn the_later_of_two_contrary_options_wins() {
        let options = parse_all(&["ro", "nosuid", "rw"]);
        assert_eq!(options.attributes.set, libc::MOUNT_ATTR_NOSUID);
        assert_eq!(options.attributes.clear, libc::MOUNT_ATTR_RDONLY);
        let options = parse_all(&["noatime", "strictatime"]);
        assert_eq!(options.attributes.set, libc::MOUNT_ATTR_STRICTATIME);
    }

    #[test]
    fn an_r_before_an_attribute_means_the_whole_tree() {
        let options = parse_all(&["rbind", "rro", "rslave"]);
        assert_eq!(options.bind, Some(Bind::Recursive));
        assert_eq!(options.recursive.set, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(options.recursive.propagation, libc::MS_SLAVE);
        assert!(options.attributes.is_empty());
        let options = parse_all(&["relatime"]);
        assert!(
            options.recursive.is_empty(),
            "relatime is no recursive elatime"
        );
    }

    #[test]
    fn what_is_unknown_goes_to_the_file_system() {
        let options = parse_all(&["mode=755", "newinstance"]);
        let expected = [
            (c"mode".into(), Some(c"755".into())),
            (c"newinstance".into(), None),
        ];
        assert_eq!(options.data, expected);
    }

    #[test]
    fn on_a_new_mount_recursive_attributes_are_plain_ones() {
        let new = parse_all(&["nosuid", "rro", "rprivate"]).for_new_mount();
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_RDONLY;
        let expected = NewMount {
            attributes,
            propagation: 0,
        };
        assert_eq!(new, Ok(expected));
        let shared = parse_all(&["shared", "rslave"]).for_new_mount().unwrap();
        assert_eq!(shared.propagation, libc::MS_SHARED);
        for only_a_bind in ["idmap", "ridmap"] {
            let new = parse_all(&[only_a_bind]).for_new_mount();
            assert!(new.is_err(), "{only_a_bind}");
        }
    }

    #[test]
    fn an_access_time_is_changed_as_one_field() {
        // Anything but the whole field is refused by mount_setattr(2).
        for options in [&["noatime"][..], &["noatime", "nosuid", "strictatime"]] {
            let clear = parse_all(options).attributes.clear;
            assert_eq!(clear & libc::MOUNT_ATTR__ATIME, libc::MOUNT_ATTR__ATIME);
        }
    }

    #[test]
    fn a_bind_changes_no_superblock() {
        for (option, beyond) in [
            ("sync", true),
            ("lazytime", true),
            ("mode=755", true),
            ("async", false),
            ("silent", false),
            ("noiversion", false),
        ] {
            let found = parse_all(&["bind", option]).beyond_a_bind();
            assert_eq!(found.is_some(), beyond, "{option}: {found:?}");
        }
    }

    #[test]
    fn flags_of_a_superblock_go_to_the_file_system_in_their_order() {
        let parameters = parse_all(&["async", "size=1m", "sync"]).parameters();
        let keys: Vec<_> = parameters.iter().map(|(key, _)| key.as_c_str()).collect();
        assert_eq!(keys, [c"async", c"sync", c"size"]);
    }

    #[test]
    fn every_option_of_the_specs_table_is_known() {
        // OCI runtime spec 1.3, config.md, "Linux mount options".
        let table = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud \
            mand noatime nodev nodiratime noexec noiversion nolazytime nomand norelatime \
            nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime relatime \
            remount rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid \
            rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid \
            rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync \
            tmpcopyup unbindable idmap ridmap rnodev";
        let known = known();
        for option in table.split_whitespace() {
            assert!(known.iter().any(|name| name == option), "{option}");
            assert_eq!(parse_all(&[option]).data, [], "{option}");
        }
    }

    #[test]
    fn what_cannot_reach_the_kernel_is_named() {
        let options = ["ro".to_owned(), "a\0b".to_owned()];
        assert_eq!(parse(&options), Err("a\0b"));
    }
}
