//! The kernel: its release, and the parts that may be missing from it.

use std::fs;
use std::path::Path;

use dyno_api::doctor::HostCheck;

/// The oldest kernel that everything is tested on.
const OLDEST: (u32, u32) = (6, 1);

/// Namespaces of a dyno, as `/proc/self/ns` has them.
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// What the network of dynos is made of: module names.
const NETWORK: [&str; 5] = ["bridge", "veth", "nf_tables", "nft_nat", "nf_conntrack"];

pub(super) fn checks() -> Vec<HostCheck> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail");
    let modules = Modules::of(&release);
    vec![
        kernel(&release),
        namespaces(Path::new("/proc/self/ns"), super::number(USER_NAMESPACES)),
        seccomp(&actions.unwrap_or_default()),
        overlay(
            &fs::read_to_string("/proc/filesystems").unwrap_or_default(),
            &modules,
        ),
        network(&modules),
    ]
}

const USER_NAMESPACES: &str = "/proc/sys/user/max_user_namespaces";

fn kernel(release: &str) -> HostCheck {
    const NAME: &str = "kernel";
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next(), numbers.next());
    let (Some(major), Some(minor)) = version else {
        return HostCheck::warning(
            NAME,
            format!("{release}, which is no release that is known"),
        )
        .advise(format!(
            "dyno is tested on {}.{} and later",
            OLDEST.0, OLDEST.1
        ));
    };
    if (major, minor) < OLDEST {
        return HostCheck::failure(
            NAME,
            format!("{release}, older than {}.{}", OLDEST.0, OLDEST.1),
        )
        .advise("upgrade the kernel; Debian 12 and Ubuntu 24.04 have one");
    }
    HostCheck::ok(NAME, release)
}

fn namespaces(folder: &Path, users: Option<u64>) -> HostCheck {
    const NAME: &str = "namespaces";
    let missing: Vec<&str> = NAMESPACES
        .into_iter()
        .filter(|name| folder.join(name).symlink_metadata().is_err())
        .collect();
    if !missing.is_empty() {
        return HostCheck::failure(
            NAME,
            format!("the kernel has none of kind {}", missing.join(", ")),
        )
        .advise("use a kernel of the distribution's");
    }
    match users {
        Some(0) => HostCheck::failure(NAME, format!("{USER_NAMESPACES} is 0"))
            .advise("sysctl -w user.max_user_namespaces=15000, and in /etc/sysctl.d to stay"),
        _ => HostCheck::ok(NAME, "all kinds"),
    }
}

fn seccomp(actions: &str) -> HostCheck {
    const NAME: &str = "seccomp";
    let has = |wanted: &str| actions.split_whitespace().any(|action| action == wanted);
    match ["errno", "kill_process"]
        .into_iter()
        .find(|wanted| !has(wanted))
    {
        None => HostCheck::ok(NAME, "filters of system calls"),
        Some(missing) => HostCheck::failure(NAME, format!("the kernel has no action {missing}"))
            .advise("use a kernel with CONFIG_SECCOMP_FILTER"),
    }
}

fn overlay(file_systems: &str, modules: &Modules) -> HostCheck {
    const NAME: &str = "overlayfs";
    let there = file_systems
        .lines()
        .any(|line| line.split_whitespace().last() == Some("overlay"));
    match (there, modules.has("overlay")) {
        (true, _) => HostCheck::ok(NAME, "there"),
        (false, true) => HostCheck::ok(NAME, "a module, loaded when it is needed"),
        (false, false) => HostCheck::failure(NAME, "neither in the kernel nor a module of it")
            .advise("install the kernel's modules, and modprobe overlay"),
    }
}

