//! The store through its own interface: damage, crashes, collection, the built-in image.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod rig;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use dyno_images::{Digest, Jail, Limits, Phase, Progress, Store, StoreError};
use rig::{Layout, Rig, Tar, chain, ignore, layer, reference};
use serde_json::json;

#[tokio::test]
async fn a_damaged_blob_is_replaced_and_never_used() {
    let rig = Rig::new();
    let mut layout = Layout::new();
    let good = layer(Tar::default().file("f", "content"));
    layout.image("x:1", std::slice::from_ref(&good));
    rig.store
        .import_layout(layout.path(), None, ignore)
        .await
        .unwrap();
    for digest in fs::read_dir(rig.root.join("blobs/sha256")).unwrap() {
        let path = digest.unwrap().path();
        let mut content = fs::read(&path).unwrap();
        content[7] ^= 0x20;
        rig::write(&path, &content);
    }
    // The layer is unpacked anew, too: from the sound blob.
    fs::remove_dir_all(rig.root.join("layers").join(Digest::of(&good.1).hex())).unwrap();
    let images = rig
        .store
        .import_layout(layout.path(), None, ignore)
        .await
        .unwrap();
    assert_eq!(
        fs::read_to_string(images[0].layer_dirs()[0].join("f")).unwrap(),
        "content"
    );
    for blob in fs::read_dir(rig.root.join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(Digest::of(&fs::read(&path).unwrap()).hex(), name);
    }
}

#[tokio::test]
async fn collection_spares_images_and_dynos_and_takes_the_rest() {
    let rig = Rig::new();
    let shared = layer(Tar::default().file("shared", "1"));
    let (one, two) = (
        layer(Tar::default().file("one", "1")),
        layer(Tar::default().file("two", "22")),
    );
    let mut layout = Layout::new();
    layout.image("x:1", &[shared.clone(), one.clone()]);
    layout.image("x:2", &[shared.clone(), two.clone()]);
    let images = rig
        .store
        .import_layout(layout.path(), None, ignore)
        .await
        .unwrap();
    let host = rig.store.host_image().unwrap();
    assert_eq!(
        rig.store.collect(&HashSet::new()).unwrap(),
        dyno_images::Collected::default()
    );

    assert!(rig.store.remove(&images[1].reference).unwrap());
    assert!(!rig.store.remove(&images[1].reference).unwrap());
    let in_use = HashSet::from([images[1].layers[0]]);
    let collected = rig.store.collect(&in_use).unwrap();
    assert_eq!(
        (collected.blobs, collected.layers),
        (3, 0),
        "manifest, config, layer"
    );
    let collected = rig.store.collect(&HashSet::new()).unwrap();
    assert_eq!(
        (collected.blobs, collected.layers, collected.bytes),
        (0, 1, 2)
    );
    assert!(
        images[0]
            .layer_dirs()
            .iter()
            .chain(&host.layer_dirs())
            .all(|dir| dir.exists())
    );
    assert!(
        rig.store
            .find(&images[0].reference, None)
            .unwrap()
            .is_some()
    );
    rig.assert_tidy();
}

#[tokio::test]
async fn collection_while_images_arrive_harms_none() {
    let rig = Rig::new();
    let mut layout = Layout::new();
    for n in 0..20 {
        layout.image(
            &format!("x:{n}"),
            &[layer(Tar::default().file("f", &n.to_string()))],
        );
    }
    let store = rig.store.clone();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let collector = tokio::task::spawn_blocking(move || {
        let mut rounds = 0;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            store.collect(&HashSet::new()).unwrap();
            rounds += 1;
        }
        rounds
    });
    let images = rig
        .store
        .import_layout(layout.path(), None, ignore)
        .await
        .unwrap();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(collector.await.unwrap() > 5);
    for image in images {
        assert!(image.layer_dirs()[0].join("f").exists());
        let again = rig.store.find(&image.reference, None).unwrap();
        assert_eq!(again, Some(image));
    }
    assert_eq!(
        rig.store.collect(&HashSet::new()).unwrap(),
        dyno_images::Collected::default()
    );
}

