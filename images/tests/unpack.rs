//! Layers, honest and hostile, through the real helper in the real jail.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod rig;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dyno_images::{Digest, Limits};
use rig::{Tar, gzip, unpack, zstd};
use tar::EntryType;

fn limits() -> Limits {
    Limits::default()
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 256];
    rustix::fs::getxattr(path, name, &mut value)
        .ok()
        .map(|length| value[..length].to_vec())
}

fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

#[test]
fn files_arrive_with_owner_mode_time_and_attributes() {
    // cap_net_raw+ep, version 2; a value with a newline and a zero in it.
    let capability: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let tar = Tar::default()
        .raw(EntryType::Directory, "./", "", &[], |header| {
            header.set_mode(0o711)
        })
        .raw(EntryType::Directory, "d", "", &[], |header| {
            header.set_mode(0o2750)
        })
        .pax(&[
            ("mtime", b"1234567890.5"),
            ("SCHILY.xattr.user.note", b"a\n\0b"),
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ])
        .raw(EntryType::Regular, "d/f", "", b"content", |header| {
            header.set_mode(0o6755);
            header.set_uid(33);
            header.set_gid(65_535);
        })
        .hard_link("d/same", "/d/f")
        .symlink("d/link", "../../../nowhere")
        .hard_link("d/same-link", "d/link")
        .raw(EntryType::Fifo, "d/pipe", "", &[], |header| {
            header.set_mode(0o622)
        })
        .raw(EntryType::Char, "d/null", "", &[], |_| {})
        .raw(EntryType::Block, "d/sda", "", &[], |_| {})
        .end();
    let result = unpack(&gzip(&tar), limits());
    let done = result.done();
    assert_eq!(done["diff_id"], Digest::of(&tar).to_string());
    assert_eq!((&done["bytes"], &done["entries"]), (&7.into(), &9.into()));
    assert_eq!(done["devices_skipped"], 2);
    assert!(!result.exists("d/null") && !result.exists("d/sda"));

    let look = |path: &str| result.path(path).symlink_metadata().unwrap();
    let file = look("d/f");
    assert_eq!(
        (file.mode() & 0o7777, file.uid(), file.gid()),
        (0o6755, 33, 65_535)
    );
    assert_eq!(
        (file.mtime(), file.mtime_nsec()),
        (1_234_567_890, 500_000_000)
    );
    assert_eq!((file.nlink(), file.ino()), (2, look("d/same").ino()));
    assert_eq!(
        (look("").mode() & 0o7777, look("d").mode() & 0o7777),
        (0o711, 0o2750)
    );
    assert_eq!(
        (look("d").mtime(), look("").mtime()),
        (1_000_000_000, 1_000_000_000)
    );
    assert_eq!(
        fs::read_link(result.path("d/link")).unwrap(),
        Path::new("../../../nowhere")
    );
    assert_eq!(look("d/link").ino(), look("d/same-link").ino());
    assert_eq!(look("d/link").mtime(), 1_000_000_000);
    assert!(look("d/pipe").file_type().is_fifo());
    assert_eq!(look("d/pipe").mode() & 0o7777, 0o622);

    let path = result.path("d/f");
    assert_eq!(xattr(&path, "user.note").unwrap(), b"a\n\0b");
    // On disk version 3 with root id 0, or version 2: either holds the same permitted bits.
    let kept = xattr(&path, "security.capability").unwrap();
    assert_eq!(kept[4..8], capability[4..8]);
    assert!(kept.len() == 20 || kept[20..24] == [0; 4], "{kept:?}");
    assert_eq!(xattr(&path, "user.overlay.opaque"), None);
    assert_eq!(xattr(&path, "trusted.overlay.redirect"), None);
}

#[test]
fn compression_is_detected_and_the_diff_id_is_of_the_tar() {
    let tar = Tar::default()
        .dir("d")
        .file("d/f", &"x".repeat(100_000))
        .end();
    let (first, second) = tar.split_at(tar.len() / 2);
    let members = [gzip(first), gzip(second)].concat();
    let frames = [zstd(first), zstd(second)].concat();
    for layer in [&tar, &gzip(&tar), &zstd(&tar), &members, &frames] {
        let result = unpack(layer, limits());
        assert_eq!(result.done()["diff_id"], Digest::of(&tar).to_string());
        assert_eq!(result.read("d/f").len(), 100_000);
    }
}

