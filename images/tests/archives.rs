//! Images from archives, layouts and root file systems: what is taken, what is refused.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod rig;

use std::collections::HashSet;
use std::fs;
use std::process::Command;
use std::sync::Mutex;

use dyno_images::{
    Digest, DocumentError, Image, IngestError, LayerError, LayerId, LoadError, Phase, Platform,
    Progress, Reference,
};
use rig::{Layout, Rig, Tar, chain, gzip, ignore, layer, reference, zstd};
use serde_json::json;

async fn load(rig: &Rig, archive: &[u8]) -> Result<Vec<Image>, LoadError> {
    rig.store.load(archive, None, ignore).await
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
async fn a_failed_load_or_import_takes_its_blobs_back_and_no_others() {
    let rig = Rig::new();
    let shared = layer(Tar::default().file("f", "content"));
    let mut good = Layout::new();
    good.image("good:1", std::slice::from_ref(&shared));
    load(&rig, &good.archive()).await.unwrap();
    let before = rig.count("blobs/sha256");

    // A good layer that is an image's already, and one that is no tar.
    let bad = gzip(b"garbage");
    let mut layout = Layout::new();
    layout.image("bad:1", &[shared.clone(), (bad, b"garbage".to_vec())]);
    let error = inner(load(&rig, &layout.archive()).await.unwrap_err());
    assert!(
        matches!(error, IngestError::Layer { .. }),
        "{}",
        chain(&error)
    );
    let garbage = &b"garbage"[..];
    let refused = rig.store.import(&reference("bad:2"), garbage, ignore).await;
    assert!(
        matches!(refused, Err(LoadError::Layer(_))),
        "{:?}",
        refused.err()
    );

    assert_eq!(rig.count("blobs/sha256"), before);
    assert!(rig.blob(&Digest::of(&shared.0)).exists());
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
    let find = |platform: Option<&str>| {
        let platform: Option<Platform> = platform.map(|platform| platform.parse().unwrap());
        rig.store
            .find(&reference("x:1"), platform.as_ref())
            .unwrap()
    };
    assert_eq!(find(None).as_ref(), Some(&images[0]));
    assert_eq!(find(Some(&host.to_string())).as_ref(), Some(&images[0]));
    assert_eq!(find(Some("linux/s390x")), None);
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
