//! The options of an OCI mount, sorted into what each system call wants.

use std::ffi::CString;

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
    /// Show owners through the container's id mappings.
    pub(super) idmap: bool,
    /// Parameters of the file system: `key` or `key=value`.
    pub(super) data: Vec<(CString, Option<CString>)>,
}

impl Options {
    /// The attributes for a file system that is mounted anew: with nothing below
    /// it the recursive ones mean the same. `Err` names what only a bind can be.
    pub(super) fn for_new_mount(&self) -> Result<MountAttrFlags, &'static str> {
        if self.idmap {
            return Err("idmap");
        }
        let propagation = self.attributes.propagation | self.recursive.propagation;
        // A new mount is private; as nobody's copy it is no less so as a slave.
        if propagation & !(libc::MS_PRIVATE | libc::MS_SLAVE) != 0 {
            return Err("shared or unbindable");
        }
        let set = self.attributes.set | self.recursive.set;
        let bits = u32::try_from(set).map_err(|_range| "an attribute")?;
        Ok(MountAttrFlags::from_bits_retain(bits))
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

/// Options that ask for what is so anyway.
const IGNORED: &[&str] = &["defaults", "async", "nofail", "loud", "nomand"];

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
        "idmap" | "ridmap" => parsed.idmap = true,
        // These change the superblock behind a bind mount, or nothing at all
        // since the kernel forgot them; honouring them half would mislead.
        // Copying a folder into the tmpfs that hides it is not done.
        "sync" | "dirsync" | "remount" | "mand" | "lazytime" | "iversion" | "tmpcopyup" => {
            return None;
        }
        _ if IGNORED.contains(&option) => {}
        _ => {
            if let Some(attributes) = attributes(option) {
                merge(&mut parsed.attributes, attributes);
            } else if let Some(attributes) = option.strip_prefix('r').and_then(attributes) {
                merge(&mut parsed.recursive, attributes);
            } else {
                parsed.data.push(parameter(option)?);
            }
        }
    }
    Some(())
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
        let flags = parse_all(&["nosuid", "rro", "rprivate"]).for_new_mount();
        let expected = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_RDONLY;
        assert_eq!(flags, Ok(expected));
        for only_a_bind in ["idmap", "shared", "runbindable"] {
            assert!(
                parse_all(&[only_a_bind]).for_new_mount().is_err(),
                "{only_a_bind}"
            );
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
    fn what_cannot_be_honoured_is_named() {
        let options = ["ro".to_owned(), "sync".to_owned()];
        assert_eq!(parse(&options), Err("sync"));
    }
}