#[tokio::test]
async fn the_same_image_twice_at_once_is_unpacked_once() {
    let rig = Rig::new();
    let mut layout = Layout::new();
    let layers: Vec<_> = (0..4)
        .map(|n| layer(Tar::default().file("f", &n.to_string())))
        .collect();
    layout.image("x:1", &layers);
    let unpacked = Mutex::new(Vec::new());
    let watch = |progress: Progress| {
        if progress.phase == Phase::Unpacking && progress.done == 0 {
            unpacked.lock().unwrap().push(progress.layer);
        }
    };
    let (a, b) = tokio::join!(
        rig.store.import_layout(layout.path(), None, watch),
        rig.store.import_layout(layout.path(), None, watch),
    );
    assert_eq!(a.unwrap()[0].layers, b.unwrap()[0].layers);
    assert_eq!(unpacked.lock().unwrap().len(), 4);
    rig.assert_tidy();
}

#[tokio::test]
async fn what_a_crash_left_is_swept_and_complete_things_stay() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("images");
    let store = Store::open(&root, rig::jail()).unwrap();
    let tar = Tar::default().file("f", "1").end();
    let image = store
        .import(&reference("x:1"), &*tar, ignore)
        .await
        .unwrap();
    let second = Store::open(&root, rig::jail());
    assert!(
        matches!(second, Err(StoreError::Locked { .. })),
        "{second:?}"
    );
    drop(store);

    let canary = rig::Canary::new();
    let unfinished = root.join("tmp/123-4/fs/deep");
    fs::create_dir_all(&unfinished).unwrap();
    std::os::unix::fs::symlink(canary.path(), unfinished.join("out")).unwrap();
    rig::write(&root.join("tmp/123-5"), b"half a blob");
    let store = Store::open(&root, rig::jail()).unwrap();
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    assert_eq!(store.list().unwrap(), [image]);
    assert!(canary.is_unchanged());
}

#[tokio::test]
async fn an_aborted_load_leaves_nothing_half_made() {
    let rig = Rig::new();
    let mut layout = Layout::new();
    let files = (0..3000).fold(Tar::default(), |tar, n| {
        tar.file(&format!("f{n}"), "content")
    });
    layout.image("x:1", &[layer(files)]);
    let (started, begun) = tokio::sync::oneshot::channel();
    let started = Mutex::new(Some(started));
    let store = rig.store.clone();
    let path = layout.path().to_owned();
    let import = tokio::spawn(async move {
        let watch = |progress: Progress| {
            if progress.phase == Phase::Unpacking
                && let Some(started) = started.lock().unwrap().take()
            {
                started.send(()).unwrap();
            }
        };
        store
            .import_layout(&path, None, watch)
            .await
            .map(|images| images.len())
    });
    begun.await.unwrap();
    import.abort();
    assert!(import.await.is_err_and(|error| error.is_cancelled()));
    assert!(rig.store.list().unwrap().is_empty());
    assert_eq!(rig.count("layers"), 0);
    // And it can be done again.
    rig.store
        .import_layout(layout.path(), None, ignore)
        .await
        .unwrap();
    rig.assert_tidy();
}

