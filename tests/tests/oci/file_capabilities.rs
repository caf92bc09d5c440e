//! Capabilities that a file of the image gives to whoever executes it
//! (`capabilities(7)`): to somebody inside they are worth no more than the container
//! was given (P11).

use std::collections::BTreeMap;
use std::path::Path;

use dyno_tests::bundle::{Bundle, ID_BASE};
use dyno_tests::root;
use rustix::fs::{Mode, XattrFlags, chmod, setxattr};
use serde_json::{Value, json};

/// `CAP_CHOWN` and `CAP_NET_BIND_SERVICE`, which the containers here may have.
const BOUNDING: u64 = 0x401;

/// `CAP_CHOWN` alone.
const CHOWN: u64 = 1;

/// What is in a file's `security.capability`.
#[derive(Clone, Copy, Default)]
struct FileCapabilities {
    permitted: u64,
    inheritable: u64,
    /// What is permitted is effective at once.
    effective: bool,
    /// Root of the user namespace that they are for: the third version has it.
    rootid: Option<u32>,
}

impl FileCapabilities {
    /// `struct vfs_cap_data` and `struct vfs_ns_cap_data` of `<linux/capability.h>`.
    fn bytes(self) -> Vec<u8> {
        let revision: u32 = match self.rootid {
            None => 0x0200_0000,
            Some(_) => 0x0300_0000,
        };
        let half = |set: u64, shift: u32| u32::try_from(set >> shift & 0xffff_ffff).unwrap();
        let words =
            [0, 32].map(|shift| [self.permitted, self.inheritable].map(|set| half(set, shift)));
        let first = [revision | u32::from(self.effective)];
        let words = first.into_iter().chain(words.into_iter().flatten());
        words
            .chain(self.rootid)
            .flat_map(u32::to_le_bytes)
            .collect()
    }
}

/// The files, each a `grep` of its own.
fn files() -> [(&'static str, FileCapabilities); 6] {
    let none = FileCapabilities::default();
    let chown = FileCapabilities {
        permitted: CHOWN,
        effective: true,
        ..none
    };
    let of_namespace = |rootid| FileCapabilities {
        rootid: Some(rootid),
        ..chown
    };
    [
        ("chown", chown),
        (
            "all",
            FileCapabilities {
                permitted: !0,
                ..none
            },
        ),
        // Not executed at all where not all of it can be had.
        (
            "all-at-once",
            FileCapabilities {
                permitted: !0,
                effective: true,
                ..none
            },
        ),
        (
            "inheritable",
            FileCapabilities {
                inheritable: !0,
                effective: true,
                ..none
            },
        ),
        ("own-root", of_namespace(0)),
        ("another-root", of_namespace(ID_BASE + 0x10_0000)),
    ]
}

fn put_files(layer: &Path) {
    for (name, capabilities) in files() {
        let folder = layer.join("cap").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("grep");
        std::fs::copy(root::busybox(), &file).unwrap();
        chmod(&file, Mode::from_raw_mode(0o755)).unwrap();
        let bytes = capabilities.bytes();
        setxattr(&file, "security.capability", &bytes, XattrFlags::empty()).unwrap();
    }
}

/// Executes each and says what it has.
const SCRIPT: &str = "cd /cap; for f in *; do echo \"file $f\"; \
    $f/grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status 2>/dev/null; done";

/// A container of somebody who has no capability, but those files.
fn bundle(host_root: bool, no_new_privileges: bool) -> Bundle {
    let mut bundle = Bundle::script(SCRIPT);
    if host_root {
        bundle = bundle.as_host_root();
    }
    put_files(&bundle.path().join("layer"));
    let process = &mut bundle.config["process"];
    process["user"] = json!({"uid": 1000, "gid": 1000});
    process["noNewPrivileges"] = json!(no_new_privileges);
    process["capabilities"] = json!({"bounding": ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]});
    bundle
}

/// What each file gave: the union of all sets of its process; `None` where it
/// was not executed.
fn given(told: &str) -> BTreeMap<String, Option<u64>> {
    let mut given = BTreeMap::new();
    let mut file = String::new();
    for line in told.lines() {
        if let Some(name) = line.strip_prefix("file ") {
            name.clone_into(&mut file);
            given.insert(file.clone(), None);
        } else if let Some((_, set)) = line.split_once(":\t") {
            let set = u64::from_str_radix(set, 16).unwrap();
            let all: &mut Option<u64> = given.get_mut(&file).unwrap();
            *all = Some(all.unwrap_or_default() | set);
        }
    }
    assert_eq!(given.len(), files().len(), "{told}");
    given
}

#[test]
fn who_gains_no_privileges_gains_none_by_a_file() {
    for host_root in [false, true] {
        let given = given(&bundle(host_root, true).output());
        let nothing = given.values().all(|set| set.unwrap_or_default() == 0);
        assert!(nothing, "root of the host {host_root}: {given:?}");
    }
}

#[test]
fn a_file_gives_no_more_than_the_container_may_have() {
    for host_root in [false, true] {
        let given = given(&bundle(host_root, false).output());
        let who = format!("root of the host {host_root}: {given:?}");
        assert_eq!(given["chown"], Some(CHOWN), "the control, {who}");
        assert_eq!(given["all"], Some(BOUNDING), "{who}");
        assert_eq!(given["all-at-once"], None, "{who}");
        assert_eq!(given["inheritable"], Some(0), "{who}");
        // That it is not executed is an answer, too.
        assert_eq!(given["another-root"].unwrap_or_default(), 0, "{who}");
        assert_eq!(given["own-root"].unwrap_or_default() & !CHOWN, 0, "{who}");
    }
}

#[test]
fn what_a_file_inherits_is_nothing_for_a_further_process_either() {
    // CVE-2022-29162: capabilities of `exec --cap` were inheritable, too.
    let mut bundle = bundle(false, false);
    let capabilities: Value = json!(["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]);
    bundle.config["process"]["args"] = json!(["sleep", "1000"]);
    bundle.run_detached();
    let exec = |words: &[&str]| {
        let words = [&["exec", "--user", "1000:1000"], words, &[bundle.id()]].concat();
        let output = bundle.call(&[&words[..], &["sh", "-c", SCRIPT]].concat());
        assert!(output.status.success(), "{output:?}");
        given(&String::from_utf8_lossy(&output.stdout))
    };
    let usual = exec(&[]);
    assert_eq!(usual["inheritable"], Some(0), "{usual:?}");
    let more = exec(&["--cap", "CAP_CHOWN"]);
    assert_eq!(more["inheritable"], Some(0), "{more:?}");
    assert_eq!(more["all"], Some(BOUNDING), "{more:?}");
    // The control: where the configuration says so, it is inherited.
    for set in ["bounding", "inheritable", "permitted", "effective"] {
        bundle.config["process"]["capabilities"][set] = capabilities.clone();
    }
    let process = &mut bundle.config["process"];
    process["args"] = json!(["sh", "-c", SCRIPT]);
    assert_eq!(
        bundle
            .call(&["delete", "--force", bundle.id()])
            .status
            .code(),
        Some(0)
    );
    let inherited = given(&bundle.output());
    assert_eq!(inherited["inheritable"], Some(BOUNDING), "{inherited:?}");
}