fn network(modules: &Modules) -> HostCheck {
    const NAME: &str = "network modules";
    let missing: Vec<&str> = NETWORK
        .into_iter()
        .filter(|module| !modules.has(module))
        .collect();
    match (missing.is_empty(), modules.are_known()) {
        (true, _) => HostCheck::ok(NAME, NETWORK.join(", ")),
        // A kernel of one piece that does not say what is in it.
        (false, false) => HostCheck::warning(
            NAME,
            format!(
                "the kernel does not say whether it has {}",
                missing.join(", ")
            ),
        )
        .advise("dyno run --rm host true tells"),
        (false, true) => HostCheck::failure(NAME, format!("no {}", missing.join(", ")))
            .advise("install the kernel's modules (linux-modules-extra on Ubuntu)"),
    }
}

/// What a kernel has, loaded or not.
#[derive(Debug, Default)]
struct Modules {
    /// `modules.builtin` and `modules.dep` of it, kmod(8).
    listed: String,
    loaded: Vec<String>,
}

impl Modules {
    fn of(release: &str) -> Self {
        let folder = Path::new("/lib/modules").join(release);
        let read = |name| fs::read_to_string(folder.join(name)).unwrap_or_default();
        let loaded = fs::read_dir("/sys/module").into_iter().flatten().flatten();
        Self {
            listed: read("modules.builtin") + &read("modules.dep"),
            loaded: loaded
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect(),
        }
    }

    fn are_known(&self) -> bool {
        !self.listed.is_empty()
    }

    /// A line is the path of a module's file, and in `modules.dep` a colon and
    /// those of others. Names are written with `-` or `_`.
    fn has(&self, name: &str) -> bool {
        let listed = || {
            self.listed.lines().any(|line| {
                let path = line.split(':').next().unwrap_or_default();
                let file = path.rsplit('/').next().unwrap_or_default();
                let module = file.split(".ko").next().unwrap_or_default();
                module.replace('-', "_") == name
            })
        };
        self.loaded.iter().any(|loaded| loaded == name) || listed()
    }
}

#[cfg(test)]
mod tests {
    use dyno_api::doctor::CheckState::{Failure, Ok, Warning};

    use super::*;

    #[test]
    fn a_release_is_compared_by_numbers() {
        for (release, state) in [
            ("6.1.0-13-cloud-amd64", Ok),
            ("6.10.2", Ok),
            ("10.0.0", Ok),
            ("6.0.19", Failure),
            ("5.15.0-1047-aws", Failure),
            ("custom", Warning),
        ] {
            assert_eq!(kernel(release).state, state, "{release}");
        }
    }

    #[test]
    fn user_namespaces_can_be_switched_off() {
        let own = Path::new("/proc/self/ns");
        assert_eq!(namespaces(own, Some(0)).state, Failure);
        assert_eq!(namespaces(own, Some(15_000)).state, Ok);
        assert_eq!(namespaces(own, None).state, Ok);
        let none = namespaces(Path::new("/nonexistent"), None);
        assert_eq!(none.state, Failure);
        assert!(none.found.contains("mnt"), "{none:?}");
    }

    #[test]
    fn a_module_is_found_built_in_listed_or_loaded() {
        let modules = Modules {
            listed: "kernel/net/802/stp.ko\n\
                     kernel/net/netfilter/nf-conntrack.ko.xz: kernel/lib/libcrc32c.ko\n"
                .to_owned(),
            loaded: vec!["veth".to_owned()],
        };
        for name in ["stp", "nf_conntrack", "veth"] {
            assert!(modules.has(name), "{name}");
        }
        assert!(!modules.has("libcrc32c") && !modules.has("bridge"));
        let check = network(&modules);
        assert_eq!(check.state, Failure);
        assert_eq!(check.found, "no bridge, nf_tables, nft_nat");
        assert_eq!(network(&Modules::default()).state, Warning);
    }

    #[test]
    fn a_file_system_is_the_last_word_of_its_line() {
        let none = Modules::default();
        assert_eq!(overlay("nodev\tproc\nnodev\toverlay\n", &none).state, Ok);
        assert_eq!(overlay("nodev\toverlayfs2\n", &none).state, Failure);
        assert_eq!(
            seccomp("kill_process kill_thread trap errno log allow").state,
            Ok
        );
        assert_eq!(seccomp("").state, Failure);
    }
}