/// What GNU tar writes in its own format and in pax format: long names, holes, odd characters.
#[test]
fn archives_of_gnu_tar_unpack_to_the_same_files() {
    let source = tempfile::tempdir().unwrap();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    fs::create_dir(source.path().join("d".repeat(120))).unwrap();
    rig::write(&source.path().join(&long), b"long");
    rig::write(&source.path().join("new\nline ü"), b"odd");
    std::os::unix::fs::symlink("t".repeat(300), source.path().join("link")).unwrap();
    let sparse = fs::File::create(source.path().join("sparse")).unwrap();
    for n in 0..40_u64 {
        rustix::io::pwrite(&sparse, format!("{n:4}").as_bytes(), n << 20).unwrap();
    }
    sparse.set_len(64 << 20).unwrap();
    let folder = source.path().to_str().unwrap();
    for format in ["gnu", "pax", "posix"] {
        let tar = run(
            "tar",
            &[
                "-C",
                folder,
                "-S",
                &format!("--format={format}"),
                "-cf",
                "-",
                ".",
            ],
        );
        let result = unpack(&tar, limits());
        result.done();
        assert_eq!(result.read(&long), "long", "{format}");
        assert_eq!(result.read("new\nline ü"), "odd", "{format}");
        assert_eq!(
            fs::read_link(result.path("link"))
                .unwrap()
                .as_os_str()
                .len(),
            300,
            "{format}"
        );
        let same = fs::read(result.path("sparse")).unwrap()
            == fs::read(source.path().join("sparse")).unwrap();
        assert!(same, "{format}: sparse content differs");
        let stored = result.path("sparse").metadata().unwrap().blocks() * 512;
        assert!(
            stored < 4 << 20,
            "{format}: {stored} bytes stored, the holes were filled"
        );
    }
}

/// A real system's files: setuid programs, hard links, symlinks of all kinds.
#[test]
fn a_real_tree_unpacks_as_gnu_tar_unpacks_it() {
    let system = [
        "-C",
        "/",
        "etc",
        "-C",
        "/usr",
        "sbin",
        "-C",
        "/usr/share",
        "zoneinfo",
    ];
    let tar = run("tar", &[&["-cf", "-"], &system[..]].concat());
    let result = unpack(&zstd(&tar), limits());
    let reference = tempfile::tempdir().unwrap();
    rig::write(&reference.path().join("layer"), &tar);
    let folder = reference.path().join("tree");
    fs::create_dir(&folder).unwrap();
    let archive = reference.path().join("layer");
    let (archive, tree) = (archive.to_str().unwrap(), folder.to_str().unwrap());
    run("tar", &["-C", tree, "--numeric-owner", "-xpf", archive]);
    // Kind, mode, owner, links, time, target; a folder's link count is its file system's affair.
    let script = "cd $1 && find . -mindepth 1 \\( -type d -printf '%P d %m %U %G %T@\\n' \\) \
        -o -printf '%P %y %m %U %G %n %s %T@ %l\\n' | sort";
    let listing = |tree: &str| String::from_utf8(run("sh", &["-c", script, "sh", tree])).unwrap();
    let ours = result.path("");
    let (expected, actual) = (listing(tree), listing(ours.to_str().unwrap()));
    assert!(expected.lines().count() > 1000);
    let differing = expected
        .lines()
        .zip(actual.lines())
        .find(|(expected, actual)| expected != actual);
    assert!(expected == actual, "{differing:?}");
    run(
        "diff",
        &["-r", "--no-dereference", tree, ours.to_str().unwrap()],
    );
}

#[test]
fn whiteouts_become_what_overlayfs_heeds() {
    let tar = Tar::default()
        .file("a/.wh.gone", "")
        .dir("opaque")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/new", "new")
        .file(".wh.replaced", "")
        .dir("replaced")
        .file("replaced/new", "new")
        .dir("later")
        .file(".wh.later", "")
        .file("kept", "kept")
        .file(".wh.kept", "")
        .file(".wh..wh.plnk", "")
        .end();
    let result = unpack(&tar, limits());
    assert_eq!(result.done()["opaque_root"], false);
    let gone = result.path("a/gone").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let opaque = |path| xattr(&result.path(path), "user.overlay.opaque");
    for folder in ["opaque", "replaced", "later"] {
        assert_eq!(opaque(folder).as_deref(), Some(&b"y"[..]), "{folder}");
    }
    assert_eq!(opaque("a"), None);
    assert_eq!(result.read("kept"), "kept");
    assert!(fs::read_dir(result.path("")).unwrap().all(|entry| {
        !entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with(".wh.")
    }));

    // The kernel's own opinion.
    let below = tempfile::tempdir().unwrap();
    for folder in ["a", "opaque", "replaced", "later"] {
        fs::create_dir(below.path().join(folder)).unwrap();
        rig::write(&below.path().join(folder).join("gone"), b"old");
    }
    let script = "mount -t overlay -o ro,userxattr,lowerdir=$1:$2 none /mnt && cd /mnt && find . -type f | sort";
    let (upper, lower) = (result.path(""), below.path().to_owned());
    let seen = run(
        "unshare",
        &[
            "-m",
            "sh",
            "-c",
            script,
            "sh",
            upper.to_str().unwrap(),
            lower.to_str().unwrap(),
        ],
    );
    assert_eq!(
        String::from_utf8(seen).unwrap(),
        "./kept\n./opaque/new\n./replaced/new\n"
    );
}

