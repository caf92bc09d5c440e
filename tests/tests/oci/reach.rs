//! What a program in a container calls to reach what lies outside of it: files by
//! their handles, processes, keys, sockets, an outer root (P1, P2, P3).
//!
//! An attempt is a chain of system calls, as `probe` takes them (x86-64's numbers);
//! it has worked where all of them were answered. Each is tried where the barriers
//! are not as well.
#![cfg(target_arch = "x86_64")]

use std::collections::BTreeMap;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use dyno_tests::bundle::Bundle;
use serde_json::json;

use super::probes::{GIVEN, OPTIONAL, bundle};

/// Magic number of ext4, statfs(2).
const EXT4: i64 = 0xef53;

/// Who tries: somebody, root of the user namespace, and root with all there is.
pub(crate) fn everybody() -> [(&'static str, u32, Vec<&'static str>); 3] {
    [
        ("uid 1000", 1000, vec![]),
        ("uid 0", 0, GIVEN.to_vec()),
        (
            "all capabilities",
            0,
            [GIVEN, OPTIONAL, &["CAP_SYS_CHROOT"]].concat(),
        ),
    ]
}

fn program() -> PathBuf {
    dyno_tests::programs().join("probe")
}

/// The error of each attempt in this bundle; 0 where it worked.
fn answers(mut bundle: Bundle, attempts: &[String]) -> BTreeMap<String, i32> {
    std::fs::copy(program(), bundle.path().join("layer/bin/probe")).unwrap();
    let args = [&["probe".to_owned()], attempts].concat();
    bundle.config["process"]["args"] = json!(args);
    let run = bundle.run();
    assert!(run.create.status.success(), "{run:?}");
    let answers = parsed(&run.stdout);
    assert_eq!(answers.len(), attempts.len(), "not to its end: {run:?}");
    answers
}

fn parsed(printed: &str) -> BTreeMap<String, i32> {
    let line = |line: &str| {
        let (name, error) = line.split_once(' ').unwrap();
        (name.to_owned(), error.parse().unwrap())
    };
    printed.lines().map(line).collect()
}

pub(crate) fn worked(answers: &BTreeMap<String, i32>) -> Vec<&str> {
    let worked = answers.iter().filter(|(_, error)| **error == 0);
    worked.map(|(name, _)| name.as_str()).collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A process of the host's, ended at the end.
struct Victim(Child);

impl Victim {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().unwrap())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).unwrap();
    }
}

/// What is outside, waiting to be found, and the ways to it.
struct Outside {
    folder: dyno_tests::Folder,
    _listener: UnixListener,
    attempts: Vec<String>,
}

