//! The store through its own interface: archives, layouts, damage, crashes, collection.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod rig;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use dyno_images::{
    Digest, DocumentError, Image, IngestError, Jail, LayerError, LayerId, Limits, LoadError, Phase,
    Platform, Progress, Reference, Store, StoreError,
};
use rig::{Layout, Rig, Tar, gzip, zstd};
use serde_json::json;

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// A layer as (stored, tar).
fn layer(tar: Tar) -> (Vec<u8>, Vec<u8>) {
    let tar = tar.end();
    (gzip(&tar), tar)
}

fn ignore(_: Progress) {}

async fn load(rig: &Rig, archive: &[u8]) -> Result<Vec<Image>, LoadError> {
    rig.store.load(archive, None, ignore).await
}

/// The error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// The ingest error within.
fn inner(error: LoadError) -> IngestError {
    match error {
        LoadError::Image { source, .. } => *source,
        other => panic!("{}", chain(&other)),
    }
}

#[tokio::test]
async fn an_oci_archive_becomes_an_image_topmost_layer_first() {
    let rig = Rig::new();
    let mut layout = Layout::new();
    let bottom = layer(
        Tar::default()
            .dir("etc")
            .file("etc/passwd", "www:x:33:33::/:/\n"),
    );
    let tar = Tar::default().dir("srv").file("srv/page", "hello").end();
    let top = (zstd(&tar), tar);
    let manifest = layout.image("example.com/app:1", &[bottom.clone(), top.clone()]);
    let seen = Mutex::new(Vec::new());
    let watch = |progress: Progress| seen.lock().unwrap().push(progress);
    let images = rig
        .store
        .load(&*gzip(&layout.archive()), None, watch)
        .await
        .unwrap();

    let [image] = &images[..] else {
        panic!("{images:?}")
    };
    assert_eq!(image.reference, reference("example.com/app:1"));
    assert_eq!(image.digest, manifest);
    assert_eq!(
        image.layers,
        [LayerId(Digest::of(&top.1)), LayerId(Digest::of(&bottom.1))]
    );
    assert_eq!(image.config.command(), ["/bin/serve"]);
    assert_eq!(image.size_bytes, 5 + 17);
    let dirs = image.layer_dirs();
    assert_eq!(
        fs::read_to_string(dirs[0].join("srv/page")).unwrap(),
        "hello"
    );
    let accounts = dyno_images::identity::Accounts::of_layers(&dirs).unwrap();
    assert_eq!(accounts.identity("www").unwrap().uid, 33);
    let ready = seen
        .lock()
        .unwrap()
        .iter()
        .filter(|p| p.phase == Phase::Ready)
        .count();
    assert_eq!(ready, 3, "the archive and two layers");

    assert_eq!(
        rig.store.find(&image.reference, None).unwrap().as_ref(),
        Some(image)
    );
    let by_digest = reference(&format!("example.com/app@{manifest}"));
    assert_eq!(
        rig.store.find(&by_digest, None).unwrap().as_ref(),
        Some(image)
    );
    assert_eq!(
        rig.store
            .find(&reference("example.com/other:1"), None)
            .unwrap(),
        None
    );
    assert_eq!(rig.store.list().unwrap(), images);
    rig.assert_tidy();
}

#[tokio::test]
async fn a_docker_archive_that_skopeo_wrote_gives_the_same_layers() {
    let rig = Rig::new();
    let mut layout = Layout::new();
    let layers = [
        layer(Tar::default().file("a", "1")),
        layer(Tar::default().file("b", "2")),
    ];
    layout.image("x:1", &layers);
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("docker.tar");
    let from = format!("oci:{}:x:1", layout.path().display());
    let to = format!("docker-archive:{}:example.com/app:2", archive.display());
    let copied = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q", &from, &to])
        .output()
        .unwrap();
    assert!(
        copied.status.success(),
        "{}",
        String::from_utf8_lossy(&copied.stderr)
    );
    let images = load(&rig, &fs::read(archive).unwrap()).await.unwrap();
    assert_eq!(images[0].reference, reference("example.com/app:2"));
    let ids: Vec<_> = layers
        .iter()
        .rev()
        .map(|(_, tar)| LayerId(Digest::of(tar)))
        .collect();
    assert_eq!(images[0].layers, ids);
    rig.assert_tidy();
}