#[tokio::test]
async fn a_full_disk_is_named_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let mount = |arguments: &[&str]| {
        let status = Command::new(arguments[0])
            .args(&arguments[1..])
            .status()
            .unwrap();
        assert!(status.success(), "{arguments:?}");
    };
    let image = folder.path().join("disk");
    fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    let disk = folder.path().join("mnt");
    fs::create_dir(&disk).unwrap();
    mount(&["mkfs.ext4", "-q", image.to_str().unwrap()]);
    mount(&[
        "mount",
        "-o",
        "loop",
        image.to_str().unwrap(),
        disk.to_str().unwrap(),
    ]);
    let _unmount = Unmount(&disk);
    {
        let store = Store::open(&disk.join("images"), rig::jail()).unwrap();
        // Small when stored, larger than the disk when unpacked.
        let big = layer(Tar::default().raw(
            tar::EntryType::Regular,
            "big",
            "",
            &vec![1; 16 << 20],
            |_| {},
        ));
        let mut layout = Layout::new();
        layout.image("x:1", &[big]);
        layout.image("x:2", &[layer(Tar::default().file("small", "1"))]);
        let error = store
            .import_layout(layout.path(), None, ignore)
            .await
            .unwrap_err();
        assert!(
            chain(&error).contains("No space left on device"),
            "{}",
            chain(&error)
        );
        assert!(store.list().unwrap().is_empty());
        assert_eq!(fs::read_dir(disk.join("images/tmp")).unwrap().count(), 0);
        store.collect(&HashSet::new()).unwrap();
        let mut layout = Layout::new();
        layout.image("x:2", &[layer(Tar::default().file("small", "1"))]);
        store
            .import_layout(layout.path(), None, ignore)
            .await
            .unwrap();
    }
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(self.0).status();
        assert!(status.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[tokio::test]
async fn layers_beyond_the_bounds_are_refused() {
    let rig = Rig::with_limits(Limits {
        entries: 10,
        ..Limits::default()
    });
    let many = (0..11).fold(Tar::default(), |tar, n| tar.file(&format!("f{n}"), ""));
    let name = reference("x:1");
    let error = rig
        .store
        .import(&name, &*many.end(), ignore)
        .await
        .unwrap_err();
    assert!(chain(&error).contains("more than 10"), "{}", chain(&error));
    rig.assert_tidy();
}

#[tokio::test]
async fn a_missing_or_broken_runtime_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let tar = Tar::default().end();
    let with = |runtime: &str, root: &str| {
        let jail = Jail {
            runtime: runtime.into(),
            ..rig::jail()
        };
        Store::open(&folder.path().join(root), jail).unwrap()
    };
    let missing = with("/nowhere/dyno-runtime", "a")
        .import(&reference("x"), &*tar, ignore)
        .await;
    assert!(chain(&missing.unwrap_err()).contains("cannot start /nowhere/dyno-runtime"));
    let broken = with("/bin/false", "b")
        .import(&reference("x"), &*tar, ignore)
        .await;
    assert!(chain(&broken.unwrap_err()).contains("ended with exit status: 1"));
    let talking = with("/bin/echo", "c")
        .import(&reference("x"), &*tar, ignore)
        .await;
    assert!(chain(&talking.unwrap_err()).contains("no report"));
}

#[tokio::test]
async fn a_record_of_another_version_or_with_unknown_fields_is_not_believed() {
    let rig = Rig::new();
    let name = reference("x:1");
    rig.store
        .import(&name, &*Tar::default().end(), ignore)
        .await
        .unwrap();
    let record = fs::read_dir(rig.root.join("images"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let good: serde_json::Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    for (field, value) in [
        ("version", json!(2)),
        ("surprise", json!(1)),
        ("id", json!("sha256:x")),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        rig::write(&record, bad.to_string().as_bytes());
        // The image is not found; but nothing is thrown away on the strength of that.
        assert_eq!(rig.store.find(&name, None).unwrap(), None, "{field}");
        assert!(rig.store.collect(&HashSet::new()).is_err(), "{field}");
    }
    rig::write(&record, good.to_string().as_bytes());
    assert!(rig.store.find(&name, None).unwrap().is_some());
}

#[test]
fn the_built_in_image_runs_the_machines_programs_and_shows_no_secrets() {
    let rig = Rig::new();
    let image = rig
        .store
        .find(&"host".parse().unwrap(), None)
        .unwrap()
        .unwrap();
    assert!(image.reference.is_built_in());
    let again = rig.store.host_image().unwrap();
    assert_eq!(
        (again.layers, again.digest),
        (image.layers.clone(), image.digest)
    );
    let root = &image.layer_dirs()[0];
    // As a dyno would see it: the binds on top, everything else from the generated root.
    let binds: Vec<_> = image
        .binds
        .iter()
        .map(|bind| format!("{}:{}", bind.source.display(), bind.target))
        .collect();
    let script = r#"
        set -e
        root=$1; shift
        for bind; do mount --rbind -o ro "${bind%%:*}" "$root${bind#*:}"; done
        exec chroot "$root" /bin/sh -c '
            id -u root >/dev/null && getent group root >/dev/null
            find /root /home /var /opt /srv /mnt -type f | head
            find /etc ! -type d ! -type l ! -perm -004
            find /etc -name "*shadow*" -o -name "*_key" -o -name private
            grep -rl "PRIVATE KEY-" /etc || true'
    "#;
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(root)
        .args(&binds)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "", "this is shown and should not be");
}

#[test]
fn futures_can_be_spawned_and_read_errors_are_told() {
    fn is_send<T: Send>(_: &T) {}
    let rig = Rig::new();
    let options = dyno_images::PullOptions::default();
    let name = reference("x:1");
    is_send(&rig.store.pull(&name, &options, ignore));
    is_send(&rig.store.load(io::Cursor::new(Vec::new()), None, ignore));
    is_send(&rig.store.import(&name, io::Cursor::new(Vec::new()), ignore));
}