#[test]
fn an_opaque_root_is_reported() {
    let result = unpack(&Tar::default().file(".wh..wh..opq", "").end(), limits());
    assert_eq!(result.done()["opaque_root"], true);
}

#[test]
fn later_entries_replace_earlier_ones_of_another_kind() {
    let tar = Tar::default()
        .dir("x")
        .dir("x/deep")
        .file("x/deep/f", "old")
        .file("x", "now a file")
        .file("y", "old")
        .dir("y")
        .file("y/f", "now a folder")
        .dir("target")
        .symlink("z", "target")
        .file("z/through", "1")
        .dir("z")
        .file("z/own", "2")
        .symlink("f", "kept")
        .file("kept", "kept")
        .file("f", "not through the link")
        .end();
    let result = unpack(&tar, limits());
    result.done();
    assert_eq!(result.read("x"), "now a file");
    assert_eq!(result.read("y/f"), "now a folder");
    assert_eq!(result.read("target/through"), "1");
    // A folder fd kept from before must not be used after the swap.
    assert!(!result.exists("target/own") && result.path("z/own").exists());
    assert_eq!(
        (result.read("kept").as_str(), result.read("f").as_str()),
        ("kept", "not through the link")
    );
}

#[test]
fn what_makes_no_sense_is_refused_with_the_entry_named() {
    let tar = Tar::default;
    let uid = |uid| {
        tar().raw(EntryType::Regular, "f", "", b"", |header| {
            header.set_uid(uid)
        })
    };
    for (tar, reason) in [
        (uid(65_536), "65536 does not fit"),
        (uid(4_294_967_296), "4294967296 does not fit"),
        (
            tar().pax(&[("gid", b"70000")]).file("f", ""),
            "70000 does not fit",
        ),
        (tar().pax(&[("uid", b"-1")]).file("f", ""), "bad number"),
        (tar().hard_link("h", "missing"), "not in the layer"),
        (tar().hard_link("h", "h"), "to itself"),
        (tar().dir("d").hard_link("h", "d"), "to a folder"),
        (tar().file(".wh.x", "").hard_link("h", "x"), "or whiteout"),
        (tar().file(".wh.", ""), "whiteout of no name"),
        (tar().file(".wh.x/y", ""), "below a whiteout"),
        (tar().dir("./").file(".", "x"), "root"),
        (tar().symlink("/", "x"), "root"),
        (tar().file("f", "").file("f/g", ""), "open folder `f`"),
        (
            tar()
                .file(&"n".repeat(99), "")
                .pax(&[("path", "n".repeat(256).as_bytes())])
                .file("n", ""),
            "name too long",
        ),
        (
            tar().raw(EntryType::new(b'M'), "f", "", b"", |_| {}),
            "unknown kind",
        ),
        (
            tar().pax(&[("GNU.sparse.map", b"0,1")]).file("f", ""),
            "sparse",
        ),
        (tar().pax(&[("path", b"a\0b")]).file("f", ""), "zero byte"),
        (tar().pax(&[("path", b"a")]), "without a member"),
        (
            tar()
                .pax(&[("path", b"a")])
                .pax(&[("path", b"b")])
                .file("f", ""),
            "two extension",
        ),
    ] {
        let result = unpack(&tar.end(), limits());
        let refusal = result.refusal().to_lowercase();
        assert!(refusal.contains(reason), "{refusal} (expected: {reason})");
    }
}

