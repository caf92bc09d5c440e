//! Mounts of a container that are of something outside of it, which CRIU does not save
//! and restore has to name again: binds, devices of the host, cgroups.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;
use serde::{Deserialize, Serialize};

use super::{Error, Scaffold};

/// One of them.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct External {
    /// CRIU's key of it.
    pub(crate) key: String,
    /// Where it is in the container.
    pub(crate) target: String,
    /// Where to find it again.
    pub(crate) source: Source,
}

/// What is mounted.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Source {
    /// What config.json binds there, or above it.
    Bind,
    /// The container's cgroup of v2.
    Cgroup,
    /// A file of the host.
    Host(PathBuf),
    /// What the host's root makes for the container, as no root of a user namespace
    /// makes devices.
    Made {
        /// Where it is mounted first.
        at: PathBuf,
        /// What of it is mounted here; empty for all of it.
        below: PathBuf,
    },
}

/// A line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug)]
struct Line {
    id: u64,
    device: String,
    root: String,
    target: String,
    kind: String,
}

/// File systems that CRIU saves or makes anew.
const SAVED: [&str; 5] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue"];

impl External {
    /// Those in the mountinfo of a container with these mounts in its config.json;
    /// `made` is where the host's root has made something that CRIU's cannot.
    ///
    /// # Errors
    /// [`Error::Unfit`] for one of which nobody knows where it comes from.
    pub(crate) fn of(
        mountinfo: &str,
        config: &[Mount],
        made: &[PathBuf],
    ) -> Result<Vec<Self>, Error> {
        let lines: Vec<Line> = mountinfo.lines().filter_map(Line::parse).collect();
        let whole = |line: &Line| {
            let same = |other: &Line| other.device == line.device && other.root == "/";
            lines
                .iter()
                .any(|other| same(other) && bind_above(config, &other.target).is_none())
        };
        let made = |line: &Line| {
            let here = |at: &&PathBuf| *at == Path::new(&line.target);
            let part = |at: &&PathBuf| {
                let same = |other: &Line| {
                    Path::new(&other.target) == **at
                        && other.device == line.device
                        && other.root == "/"
                };
                lines.iter().any(same)
            };
            if let Some(at) = made.iter().find(here) {
                return Some(Source::Made {
                    at: at.clone(),
                    below: PathBuf::new(),
                });
            }
            made.iter().find(part).map(|at| Source::Made {
                at: at.clone(),
                below: PathBuf::from(line.root.trim_start_matches('/')),
            })
        };
        let mut found = Vec::new();
        for line in lines.iter().filter(|line| line.target != "/") {
            let source = if bind_above(config, &line.target).is_some() {
                Source::Bind
            } else if line.kind == "cgroup2" {
                Source::Cgroup
            } else if let Some(made) = made(line) {
                made
            } else if SAVED.contains(&line.kind.as_str()) && whole(line) {
                continue;
            } else if line.kind == "devtmpfs" {
                let name = line.root.trim_start_matches('/');
                Source::Host(Path::new("/dev").join(name))
            } else {
                let (target, kind) = (&line.target, &line.kind);
                return Err(Error::Unfit(format!(
                    "at {target} there is a {kind} that config.json does not bind there: \
                     CRIU does not save it"
                )));
            };
            found.push(Self {
                key: format!("dyno-{}", found.len()),
                target: line.target.clone(),
                source,
            });
        }
        Ok(found)
    }

    /// Where it is found on this host, with what was prepared for the container.
    ///
    /// # Errors
    /// [`Error::Unfit`] when it is not there any more.
    pub(crate) fn path(
        &self,
        config: &[Mount],
        cgroup: Option<&Path>,
        scaffold: &Scaffold,
    ) -> Result<PathBuf, Error> {
        let path = match &self.source {
            Source::Bind => {
                let bind = bind_above(config, &self.target);
                bind.and_then(|(at, below)| scaffold.path(at, below))
            }
            Source::Made { at, below } => scaffold.path(at, below),
            Source::Cgroup => cgroup.map(Path::to_owned),
            Source::Host(path) => Some(path.clone()),
        };
        let target = &self.target;
        let path = path
            .ok_or_else(|| Error::Unfit(format!("config.json has nothing to mount at {target}")))?;
        match path.exists() {
            true => Ok(path),
            false => Err(Error::Unfit(format!(
                "{} is not there, which was mounted at {target}",
                path.display()
            ))),
        }
    }
}

