//! What the container mounts on its `/sys/fs/cgroup` so that it sees its own group
//! and limits, as data for whoever does the mounting.
//!
//! With its own cgroup namespace, unshared after it was put into its groups, each
//! of these mounts shows the container's group as the root (`cgroup_namespaces(7)`).

use super::Cgroup;
use super::layout::Controller;

/// A file system to mount, in this order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InnerMount {
    /// The folder below `/sys/fs/cgroup`, to be made first; empty for itself.
    pub folder: String,
    /// `cgroup2`, `cgroup` or `tmpfs`.
    pub fstype: &'static str,
    /// The options of the file system: v1 controllers, a tmpfs's size and mode.
    pub options: Vec<String>,
}

impl Cgroup {
    /// On v2 one mount. Otherwise a tmpfs with one folder per v1 hierarchy, and
    /// `unified` where there is a v2 tree. All shall become read-only (P16), the
    /// tmpfs after the folders are made.
    #[must_use]
    pub fn inner_mounts(&self) -> Vec<InnerMount> {
        let v2 = |folder: &str| InnerMount {
            folder: folder.into(),
            fstype: "cgroup2",
            options: Vec::new(),
        };
        if self.record.v1.is_empty() {
            return vec![v2("")];
        }
        let options = ["mode=755", "size=64k"].map(str::to_owned).to_vec();
        let mut mounts = vec![InnerMount {
            folder: String::new(),
            fstype: "tmpfs",
            options,
        }];
        for folder in self.folders() {
            let of_folder = self
                .record
                .v1
                .iter()
                .filter(|(_, path)| path.as_path() == folder);
            let mut names: Vec<String> = of_folder
                .map(|(controller, _)| controller.v1_name().to_owned())
                .collect();
            // A hierarchy is mounted again by all of its controllers, ours or not.
            if names == [Controller::Cpu.v1_name()] && is_shared_with_cpuacct(folder) {
                names.push(Controller::Cpuacct.v1_name().to_owned());
            }
            if !names.is_empty() {
                let folder = names.join(",");
                mounts.push(InnerMount {
                    folder,
                    fstype: "cgroup",
                    options: names,
                });
            }
        }
        mounts.extend(self.record.v2.iter().map(|_| v2("unified")));
        mounts
    }
}

/// The customary pair; each controller brings its own files to the folder.
fn is_shared_with_cpuacct(folder: &std::path::Path) -> bool {
    folder.join("cpuacct.usage").exists()
}
