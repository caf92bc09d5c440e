//! The same attacks on Debian's runc 1.1.5 and on ours. It falls for each of them,
//! so they are real; ours must not (P1, P2, P4, P18).
//!
//! An attack is a bundle that is run by whichever runtime, and what has come of it.
//! All of it is in a mount namespace of the test's own, and what is aimed at is the
//! test's own folder: who falls hurts nobody.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dyno_tests::bundle::Bundle;
use dyno_tests::{programs, root, until, write_file};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::mount::{MountPropagationFlags, mount_change};
use serde_json::{Value, json};

/// A bundle as runc itself proposes it, with its root in a folder, and a folder of
/// the host that it is aimed at.
struct Attack {
    bundle: Bundle,
    canary: PathBuf,
}

impl Attack {
    fn new(runtime: &Path, script: &str) -> Self {
        let mut bundle = Bundle::new(&[]);
        let mut config: Value = serde_json::from_str(include_str!("runc-spec.json")).unwrap();
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["process"]["terminal"] = json!(false);
        config["root"]["readonly"] = json!(false);
        config["linux"]["cgroupsPath"] = json!(format!("/{}", bundle.id()));
        bundle.config = config;
        bundle.program = runtime.to_owned();
        root::fill(&bundle.path().join("rootfs"));
        let canary = bundle.path().join("canary");
        std::fs::create_dir(&canary).unwrap();
        write_file(&canary.join("secret"), "secret");
        Self { bundle, canary }
    }

    /// A path in the container's root, its folder made.
    fn inside(&self, path: &str) -> PathBuf {
        let path = self.bundle.path().join("rootfs").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Leaves `/dev` to the image.
    fn with_dev_of_the_image(&mut self) {
        let mounts = self.bundle.config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/dev");
        std::fs::create_dir(self.inside("dev")).unwrap();
    }

    /// Leaves `/proc` to the image; the true one is on `/true-proc`.
    fn with_proc_of_the_image(&mut self) {
        for mount in self.bundle.config["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/proc" {
                mount["destination"] = json!("/true-proc");
            }
        }
        let linux = &mut self.bundle.config["linux"];
        linux["maskedPaths"] = json!([]);
        linux["readonlyPaths"] = json!([]);
    }

    /// Shows the canary on `/data`, its secret to root alone, and makes the program
    /// somebody else.
    fn with_a_secret_volume(&mut self) {
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.canary.join("secret"), mode).unwrap();
        let source = &self.canary;
        let bind = json!({"destination": "/data", "source": source, "options": ["bind", "rw"]});
        self.bundle.mount(bind);
        self.bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    }

    /// What the program writes, and the runtime with it.
    fn told(&self) -> String {
        let output = self.bundle.run_attached();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Whether the canary is not what it was.
    fn has_changed(&self) -> bool {
        let names = std::fs::read_dir(&self.canary).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        let secret = std::fs::read(self.canary.join("secret"));
        names != ["secret"] || secret.unwrap() != b"secret"
    }
}

/// Longer than ours waits for a process that is executed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came of an attack: whether it worked, and what was seen.
type Outcome = (bool, String);

/// Which runc it is: Debian may mend it one day.
fn version() -> String {
    let version = Command::new("runc").arg("--version").output().unwrap();
    String::from_utf8_lossy(&version.stdout).replace('\n', ", ")
}

/// Plays it against both.
fn hold(attack: impl Fn(&Path) -> Outcome) {
    dyno_tests::must_be_root();
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).unwrap();
    let (fell, seen) = attack(Path::new("runc"));
    assert!(fell, "the control: {} withstands it: {seen}", version());
    let (fell, seen) = attack(&programs().join("dyno-runtime"));
    assert!(!fell, "{seen}");
}

#[test]
fn what_an_image_has_for_dev_null_masks_nothing() {
    // CVE-2025-31133: it is a link, to what shall be masked.
    hold(|runtime| {
        let mut attack = Attack::new(runtime, "head -c 1 /proc/interrupts > /seen");
        attack.with_dev_of_the_image();
        symlink("/proc/interrupts", attack.inside("dev/null")).unwrap();
        attack.bundle.config["linux"]["maskedPaths"] = json!(["/proc/interrupts"]);
        let told = attack.told();
        let seen = std::fs::read(attack.inside("seen"));
        (seen.is_ok_and(|seen| !seen.is_empty()), told)
    });
}

#[test]
fn what_an_image_has_for_dev_null_is_nobodys_output() {
    // It is a link to a file that is root's, and opened by root for a user.
    hold(|runtime| {
        let mut attack = Attack::new(runtime, "echo overwritten");
        attack.with_dev_of_the_image();
        attack.with_a_secret_volume();
        symlink("/data/secret", attack.inside("dev/null")).unwrap();
        let told = attack.told();
        (attack.has_changed(), told)
    });
}

#[test]
fn what_an_image_has_for_a_device_is_not_taken_for_it() {
    // A source of random numbers that the image's maker knows.
    hold(|runtime| {
        let mut attack = Attack::new(runtime, "head -c 6 /dev/urandom");
        attack.with_dev_of_the_image();
        write_file(&attack.inside("dev/urandom"), "000000");
        let told = attack.told();
        (told == "000000", told)
    });
}

#[test]
fn a_link_for_the_folder_of_devices_is_not_followed() {
    // CVE-2021-30465 and its kind: the host's files are removed and made.
    hold(|runtime| {
        let attack = Attack::new(runtime, "true");
        symlink(&attack.canary, attack.inside("dev")).unwrap();
        let told = attack.told();
        (attack.has_changed(), told)
    });
}

