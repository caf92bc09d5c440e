//! A folder that somebody exchanges for a link out of the root, again and again,
//! while the runtime mounts, masks, executes and deletes there (P1, P4).
//!
//! A sample in `make test`, a smaller one on Debian's kernel, all rounds in `make soak`.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dyno_tests::bundle::Bundle;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

/// Rounds of a race in `make test`.
pub(crate) const ROUNDS: usize = 50;

/// A folder shared with an attacker, where `target` is at one time a folder and
/// at another a link to the canary, or `console` a file and a link to its secret.
struct Swapped {
    shared: PathBuf,
    canary: PathBuf,
    /// Which of the two.
    name: &'static str,
    /// Where the secret is seen meanwhile.
    secret: PathBuf,
}

impl Swapped {
    fn new(folder: &Path) -> Self {
        let (shared, canary) = (folder.join("shared"), folder.join("canary"));
        std::fs::create_dir_all(shared.join("target/deep")).unwrap();
        std::fs::create_dir(&canary).unwrap();
        dyno_tests::write_file(&canary.join("secret"), "secret");
        let secret = shared.join("target/secret");
        dyno_tests::write_file(&secret, "its own");
        let link = format!("../../../../../../..{}", canary.display());
        symlink(link, shared.join("swap")).unwrap();
        Self {
            shared,
            canary,
            name: "target",
            secret,
        }
    }

    fn console(folder: &Path) -> Self {
        let mut swapped = Self::new(folder);
        let (shared, secret) = (&swapped.shared, swapped.canary.join("secret"));
        std::fs::remove_file(shared.join("swap")).unwrap();
        let link = format!("../../../../../../..{}", secret.display());
        symlink(link, shared.join("swap")).unwrap();
        swapped.name = "console";
        swapped.secret = shared.join("console");
        dyno_tests::write_file(&swapped.secret, "its own");
        swapped
    }

    /// Plays the rounds while the folder is being exchanged.
    fn race(&self, mut round: impl FnMut()) {
        let (stop, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
        let (mut seen_inside, mut seen_outside) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (target, swap) = (self.shared.join(self.name), self.shared.join("swap"));
                while !stop.load(Ordering::Relaxed) {
                    renameat_with(CWD, &target, CWD, &swap, RenameFlags::EXCHANGE).unwrap();
                    swaps.fetch_add(1, Ordering::Relaxed);
                }
            });
            let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for _ in 0..dyno_tests::rounds(ROUNDS) {
                    // The control: who resolves the path as a string is led out.
                    match std::fs::read(&self.secret) {
                        Ok(text) if text == b"secret" => seen_outside += 1,
                        _ => seen_inside += 1,
                    }
                    round();
                    self.assert_untouched();
                }
            }));
            stop.store(true, Ordering::Relaxed);
            if let Err(panic) = played {
                std::panic::resume_unwind(panic);
            }
        });
        let swaps = swaps.load(Ordering::Relaxed);
        assert!(
            swaps > 1000 && seen_inside > 0 && seen_outside > 0,
            "no race was run: {swaps} swaps, {seen_inside} inside, {seen_outside} outside"
        );
    }

    fn assert_untouched(&self) {
        let names: Vec<_> = std::fs::read_dir(&self.canary)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["secret"], "the canary changed");
        let secret = std::fs::read(self.canary.join("secret")).unwrap();
        assert_eq!(secret, b"secret", "the canary changed");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains("evil"), "mounted on the host: {mounts}");
        let canary = self.canary.display().to_string();
        assert!(!mounts.contains(&canary), "mounted on the host: {mounts}");
    }
}

#[test]
fn what_is_mounted_and_masked_in_a_swapped_folder_stays_inside() {
    let folder = Bundle::new(&["true"]);
    let swapped = Swapped::new(folder.path());
    let mut made = 0;
    swapped.race(|| {
        let mut bundle = Bundle::script("cat /shared/target/secret; echo x > /shared/target/new");
        let bind =
            |to: &str, from: &Path| json!({"destination": to, "source": from, "options": ["bind"]});
        bundle.mount(bind("/shared", &swapped.shared));
        bundle.mount(
            json!({"destination": "/shared/target/deep", "type": "tmpfs",
            "source": "evil"}),
        );
        bundle.config["linux"]["maskedPaths"] = json!(["/shared/target/secret"]);
        bundle.config["linux"]["readonlyPaths"] = json!(["/shared/target"]);
        let run = bundle.run();
        made += usize::from(run.create.status.success());
        // "its own" is what the folder shows where it is not masked: that of
        // the host is "secret".
        assert_ne!(run.stdout, "secret", "{run:?}");
    });
    assert!(made > 0, "nothing was ever made");
}