#[tokio::test]
async fn a_given_name_replaces_the_archives_own() {
    let rig = Rig::new();
    let mut layout = Layout::new();
    layout.image("latest", &[layer(Tar::default())]);
    let unnamed = load(&rig, &layout.archive()).await.unwrap_err();
    assert!(chain(&unnamed).contains("no usable name"), "{unnamed}");
    let name = reference("mine");
    let images = rig
        .store
        .import_layout(layout.path(), Some(&name), ignore)
        .await
        .unwrap();
    assert_eq!(images[0].reference, name);
    layout.image("other:1", &[layer(Tar::default().file("f", ""))]);
    let several = rig
        .store
        .import_layout(layout.path(), Some(&name), ignore)
        .await
        .unwrap_err();
    assert!(chain(&several).contains("2 images"), "{several}");
    let taken = rig
        .store
        .import_layout(layout.path(), Some(&Reference::host()), ignore)
        .await;
    assert!(matches!(taken, Err(LoadError::BuiltIn)));
}

#[tokio::test]
async fn a_root_file_system_becomes_an_image_that_runs_a_shell() {
    for pack in [gzip as fn(&[u8]) -> Vec<u8>, zstd, |tar| tar.to_vec()] {
        let rig = Rig::new();
        let tar = Tar::default().dir("bin").file("bin/sh", "#!").end();
        let name = reference("rootfs:1");
        let image = rig.store.import(&name, &*pack(&tar), ignore).await.unwrap();
        assert_eq!(image.config.command(), ["/bin/sh"]);
        assert_eq!(image.layers, [LayerId(Digest::of(&tar))]);
        assert_eq!(image.platform, Platform::host());
        assert_eq!(rig.store.find(&name, None).unwrap(), Some(image));
        // Everything it refers to verifies: it is the same kind of image as a pulled one.
        assert_eq!(rig.store.collect(&HashSet::new()).unwrap().blobs, 0);
        assert_eq!(rig.count("blobs/sha256"), 3);
        rig.assert_tidy();
    }
}

