//! Containers without a user namespace, as other tools configure them: their
//! root is the host's, so what else keeps them in must hold by itself.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dyno_tests::bundle::Bundle;
use dyno_tests::{root, until};
use serde_json::{Value, json};

/// The configuration that Debian's runc 1.1.5 proposes (`runc spec`), on a root of ours.
fn as_runc_proposes(args: &[&str]) -> Bundle {
    let mut bundle = Bundle::new(args);
    let mut config: Value = serde_json::from_str(include_str!("runc-spec.json")).unwrap();
    config["process"]["args"] = json!(args);
    config["process"]["terminal"] = json!(false);
    bundle.config = config;
    root::fill(&bundle.path().join("rootfs"));
    bundle
}

#[test]
fn what_runc_proposes_is_run() {
    let script = "id -u; hostname; grep -E '^Cap(Eff|Amb)' /proc/self/status | tr -d '\\t'; \
                  echo x 2>/dev/null > /x || echo read-only; ls /sys/firmware | wc -l; \
                  mount | grep -c /sys/fs/cgroup/";
    let bundle = as_runc_proposes(&["/bin/sh", "-c", script]);
    let output = bundle.output();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(
        lines[..6],
        [
            "0",
            "runc",
            "CapEff:0000000020000420",
            "CapAmb:0000000000000000",
            "read-only",
            "0"
        ]
    );
}

#[test]
fn without_a_cgroup_namespace_it_sees_its_own_groups_only() {
    // Its own processes are in what it sees; its own limit, too.
    let script = "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; \
                  cat /sys/fs/cgroup/pids/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null \
                  | grep -c 1; \
                  mkdir /sys/fs/cgroup/x /sys/fs/cgroup/pids/x 2>/dev/null || echo refused";
    let mut bundle = as_runc_proposes(&["/bin/sh", "-c", script]);
    bundle.config["linux"]["resources"]["pids"] = json!({"limit": 33});
    let output = bundle.output();
    assert_eq!(output.lines().next(), Some("33"), "{output}");
    assert_eq!(output.lines().last(), Some("refused"), "{output}");
}

#[test]
fn it_cannot_set_the_hosts_names_or_sysctls() {
    let name = |path: &str| std::fs::read_to_string(path).unwrap();
    let files = ["/proc/sys/kernel/hostname", "/proc/sys/vm/swappiness"];
    let before = files.map(name);
    for (pointer, value) in [
        ("/hostname", json!("attacked")),
        ("/domainname", json!("attacked")),
        ("/linux/sysctl", json!({"vm.swappiness": "1"})),
        ("/linux/sysctl", json!({"kernel.core_pattern": "|/bin/x"})),
        ("/linux/sysctl", json!({"../vm/swappiness": "1"})),
    ] {
        let mut bundle = as_runc_proposes(&["/bin/true"]);
        bundle.config.as_object_mut().unwrap().remove("hostname");
        bundle.config["linux"]["namespaces"] = json!([{"type": "mount"}]);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        bundle.config.pointer_mut(parent).unwrap()[key] = value;
        assert!(!bundle.create().status.success(), "{pointer}");
        assert_eq!(files.map(name), before, "{pointer}");
    }
}

#[test]
fn what_the_host_mounts_in_its_root_later_stays_outside() {
    let bundle = as_runc_proposes(&["sleep", "1000"]);
    let rootfs = bundle.path().join("rootfs");
    let shared = Mounted::new(&["--bind"], &rootfs, &rootfs);
    let share = Command::new("mount")
        .arg("--make-shared")
        .arg(&rootfs)
        .status();
    assert!(share.unwrap().success());
    assert!(bundle.create().status.success());
    bundle.start();
    let later = Mounted::new(&["-t", "tmpfs"], Path::new("tmpfs"), &rootfs.join("srv"));
    File::create(rootfs.join("srv/secret")).unwrap();
    let list = bundle.inside(&["/bin/ls", "/srv"]).output().unwrap();
    assert!(list.status.success(), "{list:?}");
    assert_eq!(String::from_utf8_lossy(&list.stdout), "");
    assert!(
        bundle
            .call(&["delete", "--force", bundle.id()])
            .status
            .success()
    );
    drop(later);
    drop(shared);
}

#[test]
fn the_file_of_the_runtime_cannot_be_written_from_inside() {
    // CVE-2019-5736. A copy, as the attack works where nothing is done about it.
    let mut bundle = as_runc_proposes(&["sleep", "1000"]);
    let runtime = bundle.path().join("runtime");
    std::fs::copy(&bundle.program, &runtime).unwrap();
    bundle.program = runtime.clone();
    let before = std::fs::read(&runtime).unwrap();
    assert!(bundle.create().status.success());
    let written = write_through_proc(&bundle, "/proc/1/exe", || bundle.start());
    assert!(!written, "init's file was opened for writing");
    assert_eq!(std::fs::read(&runtime).unwrap(), before);
}

#[test]
fn the_attack_on_the_runtimes_file_works_on_another() {
    // The positive control: a program of the host that takes no care of itself.
    let bundle = as_runc_proposes(&["sleep", "1000"]);
    let victim = bundle.path().join("victim/busybox");
    std::fs::create_dir(victim.parent().unwrap()).unwrap();
    std::fs::copy(root::busybox(), &victim).unwrap();
    assert!(bundle.create().status.success());
    bundle.start();
    let pid = bundle.state()["pid"].to_string();
    let mut careless = Command::new("nsenter")
        .args(["--target", &pid, "--pid", "--no-fork", "--"])
        .arg("/usr/bin/env")
        .args(["unshare", "--fork", "--"])
        .arg(&victim)
        .args(["sleep", "1000"])
        .spawn()
        .unwrap();
    let find = "for p in /proc/[0-9]*; do readlink $p/exe | grep -q victim/ && echo $p/exe; done";
    let mut found = String::new();
    until("the victim runs inside", || {
        let list = bundle.inside(&["/bin/sh", "-c", find]).output().unwrap();
        found = String::from_utf8_lossy(&list.stdout).trim().to_owned();
        !found.is_empty()
    });
    let process = found
        .trim_end_matches("/exe")
        .trim_start_matches("/proc/")
        .to_owned();
    let written = write_through_proc(&bundle, &found, || {
        let kill = bundle.inside(&["/bin/kill", "-9", &process]).status();
        assert!(kill.unwrap().success());
    });
    careless.wait().unwrap();
    assert!(written, "the attack does not work at all");
    assert_eq!(std::fs::read(&victim).unwrap(), b"attacked\n");
}

/// Opens a process' file from inside, lets the process go on to something else,
/// and tries to write what it had been executing.
fn write_through_proc(bundle: &Bundle, file: &str, let_go: impl FnOnce()) -> bool {
    let script = format!(
        "exec 3<{file} || exit 9; echo ready; read go; \
         for i in $(seq 100); do (echo attacked > /proc/$$/fd/3) 2>/dev/null && exit 0; sleep 0.02; done; exit 1"
    );
    let mut attacker = bundle
        .inside(&["/bin/sh", "-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(&mut attacker.stdout.take().unwrap(), &mut ready).unwrap();
    let_go();
    attacker.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let code = attacker.wait().unwrap().code();
    assert_ne!(
        code,
        Some(9),
        "the file cannot even be read: this proves nothing"
    );
    code == Some(0)
}

/// A mount of the host's that is taken away when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(options: &[&str], source: &Path, at: &Path) -> Self {
        let mount = Command::new("mount")
            .args(options)
            .arg(source)
            .arg(at)
            .status();
        assert!(mount.unwrap().success());
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmount = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(unmount.unwrap().success());
    }
}
