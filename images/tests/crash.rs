//! A process that uses a store is killed at any moment; what the next one finds.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod rig;

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use dyno_images::{Digest, Store};
use rig::{Layout, Tar, ignore, layer};

const VICTIM: &str = "DYNO_TEST_VICTIM";
/// What the victim says once it works, however slow the machine is.
const BEGUN: &str = "begun";
const ROUNDS: u64 = 25;
const IMAGES: usize = 3;

/// Imports, forgets and collects images until it is killed.
async fn live_and_die(root: &Path, layout: &Path) {
    let store = Store::open(root, rig::jail()).unwrap();
    eprintln!("{BEGUN}");
    loop {
        let images = store.import_layout(layout, None, ignore).await.unwrap();
        for image in &images[1..] {
            store.remove(&image.reference).unwrap();
        }
        store.collect(&HashSet::new()).unwrap();
    }
}

/// Everything that is visible is complete: records have their layers and blobs, blobs are what
/// they are called, layers hold all their files.
fn assert_sound(root: &Path, store: &Store, files: usize) {
    for blob in fs::read_dir(root.join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(Digest::of(&fs::read(&path).unwrap()).hex(), name);
    }
    for layer in fs::read_dir(root.join("layers")).unwrap() {
        let path = layer.unwrap().path();
        assert!(path.join("layer.json").exists(), "{}", path.display());
        assert_eq!(
            fs::read_dir(path.join("fs")).unwrap().count(),
            files,
            "{}",
            path.display()
        );
    }
    for image in store.list().unwrap() {
        assert!(
            image.layer_dirs().iter().all(|dir| dir.exists()),
            "{}",
            image.reference
        );
        assert!(root.join("blobs/sha256").join(image.id.hex()).exists());
    }
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_killed_process_leaves_whole_images_or_none() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Ok(arguments) = std::env::var(VICTIM) {
        let (root, layout) = arguments.split_once(':').unwrap();
        runtime.block_on(live_and_die(Path::new(root), Path::new(layout)));
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("images");
    let mut layout = Layout::new();
    let files = 300;
    for image in 0..IMAGES {
        let tar = (0..files).fold(Tar::default(), |tar, n| {
            tar.file(&format!("f{n}"), &format!("{image} {n}"))
        });
        layout.image(&format!("x:{image}"), &[layer(tar)]);
    }
    let mut interrupted = 0;
    for round in 0..ROUNDS {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_killed_process_leaves_whole_images_or_none",
                "--nocapture",
            ])
            .env(
                VICTIM,
                format!("{}:{}", root.display(), layout.path().display()),
            )
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(victim.stderr.take().unwrap());
        let begun = stderr.lines().find(|line| line.as_ref().unwrap() == BEGUN);
        assert!(begun.is_some(), "the victim never worked");
        // Spread over more than one turn of its loop.
        std::thread::sleep(Duration::from_millis(20 + round * 13));
        assert!(
            victim.try_wait().unwrap().is_none(),
            "the victim ended by itself"
        );
        victim.kill().unwrap();
        victim.wait().unwrap();
        let busy = fs::read_dir(root.join("tmp")).is_ok_and(|entries| entries.count() > 0);
        interrupted += usize::from(busy);
        // At once: the killed process' helper may still be dying.
        let store = Store::open(&root, rig::jail()).unwrap();
        assert_sound(&root, &store, files);
    }
    assert!(
        interrupted > 0,
        "no kill ever came in the middle of something"
    );
    let store = Store::open(&root, rig::jail()).unwrap();
    runtime
        .block_on(store.import_layout(layout.path(), None, ignore))
        .unwrap();
    assert_eq!(store.list().unwrap().len(), IMAGES);
}
