//! The fields of `/proc/self/mountinfo`, proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A path as it is: space, tab, newline and backslash are written as three octal
/// digits behind a backslash.
pub(crate) fn path(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).filter(|_| *first == b'\\');
        let octal = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let octal = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Where the first file system of this kind is mounted.
pub(crate) fn mounted(mountinfo: &str, kind: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let of_kind = after.split(' ').next() == Some(kind);
        before.split(' ').nth(4).filter(|_| of_kind).map(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_characters_are_read_and_others_left() {
        for (field, expected) in [
            ("/plain", "/plain"),
            (r"/a\040b\011c\012d\134e", "/a b\tc\nd\\e"),
            (r"/end\04", r"/end\04"),
            (r"/no\999", r"/no\999"),
            (r"\040", " "),
            ("", ""),
        ] {
            assert_eq!(path(field), PathBuf::from(expected), "{field}");
        }
    }

    #[test]
    fn a_file_system_is_found_by_its_kind_and_not_by_its_name() {
        let lines = "1 0 0:1 / / rw shared:1 - ext4 resctrl rw\n\
                     2 1 0:2 / /a\\040b rw - resctrl none rw,mba_MBps\n\
                     3 1 0:2 / /c rw - resctrl none rw\n";
        assert_eq!(mounted(lines, "resctrl"), Some(PathBuf::from("/a b")));
        assert_eq!(mounted(lines, "cgroup2"), None);
        assert_eq!(mounted("broken\n", "broken"), None);
    }
}
