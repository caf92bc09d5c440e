//! `/dev/console`, where a container's terminal is bound, and the terminal itself in
//! a `/dev` that is the image's (P1).

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use dyno_tests::bundle::Bundle;
use dyno_tests::write_file;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::json;

use super::terminals::at_a_terminal;

/// A container with a terminal, a `/dev` of the image's and the canary on `/data`.
struct OnATerminal {
    bundle: Bundle,
    canary: PathBuf,
}

impl OnATerminal {
    fn new(host_root: bool) -> Self {
        let script = "test -t 0 && echo a terminal; test -c /dev/console && echo console >/dev/console; \
                      grep -q ' /data/secret ' /proc/self/mountinfo && echo covered";
        let mut bundle = Bundle::script(script);
        if host_root {
            bundle = bundle.as_host_root();
        }
        let canary = bundle.path().join("canary");
        std::fs::create_dir(&canary).unwrap();
        write_file(&canary.join("secret"), "secret");
        let mounts = bundle.config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/dev");
        bundle.mount(json!({"destination": "/data", "source": canary, "options": ["bind"]}));
        bundle.config["process"]["terminal"] = json!(true);
        let on = Self { bundle, canary };
        std::fs::create_dir_all(on.dev().join("pts")).unwrap();
        on
    }

    fn dev(&self) -> PathBuf {
        self.bundle.path().join("layer/dev")
    }

    /// Runs it; what its caller's terminal shows.
    fn shown(&self) -> String {
        let shown = at_a_terminal(&self.bundle.command(&["run"]));
        let secret = std::fs::read(self.canary.join("secret")).unwrap();
        assert_eq!(secret, b"secret", "the canary changed: {shown}");
        assert!(!shown.contains("covered"), "{shown}");
        shown
    }
}

/// Makes something at a path.
type Make<'a> = &'a dyn Fn(&Path);

#[test]
fn a_console_that_is_no_file_of_its_own_covers_nothing_else() {
    let file = |path: &Path| write_file(path, "of the image");
    let kinds: [(&str, Make, bool); 6] = [
        (
            "a link to a volume",
            &|path| symlink("/data/secret", path).unwrap(),
            false,
        ),
        (
            "a link to procfs",
            &|path| symlink("/proc/sys/kernel/core_pattern", path).unwrap(),
            false,
        ),
        (
            "a link to a descriptor",
            &|path| symlink("/proc/self/fd/0", path).unwrap(),
            false,
        ),
        (
            "a folder",
            &|path| std::fs::create_dir(path).unwrap(),
            false,
        ),
        (
            "a FIFO",
            &|path| {
                mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
            },
            true,
        ),
        ("a file", &file, true),
    ];
    for host_root in [false, true] {
        for (what, make, works) in kinds {
            let on = OnATerminal::new(host_root);
            make(&on.dev().join("console"));
            let shown = on.shown();
            let worked = shown.contains("a terminal\nconsole\n");
            assert_eq!(
                worked, works,
                "{what}, root of the host {host_root}: {shown}"
            );
            if !works {
                assert!(shown.contains("terminal"), "{what}: {shown}");
            }
            // What the image has there stays what it is.
            let own = on.dev().join("console");
            if own.is_file() && !own.is_symlink() {
                assert_eq!(std::fs::read(own).unwrap(), b"of the image");
            }
        }
    }
}

#[test]
fn a_terminal_is_the_devpts_own_whatever_an_image_has_for_it() {
    // CVE-2025-52565: what is bound as the console is looked up by its number.
    for host_root in [false, true] {
        let on = OnATerminal::new(host_root);
        for number in 0..4 {
            symlink("/data/secret", on.dev().join(format!("pts/{number}"))).unwrap();
        }
        symlink("/srv/ptmx", on.dev().join("pts/ptmx")).unwrap();
        let mut elsewhere = on;
        for mount in elsewhere.bundle.config["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/dev/pts" {
                mount["destination"] = json!("/srv");
            }
        }
        let shown = elsewhere.shown();
        assert!(shown.contains("set up the terminal"), "{shown}");
    }
    // A multiplexer that is the host's own would make a terminal there.
    let on = OnATerminal::new(true);
    let device = FileType::CharacterDevice;
    let mode = Mode::from_raw_mode(0o666);
    mknodat(CWD, on.dev().join("pts/ptmx"), device, mode, makedev(5, 2)).unwrap();
    let mut without = on;
    let mounts = without.bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["destination"] != "/dev/pts");
    let shown = without.shown();
    assert!(shown.contains("set up the terminal"), "{shown}");
}