#[test]
fn a_link_for_the_console_is_not_followed() {
    // CVE-2025-52565: a user's image empties a file that is root's.
    hold(|runtime| {
        let mut attack = Attack::new(runtime, "true");
        attack.with_dev_of_the_image();
        attack.with_a_secret_volume();
        symlink("/data/secret", attack.inside("dev/console")).unwrap();
        attack.bundle.config["process"]["terminal"] = json!(true);
        let shown = super::terminals::at_a_terminal(&attack.bundle.command(&["run"]));
        (attack.has_changed(), shown)
    });
}

#[test]
fn a_sysctl_does_not_go_where_an_image_leads_it() {
    // CVE-2025-52881: /proc is the image's, and writes root's file.
    hold(|runtime| {
        let mut attack = Attack::new(runtime, "true");
        attack.with_a_secret_volume();
        attack.with_proc_of_the_image();
        symlink("/true-proc/self", attack.inside("proc/self")).unwrap();
        let sysctl = "proc/sys/net/ipv4/ip_unprivileged_port_start";
        symlink("/data/secret", attack.inside(sysctl)).unwrap();
        attack.bundle.config["linux"]["sysctl"] =
            json!({"net.ipv4.ip_unprivileged_port_start": "77"});
        let told = attack.told();
        (attack.has_changed(), told)
    });
}

#[test]
fn an_option_that_nobody_knows_is_not_left_out() {
    // P18: a protection with a slip of the pen in it is none.
    hold(|runtime| {
        let mut attack = Attack::new(runtime, "/data/program");
        let program = attack.canary.join("program");
        write_file(&program, "#!/bin/sh\necho executed\n");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let options = ["bind", "nosuid", "noexce"];
        let source = &attack.canary;
        let bind = json!({"destination": "/data", "source": source, "options": options});
        attack.bundle.mount(bind);
        let told = attack.told();
        (told == "executed\n", told)
    });
}

#[test]
fn a_label_does_not_go_where_an_image_leads_it() {
    // CVE-2025-52881, CVE-2019-16884: into a file of procfs that takes any word, and
    // the program is run without its profile.
    if !super::labels::is_there() {
        return;
    }
    hold(|runtime| {
        let mut attack = Attack::new(runtime, "echo unlabelled");
        attack.bundle.config["process"]["apparmorProfile"] = json!("dyno-no-such-profile");
        let told = attack.told();
        assert!(!told.contains("unlabelled"), "without the links: {told}");

        attack.with_proc_of_the_image();
        let proc = attack.inside("proc");
        super::labels::forge(&proc, Path::new("/true-proc/thread-self/comm"));
        // The rest is as it was, for who looks.
        for name in ["fd", "exe", "status", "stat", "mountinfo", "cgroup", "ns"] {
            let link = attack.inside("proc/self").join(name);
            symlink(format!("/true-proc/self/{name}"), link).unwrap();
        }
        symlink("/true-proc/sys", attack.inside("proc/sys")).unwrap();
        let told = attack.told();
        (told.contains("unlabelled"), told)
    });
}

#[test]
fn a_folder_that_is_swapped_for_a_link_meanwhile_is_not_followed() {
    // CVE-2024-45310: what is missing of a mount's target is made on the host.
    hold(|runtime| {
        let mut attack = Attack::new(runtime, "true");
        let shared = attack.bundle.path().join("shared");
        std::fs::create_dir_all(shared.join("target/deep")).unwrap();
        let link = format!("../../../../../../..{}", attack.canary.display());
        symlink(link, shared.join("swap")).unwrap();
        let bind = json!({"destination": "/shared", "source": shared, "options": ["bind"]});
        attack.bundle.mount(bind);
        let tmpfs = json!({"destination": "/shared/target/deep", "type": "tmpfs", "source": "x"});
        attack.bundle.mount(tmpfs);
        let stop = AtomicBool::new(false);
        // It falls once in forty times or so.
        let more = if runtime == Path::new("runc") { 20 } else { 1 };
        let tries = dyno_tests::rounds(super::races::ROUNDS) * more;
        let mut told = String::new();
        let mut tried = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (target, swap) = (shared.join("target"), shared.join("swap"));
                while !stop.load(Ordering::Relaxed) {
                    renameat_with(CWD, &target, CWD, &swap, RenameFlags::EXCHANGE).unwrap();
                }
            });
            while tried < tries && !attack.has_changed() {
                told = attack.told();
                tried += 1;
            }
            stop.store(true, Ordering::Relaxed);
        });
        (attack.has_changed(), format!("{tried} tries: {told}"))
    });
}

#[test]
fn who_stops_what_comes_in_holds_nobody_up_for_ever() {
    // P15: what is executed is stopped before it is the container's program.
    hold(|runtime| {
        let stop = "touch /made; while :; do kill -STOP -1 2>/dev/null; done";
        let attack = Attack::new(runtime, stop);
        attack.bundle.run_detached();
        let made = attack.inside("made");
        until("it stops whoever comes", || made.exists());
        // Until one is refused, where it was stopped in time.
        for _ in 0..3 {
            let exec = ["exec", "--detach", attack.bundle.id(), "true"];
            let mut exec = attack.bundle.runtime(&exec).spawn().unwrap();
            let begin = Instant::now();
            let status = loop {
                match exec.try_wait().unwrap() {
                    Some(status) => break status,
                    None if begin.elapsed() > PATIENCE => {
                        exec.kill().and_then(|()| exec.wait()).unwrap();
                        return (true, format!("longer than {PATIENCE:?}"));
                    }
                    None => std::thread::sleep(Duration::from_millis(5)),
                }
            };
            if !status.success() {
                return (false, format!("refused after {:?}", begin.elapsed()));
            }
        }
        (false, "never stopped in time".to_owned())
    });
}