impl Outside {
    fn new() -> Self {
        let folder = dyno_tests::Folder::new();
        dyno_tests::write_file(&folder.path().join("secret"), "secret");
        let name = format!("dyno-canary-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let address = hexadecimal(&[b"\x01\x00\x00", name.as_bytes()].concat());
        // The user's keyring, which goes with nobody's session; gone after a minute.
        let key = format!("key=248,@user,@{name},@x,1,-4;250,15,%1,60");
        let added = Command::new(program()).arg(key).output().unwrap();
        assert_eq!(added.stdout, b"key 0\n", "{added:?}");
        let mut attempts = vec![
            format!("key=250,10,-4,@user,@{name},0"),
            format!("socket=41,1,1,0;42,%1,#{address},{}", 3 + name.len()),
            // A /proc of one's own has no masks; its files are the host's all the same.
            "fresh-proc=430,@proc,0;431,%1,6,0,0,0;432,%1,0,0;257,%3,@sys/kernel/core_pattern,1025"
                .to_owned(),
            // struct mount_attr: nothing set, MOUNT_ATTR_RDONLY cleared.
            format!(
                "clear-read-only=442,-100,@/proc/sys,0,#{}{}{},32;257,-100,@/proc/sys/kernel/core_pattern,1025",
                "00".repeat(8),
                "0100000000000000",
                "00".repeat(16)
            ),
        ];
        attempts.extend(handle(folder.path()));
        Self {
            folder,
            _listener: listener,
            attempts,
        }
    }

    /// Lets the bundle in where everything is but the barriers.
    fn shown_to(&self, mut bundle: Bundle) -> Bundle {
        let door = self.folder.path().join("door");
        std::fs::create_dir_all(&door).unwrap();
        bundle.mount(
            json!({"destination": "/door", "type": "bind", "source": door,
            "options": ["rbind"]}),
        );
        bundle
    }
}

/// Opens a folder by its handle on the file system of `/door`. A generation of 0 is
/// any for ext4: the number of an inode is all that has to be guessed.
fn handle(folder: &Path) -> Option<String> {
    let is_ext4 = rustix::fs::statfs(folder).unwrap().f_type == EXT4;
    let inode = u32::try_from(rustix::fs::stat(folder).unwrap().st_ino).ok()?;
    let words = [8, 1, inode, 0].map(u32::to_le_bytes).concat();
    let open = "257,-100,@/door,65536";
    let by_handle = format!("304,%1,#{},65536", hexadecimal(&words));
    is_ext4.then(|| format!("handle={open};{by_handle};257,%2,@secret,0"))
}

#[test]
fn nothing_outside_is_reached_by_a_call() {
    let outside = Outside::new();
    for (who, uid, capabilities) in everybody() {
        let bundle = outside.shown_to(bundle(uid, &capabilities));
        let answers = answers(bundle, &outside.attempts);
        assert!(worked(&answers).is_empty(), "{who}: {answers:?}");
    }
    // Root of the host in its network.
    let capabilities = ["CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH"];
    let mut bundle = outside.shown_to(bundle(0, &[GIVEN, &capabilities].concat()).as_host_root());
    without(&mut bundle, "network");
    let answers = answers(bundle, &outside.attempts);
    assert_eq!(answers.len(), worked(&answers).len(), "{answers:?}");
}

/// Takes a namespace out of the configuration.
fn without(bundle: &mut Bundle, namespace: &str) {
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut();
    namespaces
        .unwrap()
        .retain(|other| other["type"] != namespace);
}

/// Ids of processes are the host's there; `/proc`, which cannot be mounted then, is
/// not needed for the calls.
fn among_the_hosts_processes(mut bundle: Bundle) -> Bundle {
    without(&mut bundle, "pid");
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/proc"));
    bundle.config["linux"]["maskedPaths"] = json!([]);
    bundle.config["linux"]["readonlyPaths"] = json!([]);
    bundle
}

#[test]
fn processes_outside_are_out_of_reach_even_where_they_are_seen() {
    let victim = Victim::new();
    let pid = victim.0.id();
    let attempts = [
        format!("signal=62,{pid},0"),
        // PTRACE_SEIZE stops nobody.
        format!("trace=101,16902,{pid},0,0"),
        format!("descriptor=434,{pid},0;438,%1,0,0"),
        // CLONE_NEWUTS
        format!("namespace=434,{pid},0;308,%1,67108864"),
        format!("priority=141,0,{pid},0"),
        format!("limits=302,{pid},7,0,0"),
        format!("compare=312,{pid},{pid},0,0,0"),
    ];
    for (who, uid, capabilities) in everybody() {
        let hidden = answers(bundle(uid, &capabilities), &attempts);
        assert!(worked(&hidden).is_empty(), "{who}: {hidden:?}");
        let seen = among_the_hosts_processes(bundle(uid, &capabilities));
        let seen = answers(seen, &attempts);
        assert!(worked(&seen).is_empty(), "{who}: {seen:?}");
    }
    let capabilities = [
        "CAP_SYS_ADMIN",
        "CAP_SYS_PTRACE",
        "CAP_SYS_NICE",
        "CAP_KILL",
    ];
    let unconfined = bundle(0, &capabilities).as_host_root();
    let answers = answers(among_the_hosts_processes(unconfined), &attempts);
    assert_eq!(answers.len(), worked(&answers).len(), "{answers:?}");
}

#[test]
fn a_chroot_within_leads_no_further_than_the_root() {
    let outside = Outside::new();
    let secret = outside.folder.path().join("secret");
    // The folder that one is in stays outside of the new root: from there it is up
    // to the root that the kernel knows.
    let attempt = [format!(
        "out=83,@/tmp/c,448;161,@/tmp/c;80,@../../../../../../../..;161,@.;257,-100,@{},0",
        secret.display()
    )];
    let inside = bundle(0, &[GIVEN, &["CAP_SYS_CHROOT"]].concat());
    let answers = answers(inside, &attempt);
    assert_eq!(answers["out"], no_such_file(), "it got stuck: {answers:?}");

    let jail = bundle(0, &[]);
    let layer = jail.path().join("layer");
    std::fs::create_dir_all(layer.join("tmp")).unwrap();
    std::fs::copy(program(), layer.join("bin/probe")).unwrap();
    let escaped = Command::new("chroot")
        .arg(&layer)
        .arg("/bin/probe")
        .args(&attempt)
        .output()
        .unwrap();
    assert_eq!(escaped.stdout, b"out 0\n", "{escaped:?}");
}

/// The root that was reached has no such file.
fn no_such_file() -> i32 {
    rustix::io::Errno::NOENT.raw_os_error()
}

#[test]
fn a_set_user_id_file_makes_nobody_root() {
    let run = |no_new_privileges: bool| {
        let mut bundle = bundle(1000, &[]);
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.config["process"]["args"] = json!(["suid", "root=105,0"]);
        let suid = bundle.path().join("layer/bin/suid");
        std::fs::copy(program(), &suid).unwrap();
        let chmod = rustix::fs::chmod(&suid, rustix::fs::Mode::from_raw_mode(0o4755));
        chmod.unwrap();
        let run = bundle.run();
        assert!(run.create.status.success(), "{run:?}");
        parsed(&run.stdout)["root"]
    };
    assert_eq!(run(true), rustix::io::Errno::PERM.raw_os_error());
    assert_eq!(run(false), 0, "the control");
}