/// Where the file systems are mounted that CRIU makes anew.
pub(crate) fn saved(mountinfo: &str, external: &[External]) -> Vec<String> {
    let lines = mountinfo.lines().filter_map(Line::parse);
    let is_known = |line: &Line| external.iter().any(|one| one.target == line.target);
    let saved = lines.filter(|line| line.root == "/" && line.target != "/" && !is_known(line));
    saved.map(|line| line.target).collect()
}

/// The ids of the mounts in a mountinfo.
pub(crate) fn ids(mountinfo: &str) -> Vec<u64> {
    let lines = mountinfo.lines().filter_map(Line::parse);
    lines.map(|line| line.id).collect()
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ');
        Some(Self {
            id: before.next()?.parse().ok()?,
            device: before.nth(1)?.to_owned(),
            root: before.next()?.to_owned(),
            target: unescaped(before.next()?),
            kind: after.split(' ').next()?.to_owned(),
        })
    }
}

fn unescaped(text: &str) -> String {
    let escapes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    escapes
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The last bind of a configuration that this path is at or below, and where below.
fn bind_above<'a>(config: &'a [Mount], target: &'a str) -> Option<(&'a Path, &'a Path)> {
    let above = config.iter().rev().find_map(|mount| {
        let below = Path::new(target).strip_prefix(mount.destination()).ok()?;
        Some((mount, below))
    });
    let (mount, below) = above?;
    let options = mount.options().as_deref().unwrap_or_default();
    let named = options
        .iter()
        .any(|option| option == "bind" || option == "rbind");
    let bind = named || mount.typ().as_deref() == Some("bind");
    bind.then_some((mount.destination(), below))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const INFO: &str = "\
100 90 8:1 /b/layer / rw - ext4 /dev/vda rw
101 100 0:50 / /proc rw - proc proc rw
102 100 0:51 / /dev rw - tmpfs tmpfs rw
103 102 0:6 /null /dev/null rw - devtmpfs devtmpfs rw
104 100 0:30 /x /sys/fs/cgroup ro - cgroup2 cgroup rw
105 101 0:50 /sys /proc/sys ro - proc proc rw
106 100 8:1 /data /srv/a\\040b rw - ext4 /dev/vda rw
";

    fn config() -> Vec<Mount> {
        serde_json::from_value(json!([
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/srv/a b", "source": "/data", "options": ["rbind"]},
        ]))
        .unwrap()
    }

    #[test]
    fn what_lies_outside_is_found_and_what_is_saved_is_left_to_criu() {
        let found = External::of(INFO, &config(), &[]).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|external| (external.target.as_str(), &external.source))
            .collect();
        let null = Source::Host("/dev/null".into());
        assert_eq!(
            found,
            [
                ("/dev/null", &null),
                ("/sys/fs/cgroup", &Source::Cgroup),
                ("/srv/a b", &Source::Bind)
            ]
        );
        assert_eq!(ids(INFO).len(), 7);
    }

    #[test]
    fn devices_that_nobody_in_a_user_namespace_can_make_are_handed_over() {
        let info = format!("{INFO}107 101 0:51 /null /proc/kcore rw - tmpfs tmpfs rw\n");
        let found = External::of(&info, &config(), &["/dev".into()]).unwrap();
        let source = |target: &str| {
            let found = found.iter().find(|external| external.target == target);
            &found.unwrap().source
        };
        let made = |below: &str| Source::Made {
            at: "/dev".into(),
            below: below.into(),
        };
        assert_eq!(*source("/dev"), made(""));
        assert_eq!(*source("/proc/kcore"), made("null"));
        assert_eq!(saved(&info, &found), ["/proc"]);
    }

    #[test]
    fn a_mount_that_nobody_can_name_again_is_refused() {
        let info = format!("{INFO}107 100 8:2 / /mnt rw - ext4 /dev/vdb rw\n");
        let error = External::of(&info, &config(), &[]).unwrap_err();
        assert!(error.to_string().contains("/mnt"), "{error}");
    }
}