#[tokio::test]
async fn broken_archives_are_refused_and_leave_nothing() {
    let rig = Rig::new();
    let empty = Tar::default().file("readme", "no image here").end();
    let evil = Tar::default().symlink("index.json", "/etc/passwd").end();
    let fifo = Tar::default()
        .raw(tar::EntryType::Fifo, "index.json", "", &[], |_| {})
        .end();
    let escape = Tar::default()
        .file(
            "manifest.json",
            r#"[{"Config":"../../../../etc/passwd","RepoTags":["x:1"],"Layers":[]}]"#,
        )
        .end();
    for (archive, reason) in [
        (b"garbage".to_vec(), "unpack the archive"),
        (gzip(&empty)[..20].to_vec(), "unpack the archive"),
        (empty, "neither index.json"),
        (evil, "neither index.json"),
        (fifo, "not a regular file"),
        (escape, "cannot read ../../../../etc/passwd"),
        (
            Tar::default().file("index.json", "{").end(),
            "index.json is not valid",
        ),
        (
            Tar::default()
                .file("index.json", r#"{"manifests":[]}"#)
                .end(),
            "no image",
        ),
    ] {
        let refused = load(&rig, &archive).await.unwrap_err();
        assert!(
            chain(&refused).contains(reason),
            "{} (expected: {reason})",
            chain(&refused)
        );
        rig.assert_tidy();
    }
    assert_eq!(
        (
            rig.count("blobs/sha256"),
            rig.count("layers"),
            rig.count("images")
        ),
        (0, 0, 0)
    );
    // Positive control: the same rig takes a good one.
    let mut layout = Layout::new();
    layout.image("x:1", &[layer(Tar::default())]);
    load(&rig, &layout.archive()).await.unwrap();
}

// P9
#[tokio::test]
async fn content_that_is_not_what_its_digest_says_is_refused() {
    let rig = Rig::new();
    let good = layer(Tar::default().file("f", "content"));

    let mut layout = Layout::new();
    layout.image("x:1", std::slice::from_ref(&good));
    let path = layout.blob_path(&Digest::of(&good.0));
    let mut flipped = good.0.clone();
    flipped[10] ^= 1;
    rig::write(&path, &flipped);
    let error = inner(
        rig.store
            .import_layout(layout.path(), None, ignore)
            .await
            .unwrap_err(),
    );
    assert!(matches!(error, IngestError::Blob(_)), "{}", chain(&error));
    rig::write(&path, &good.0[..good.0.len() - 1]);
    let error = inner(
        rig.store
            .import_layout(layout.path(), None, ignore)
            .await
            .unwrap_err(),
    );
    assert!(chain(&error).contains("bytes but has"), "{}", chain(&error));
    rig::write(&path, &good.0);

    let mut layout = Layout::new();
    let wrong = Digest::of(b"something else");
    layout.image_with(
        "x:1",
        std::slice::from_ref(&good),
        &[wrong],
        "linux",
        &json!({}),
    );
    let error = inner(
        rig.store
            .import_layout(layout.path(), None, ignore)
            .await
            .unwrap_err(),
    );
    let IngestError::Layer {
        source: LayerError::DiffId { expected, actual },
        ..
    } = &error
    else {
        panic!("{}", chain(&error))
    };
    assert_eq!((expected.0, actual.0), (wrong, Digest::of(&good.1)));

    assert_eq!((rig.count("layers"), rig.count("images")), (0, 0));
    rig.assert_tidy();
}

#[tokio::test]
async fn a_manifest_and_config_that_disagree_are_refused() {
    let rig = Rig::new();
    let good = layer(Tar::default());
    let mut layout = Layout::new();
    layout.image_with("x:1", std::slice::from_ref(&good), &[], "linux", &json!({}));
    let error = inner(
        rig.store
            .import_layout(layout.path(), None, ignore)
            .await
            .unwrap_err(),
    );
    assert!(matches!(
        error,
        IngestError::Document(DocumentError::LayerCount {
            layers: 1,
            diff_ids: 0
        })
    ));
    let mut layout = Layout::new();
    layout.image_with(
        "x:1",
        std::slice::from_ref(&good),
        &[Digest::of(&good.1)],
        "windows",
        &json!({}),
    );
    let error = inner(
        rig.store
            .import_layout(layout.path(), None, ignore)
            .await
            .unwrap_err(),
    );
    assert!(chain(&error).contains("windows/"), "{}", chain(&error));
}

#[tokio::test]
async fn an_index_is_followed_to_the_machines_platform() {
    let rig = Rig::new();
    let mut layout = Layout::new();
    let entry = |layout: &Layout, content: &str, platform: serde_json::Value| {
        let layer = layer(Tar::default().file("which", content));
        let diff_ids = [Digest::of(&layer.1)];
        let (digest, size) = layout.manifest(&[layer], &diff_ids, "linux", &json!({}));
        json!({"mediaType": rig::OCI_MANIFEST, "digest": digest, "size": size, "platform": platform})
    };
    let host = Platform::host();
    let entries = [
        entry(
            &layout,
            "other",
            json!({"os": "linux", "architecture": "s390x"}),
        ),
        entry(
            &layout,
            "mine",
            json!({"os": host.os, "architecture": host.architecture}),
        ),
    ];
    let index =
        json!({"schemaVersion": 2, "mediaType": rig::OCI_INDEX, "manifests": entries}).to_string();
    let digest = layout.blob(index.as_bytes());
    layout.add("x:1", rig::OCI_INDEX, digest, index.len());
    let images = rig
        .store
        .import_layout(layout.path(), None, ignore)
        .await
        .unwrap();
    assert_eq!(images[0].digest, digest);
    assert_eq!(
        fs::read_to_string(images[0].layer_dirs()[0].join("which")).unwrap(),
        "mine"
    );
}

#[tokio::test]
async fn repeated_layers_and_opaque_roots_make_a_stack_that_overlayfs_takes() {
    let rig = Rig::new();
    let a = layer(Tar::default().file("a", "1"));
    let b = layer(Tar::default().file("b", "1"));
    let wipe = layer(Tar::default().file(".wh..wh..opq", "").file("c", "1"));
    let mut layout = Layout::new();
    layout.image("x:1", &[a.clone(), b.clone(), a.clone()]);
    layout.image("x:2", &[a.clone(), wipe.clone(), b.clone()]);
    let images = rig
        .store
        .import_layout(layout.path(), None, ignore)
        .await
        .unwrap();
    let id = |layer: &(Vec<u8>, Vec<u8>)| LayerId(Digest::of(&layer.1));
    assert_eq!(images[0].layers, [id(&a), id(&b)]);
    assert_eq!(images[1].layers, [id(&b), id(&wipe)]);
}

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