#[test]
fn damaged_streams_are_refused() {
    let tar = Tar::default().file("f", &"content ".repeat(10_000)).end();
    let packed = gzip(&tar);
    let mut flipped = tar.clone();
    flipped[3] ^= 1;
    let hidden = [tar.clone(), Tar::default().file("hidden", "x").end()].concat();
    for (layer, reason) in [
        (
            packed[..packed.len() / 2].to_vec(),
            "cannot read or decompress",
        ),
        (
            packed[..packed.len() - 4].to_vec(),
            "cannot read or decompress",
        ),
        (
            [packed.clone(), b"garbage".to_vec()].concat(),
            "cannot read or decompress",
        ),
        (zstd(&tar)[..50].to_vec(), "cannot read or decompress"),
        (
            [zstd(&tar), b"garbage".to_vec()].concat(),
            "cannot read or decompress",
        ),
        (tar[..tar.len() / 2].to_vec(), "ends within"),
        (flipped, "checksum"),
        (hidden, "after its end"),
        (b"not a tar at all, not even close".to_vec(), "ends within"),
        (gzip(&gzip(&tar)), "not a valid tar"),
    ] {
        let result = unpack(&layer, limits());
        assert!(
            !result.success,
            "{} bytes were accepted (expected: {reason})",
            layer.len()
        );
        let refusal = result.refusal();
        assert!(refusal.contains(reason), "{refusal} (expected: {reason})");
    }
    // An empty layer is fine: images have them.
    assert_eq!(unpack(&gzip(&[0; 1024]), limits()).done()["entries"], 0);
}

// P8: bounds are absolute.
#[test]
fn bounds_hold_before_the_disk_is_full() {
    let tight = Limits {
        bytes: 1 << 20,
        entries: 100,
        depth: 8,
        path_bytes: 60,
    };
    let zeros = zstd(
        &Tar::default()
            .raw(EntryType::Regular, "zeros", "", &vec![0; 64 << 20], |_| {})
            .end(),
    );
    assert!(zeros.len() < 10_000, "{} bytes", zeros.len());
    let many = (0..101).fold(Tar::default(), |tar, n| tar.file(&format!("f{n}"), ""));
    // Few entries, but each implies folders.
    let implied = (0..30).fold(Tar::default(), |tar, n| {
        tar.file(&format!("{n}/b/c/d/f"), "")
    });
    let sparse = Tar::default().raw(EntryType::GNUSparse, "s", "", b"", |header| {
        let real_size = &mut header.as_gnu_mut().unwrap().realsize;
        real_size.copy_from_slice(b"77777777777\0");
    });
    let same_name = (0..101).fold(Tar::default(), |tar, _| tar.file("f", ""));
    let extension = Tar::default().raw(
        EntryType::GNULongName,
        "x",
        "",
        &vec![b'a'; 2 << 20],
        |_| {},
    );
    let roomy = Limits {
        bytes: 1 << 30,
        ..tight
    };
    for (layer, limits, reason) in [
        (zeros, tight, "more than 1048576 bytes"),
        (many.end(), tight, "more than 100"),
        (implied.end(), tight, "more than 100 files"),
        (same_name.end(), tight, "more than 100"),
        (sparse.end(), tight, "more than 1048576 bytes"),
        (extension.end(), roomy, "extension headers"),
        (
            Tar::default().file("a/b/c/d/e/f/g/h/i", "").end(),
            tight,
            "too deep",
        ),
        (
            Tar::default().file(&"x/../".repeat(19), "").end(),
            tight,
            "too long",
        ),
    ] {
        let start = Instant::now();
        let result = unpack(&layer, limits);
        let refusal = result.refusal();
        assert!(refusal.contains(reason), "{refusal} (expected: {reason})");
        assert!(start.elapsed() < Duration::from_secs(20));
        let stored: u64 = rig::snapshot(&result.path(""))
            .keys()
            .map(|path| path.symlink_metadata().unwrap().blocks() * 512)
            .sum();
        assert!(stored < 4 << 20, "{stored} bytes were written");
    }
}

#[test]
fn many_files_take_time_in_proportion() {
    let layer = |files: usize| {
        let tar = (0..files).fold(Tar::default(), |tar, n| {
            tar.file(&format!("d{}/e{}/f{n}", n % 50, n % 500), "x")
        });
        tar.end()
    };
    let time = |layer: &[u8]| {
        let start = Instant::now();
        unpack(layer, limits()).done();
        start.elapsed()
    };
    let (small, large) = (layer(4_000), layer(32_000));
    let (few, many) = (time(&small), time(&large));
    // Eight times as many; forty allows for a busy machine but not for a square (64).
    assert!(
        many < few.max(Duration::from_millis(50)) * 40,
        "{few:?} for 4,000, {many:?} for 32,000"
    );
}
