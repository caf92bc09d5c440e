//! The store in a file: what its disk and its process can do to it.

use std::io::{BufRead, BufReader, Read as _, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dyno_cluster::store::embedded::{Embedded, KEPT};
use dyno_cluster::store::{Error, Event, Fresh, Outcome, Revision, Store, Transaction};
use tempfile::TempDir;

use crate::suite::{Any, done, events, get, promises};

pub async fn open() -> (Any, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (open_in(folder.path()).await, folder)
}

async fn open_in(folder: &Path) -> Any {
    Arc::new(Embedded::open(&folder.join("store")).unwrap())
}

promises!(open);

#[tokio::test(flavor = "multi_thread")]
async fn it_is_the_same_when_it_is_opened_again() {
    let (store, folder) = open().await;
    let lease = store.grant(Duration::from_secs(2)).await.unwrap().id;
    let first = done(&store, Transaction::new().create("a", "1")).await;
    let leased = Transaction::new().create_with("b", "1", lease);
    let last = done(&store, leased).await;
    let before = store.list(b"", Fresh::Latest).await.unwrap();
    drop(store);
    let store = open_in(folder.path()).await;
    assert_eq!(store.list(b"", Fresh::Latest).await.unwrap(), before);
    let mut watch = store.watch(b"", first).await.unwrap();
    let told = events(&mut watch, 1).await;
    assert_eq!(told.iter().map(Event::revision).collect::<Vec<_>>(), [last]);
    // The lease has its whole time again, and ends.
    assert_eq!(store.keep_alive(lease).await.unwrap().id, lease);
    let told = events(&mut watch, 1).await;
    assert!(matches!(&told[..], [Event::Delete { key, .. }] if key == b"b"));
    assert_ne!(store.grant(Duration::from_secs(2)).await.unwrap().id, lease);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_opens_it_meanwhile() {
    let (store, folder) = open().await;
    let second = Embedded::open(&folder.path().join("store"));
    assert!(matches!(second, Err(Error::Unavailable(_))), "{second:?}");
    done(&store, Transaction::new().create("a", "1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_nobody_elses_to_read() {
    use std::os::unix::fs::PermissionsExt;
    let (_store, folder) = open().await;
    let mode = std::fs::metadata(folder.path().join("store"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_changes_are_known_and_the_log_does_not_grow_for_ever() {
    let (store, _folder) = open().await;
    let mut at = done(&store, Transaction::new().create("n", "")).await;
    let rounds = KEPT + 1000;
    for _ in 0..rounds / 50 {
        // Many at once, which share an fsync.
        let writers = (0..50).map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                done(&store, Transaction::new().create(format!("k{n}"), "")).await;
                let made = get(&store, &format!("k{n}")).await.unwrap().modified;
                done(&store, Transaction::new().delete(format!("k{n}"), made)).await
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            at = writer.await.unwrap().max(at);
        }
    }
    let known = Revision(at.0 - KEPT + 100);
    let mut watch = store.watch(b"", known).await.unwrap();
    let count = usize::try_from(at.0 - known.0).unwrap();
    assert_eq!(events(&mut watch, count).await.len(), count);
    let forgotten = store.watch(b"", Revision(1)).await.map(drop);
    assert!(
        matches!(forgotten, Err(Error::Compacted { .. })),
        "{forgotten:?}"
    );
}

const WRITER: &str = "DYNO_STORE_WRITER";

/// Not a test of its own: the process that the next one kills.
#[tokio::test(flavor = "multi_thread")]
async fn writer() {
    let Some(folder) = std::env::var_os(WRITER) else {
        return;
    };
    let store = open_in(Path::new(&folder)).await;
    let next = store.list(b"k/", Fresh::Latest).await.unwrap().value.len();
    for n in next.. {
        let revision = done(&store, Transaction::new().create(format!("k/{n:06}"), "")).await;
        writeln!(std::io::stdout(), "acknowledged {n} {revision}").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..10_u64 {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "embedded::writer", "--nocapture"])
            .env(WRITER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let enough = acknowledged + 5 + round * 13 % 40;
        let mut take = |line: String| {
            let number = line.strip_prefix("acknowledged ").map(|rest| {
                let (number, _revision) = rest.split_once(' ').unwrap();
                number.parse::<u64>().unwrap()
            });
            acknowledged = number.map_or(acknowledged, |number| number + 1);
            acknowledged
        };
        while take(lines.next().expect("a writer that goes on").unwrap()) < enough {}
        writer.kill().unwrap();
        writer.wait().unwrap();
        for line in lines {
            // The last may be cut off.
            match line.unwrap() {
                line if line.split(' ').count() == 3 => drop(take(line)),
                _ => break,
            }
        }
        let store = open_in(folder.path()).await;
        let list = store.list(b"k/", Fresh::Latest).await.unwrap();
        let there = u64::try_from(list.value.len()).unwrap();
        // One more may have been done whose word did not arrive.
        assert!(
            (acknowledged..=acknowledged + 1).contains(&there),
            "{acknowledged} {there}"
        );
        let status = store.status().await.unwrap();
        assert_eq!(status.revision, list.revision);
    }
}

/// A file system of so many bytes, for this thread and those that it begins.
fn own_tmpfs(folder: &Path, size: u64) {
    use nix::mount::{MsFlags, mount};
    let none: Option<&str> = None;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("root");
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let size = format!("size={size}");
    mount(
        none,
        folder,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(size.as_str()),
    )
    .unwrap();
}

#[test]
fn on_a_full_disk_changes_are_refused_and_go_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    own_tmpfs(folder.path(), 16 << 20);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(a_disk_fills_and_is_emptied(folder.path()));
}

async fn a_disk_fills_and_is_emptied(folder: &Path) {
    let (store, ballast) = (open_in(folder).await, folder.join("ballast"));
    let at = done(&store, Transaction::new().create("a", "1")).await;
    fill(&ballast);
    let mut n = 0;
    let full = loop {
        n += 1;
        let next = Transaction::new().create(format!("k{n}"), vec![1; 100_000]);
        match store.commit(&next).await {
            Ok(Outcome::Committed { .. }) => {}
            Ok(conflict @ Outcome::Conflict { .. }) => panic!("{conflict:?}"),
            Err(error) => break error,
        }
        assert!(n < 1000);
    };
    assert!(matches!(full, Error::Full(_)), "{full}");
    // What is there can be read meanwhile.
    assert_eq!(get(&store, "a").await.unwrap().modified, at);
    assert_eq!(get(&store, &format!("k{n}")).await, None);
    std::fs::remove_file(&ballast).unwrap();
    done(&store, Transaction::new().replace("a", at, "2")).await;
    assert_eq!(get(&store, "a").await.unwrap().value, b"2");
}

fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    while file.write_all(&[0; 65536]).is_ok() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_changed_is_refused_and_never_believed() {
    let (store, folder) = open().await;
    for n in 0..200 {
        done(
            &store,
            Transaction::new().create(format!("k{n:03}"), vec![7; 500]),
        )
        .await;
    }
    let truth = store.list(b"", Fresh::Latest).await.unwrap();
    drop(store);
    let path = folder.path().join("store");
    let whole = std::fs::read(&path).unwrap();
    let mut refused = 0;
    for round in 0..40_usize {
        let at = (round * 7919 + 1) * 1031 % whole.len();
        let mut file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        file.write_all(&whole).unwrap();
        file.set_len(u64::try_from(whole.len()).unwrap()).unwrap();
        let mut byte = [0];
        file.seek(SeekFrom::Start(u64::try_from(at).unwrap()))
            .unwrap();
        file.read_exact(&mut byte).unwrap();
        file.seek(SeekFrom::Start(u64::try_from(at).unwrap()))
            .unwrap();
        file.write_all(&[byte[0] ^ 0x10]).unwrap();
        drop(file);
        match Embedded::open(&path) {
            // An unused place, or one that was repaired from another.
            Ok(store) => {
                let list = store.list(b"", Fresh::Latest).await.unwrap();
                assert!(list == truth, "byte {at} was believed");
            }
            Err(Error::Damaged(_)) => refused += 1,
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
    assert!(refused > 0);
}