#[test]
fn what_is_executed_in_a_swapped_folder_and_deleted_stays_inside() {
    let folder = Bundle::new(&["true"]);
    let swapped = Swapped::new(folder.path());
    let mut executed = 0;
    swapped.race(|| {
        let mut bundle = Bundle::new(&["sleep", "1000"]);
        bundle.mount(json!({"destination": "/shared", "source": swapped.shared,
            "options": ["bind"]}));
        bundle.run_detached();
        let exec = bundle.call(&[
            "exec",
            "--cwd",
            "/shared/target",
            bundle.id(),
            "cat",
            "secret",
        ]);
        executed += usize::from(exec.status.success());
        assert_ne!(exec.stdout, b"secret", "{exec:?}");
        let delete = bundle.call(&["delete", "--force", bundle.id()]);
        assert!(delete.status.success(), "{delete:?}");
    });
    assert!(executed > 0, "nothing was ever executed");
}

#[test]
fn a_console_that_is_swapped_for_a_link_meanwhile_is_bound_nowhere_outside() {
    // CVE-2025-52565: the folder of devices is one that another container has, too.
    let folder = Bundle::new(&["true"]);
    let swapped = Swapped::console(folder.path());
    let (mut made, mut refused) = (0, 0);
    swapped.race(|| {
        let mut bundle = Bundle::script("test -t 0 && echo a terminal").as_host_root();
        let mounts = bundle.config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/dev");
        let bind = json!({"destination": "/dev", "source": swapped.shared, "options": ["bind"]});
        mounts.insert(1, bind);
        bundle.config["linux"]["maskedPaths"] = json!([]);
        bundle.config["process"]["terminal"] = json!(true);
        let shown = super::terminals::at_a_terminal(&bundle.command(&["run"]));
        match shown.contains("a terminal") {
            true => made += 1,
            false => refused += 1,
        }
    });
    assert!(made > 0, "never made, {refused} times refused");
}

#[test]
fn a_device_that_is_swapped_for_a_file_meanwhile_gives_nobody_that_file() {
    // Who shares the folder puts another file where the device was just made, to be
    // its owner: the device is for him.
    let folder = Bundle::new(&["true"]);
    let (shared, secret) = (folder.path().join("shared"), folder.path().join("secret"));
    std::fs::create_dir(&shared).unwrap();
    dyno_tests::write_file(&secret, "secret");
    let (own, hard) = (shared.join("own"), shared.join("hard"));
    let (stop, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if !hard.exists() {
                    std::fs::hard_link(&secret, &hard).unwrap();
                }
                while !own.exists() && !stop.load(Ordering::Relaxed) {}
                // It may be taken away again meanwhile.
                if own.exists() && std::fs::rename(&hard, &own).is_ok() {
                    swaps.fetch_add(1, Ordering::Relaxed);
                    // A rename of one file over itself does nothing.
                    std::fs::remove_file(&own).ok();
                }
            }
        });
        let played = std::panic::catch_unwind(|| {
            for _ in 0..dyno_tests::rounds(ROUNDS) * 2 {
                let mut bundle = Bundle::new(&["true"]).as_host_root();
                let bind = json!({"destination": "/srv", "source": shared, "options": ["bind"]});
                bundle.mount(bind);
                bundle.config["linux"]["devices"] = json!([{"path": "/srv/own", "type": "c",
                    "major": 1, "minor": 5, "uid": 1000, "gid": 1000}]);
                bundle.run();
                let owner = std::os::unix::fs::MetadataExt::uid(&secret.metadata().unwrap());
                assert_eq!(owner, 0, "the file was given away");
            }
        });
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = played {
            std::panic::resume_unwind(panic);
        }
    });
    let swaps = swaps.load(Ordering::Relaxed);
    assert!(swaps > 0, "no race was run");
}
