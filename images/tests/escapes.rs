//! Archives that try to leave their folder, with a canary outside and a positive control.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod rig;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use dyno_images::Limits;
use rig::{Canary, Tar, unpack};
use tar::EntryType;

/// Archives that try to leave their folder; each is confined or refused.
#[allow(clippy::too_many_lines, reason = "a table")]
fn escapes(canary: &Path) -> Vec<(&'static str, Tar)> {
    let out = canary.to_str().unwrap();
    let up = "../".repeat(12);
    let long = |tar: Tar, path: &str| {
        let name = [path.as_bytes(), &[0]].concat();
        tar.raw(EntryType::GNULongName, "././@LongLink", "", &name, |_| {})
    };
    let tar = Tar::default;
    vec![
        ("dot dot", tar().file(&format!("{up}{out}/file"), "owned")),
        ("absolute", tar().file(&format!("{out}/file"), "owned")),
        (
            "dot dot in a long name",
            long(tar(), &format!("{up}{out}/file")).file("short", "owned"),
        ),
        (
            "absolute in pax",
            tar()
                .pax(&[("path", format!("{out}/file").as_bytes())])
                .file("short", "owned"),
        ),
        (
            "through a symlink",
            tar().symlink("s", out).file("s/file", "owned"),
        ),
        (
            "through a relative symlink",
            tar()
                .symlink("s", &format!("{up}{out}"))
                .file("s/file", "owned"),
        ),
        (
            "through two symlinks",
            tar()
                .symlink("a", out)
                .symlink("b", "a")
                .file("b/file", "owned"),
        ),
        (
            "onto a symlink",
            tar()
                .symlink("f", &format!("{out}/file"))
                .file("f", "owned"),
        ),
        (
            "mode through a symlink",
            tar()
                .symlink("d", out)
                .raw(EntryType::Directory, "d", "", &[], |h| h.set_mode(0o777)),
        ),
        (
            "folder to symlink",
            tar()
                .dir("d")
                .file("d/x", "")
                .symlink("d", out)
                .file("d/file", "owned"),
        ),
        (
            "hard link out",
            tar()
                .hard_link("h", &format!("{up}{out}/file"))
                .file("h", "owned"),
        ),
        (
            "absolute hard link",
            tar()
                .hard_link("h", &format!("{out}/file"))
                .file("h", "owned"),
        ),
        (
            "hard link through a symlink",
            tar().symlink("s", out).hard_link("h", "s/file"),
        ),
        (
            "hard link to a symlink",
            tar()
                .symlink("s", &format!("{out}/file"))
                .hard_link("h", "s")
                .raw(EntryType::Regular, "h", "", b"owned", |h| h.set_mode(0o777)),
        ),
        (
            "whiteout through a symlink",
            tar().symlink("s", out).file("s/.wh.file", ""),
        ),
        ("whiteout of dot dot", tar().file(".wh...", "")),
        (
            "opaque through a symlink",
            tar().symlink("s", out).file("s/.wh..wh..opq", ""),
        ),
        (
            "magic link",
            tar()
                .symlink("p", "/proc/self/root")
                .file(&format!("p{out}/file"), "owned"),
        ),
        (
            "cwd link",
            tar()
                .symlink("p", "/proc/self/cwd")
                .file(&format!("p/{up}{out}/file"), "owned"),
        ),
        (
            "fifo through a symlink",
            tar()
                .symlink("s", out)
                .raw(EntryType::Fifo, "s/new", "", &[], |_| {}),
        ),
        (
            "symlink loop",
            tar().symlink("a", "b").symlink("b", "a").file("a/f", "x"),
        ),
    ]
}

// P1, P8
#[test]
fn nothing_is_ever_touched_outside_the_folder() {
    let canary = Canary::new();
    for (what, tar) in escapes(canary.path()) {
        let result = unpack(&tar.end(), Limits::default());
        assert!(canary.is_unchanged(), "{what}: {}", result.last);
        if result.success {
            let outside = canary.path().join("file").metadata().unwrap().ino();
            let inside = result
                .path("h")
                .symlink_metadata()
                .map(|h| h.ino())
                .unwrap_or(0);
            assert_ne!(inside, outside, "{what}");
        }
    }
}

/// The positive control: a trusting program is led outside by the same archives.
#[test]
fn the_same_archives_lead_a_trusting_program_outside() {
    let led = escapes(Canary::new().path())
        .iter()
        .enumerate()
        .filter(|(n, _)| {
            let canary = Canary::new();
            let (_, tar) = escapes(canary.path()).swap_remove(*n);
            let here = tempfile::tempdir().unwrap();
            rig::write(&here.path().join("layer"), &tar.end());
            let mut tar = Command::new("tar");
            let tar = tar.args(["-xPf", "layer", "--overwrite", "--keep-directory-symlink"]);
            tar.current_dir(here.path()).output().unwrap();
            !canary.is_unchanged()
        })
        .count();
    assert!(
        led >= 8,
        "only {led} of the archives are of any danger to GNU tar -P"
    );
}
