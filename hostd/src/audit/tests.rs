use std::fs;
use std::path::PathBuf;
use std::sync::Barrier;

use dyno_api::query::AuditQuery;
use tempfile::TempDir;

use super::reader::{Reader, Wanted};
use super::*;

const SMALL: u64 = 1 << 20;

struct Rig {
    folder: TempDir,
    audit: Audit,
}

impl Rig {
    fn new() -> Self {
        Self::of(SMALL)
    }

    fn of(bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(&folder.path().join("audit"), bytes).unwrap();
        Self { folder, audit }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("audit")
    }

    /// hostd ends, however it does, and another one begins.
    fn again(self) -> Self {
        let Self { folder, audit } = self;
        drop(audit);
        let audit = Audit::open(&folder.path().join("audit"), SMALL).unwrap();
        Self { folder, audit }
    }

    fn begin(&self, target: &str) -> Trail {
        self.audit.begin(asked(target), false).unwrap()
    }

    fn told(&self, query: AuditQuery) -> Vec<AuditEntry> {
        let wanted = Wanted { query, except: 0 };
        let end = self.audit.writer.ends_at();
        let mut reader = Reader::open(&self.path(), wanted, end).unwrap();
        let mut told = Vec::new();
        while let Some(more) = reader.next(end).unwrap() {
            told.extend(more);
        }
        told.extend(reader.running());
        told
    }

    fn bytes(&self) -> u64 {
        let files = fs::read_dir(self.path()).unwrap();
        files
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum()
    }
}

fn asked(target: &str) -> Asked {
    Asked {
        request: "r".to_owned(),
        caller: AuditCaller::User {
            uid: 0,
            pid: Some(1),
        },
        operation: "dyno.start",
        target: Some(target.to_owned()),
        dyno: None,
    }
}

/// What callers' operations in this state were done to.
fn targets(entries: &[AuditEntry], state: AuditState) -> Vec<&str> {
    let theirs = entries
        .iter()
        .filter(|entry| entry.state == state && entry.caller != AuditCaller::Hostd);
    theirs.filter_map(|entry| entry.target.as_deref()).collect()
}

#[tokio::test]
async fn what_was_answered_is_done_and_what_a_killed_hostd_left_is_not_known() {
    let rig = Rig::new();
    rig.begin("one").answered(200, None).await;
    // Nothing of it is dropped where a process is killed.
    std::mem::forget(rig.begin("two"));
    let runs = rig.told(AuditQuery::default());
    assert_eq!(targets(&runs, AuditState::Done), ["one"]);
    assert_eq!(targets(&runs, AuditState::Running), ["two"]);
    let last = runs.iter().map(|entry| entry.id).max().unwrap();
    let rig = rig.again();
    rig.begin("three").answered(200, None).await;
    let told = rig.told(AuditQuery::default());
    assert_eq!(targets(&told, AuditState::Unknown), ["two"]);
    assert_eq!(targets(&told, AuditState::Done), ["one", "three"]);
    let three = told
        .iter()
        .find(|entry| entry.target.as_deref() == Some("three"));
    assert!(three.unwrap().id > last);
    let starts = told.iter().filter(|entry| entry.operation == keeper::START);
    assert_eq!(starts.count(), 2);
}

#[tokio::test]
async fn a_stream_ends_when_the_last_one_lets_go() {
    let rig = Rig::new();
    let trail = rig.begin("one");
    let kept = trail.clone();
    trail.answered(101, None).await;
    let all = AuditQuery::default;
    assert_eq!(targets(&rig.told(all()), AuditState::Running), ["one"]);
    kept.failed(ErrorKind::Upstream);
    kept.target("two");
    drop(kept);
    let told = rig.told(all());
    assert_eq!(targets(&told, AuditState::Done), ["two"]);
    let end = told.last().unwrap();
    assert_eq!(end.status, Some(101));
    assert_eq!(end.error, Some(ErrorKind::Upstream));
}

#[tokio::test]
async fn an_operation_that_was_given_up_has_an_end_that_is_not_known() {
    let rig = Rig::new();
    drop(rig.begin("one"));
    let told = rig.told(AuditQuery::default());
    assert_eq!(targets(&told, AuditState::Unknown), ["one"]);
}

#[test]
fn many_at_once_lose_nothing_double_nothing_and_keep_their_order() {
    const THREADS: usize = 8;
    const EACH: usize = 500;
    // Files of 512 KiB: they change in between.
    let rig = Rig::of(4 << 20);
    let begin = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (rig, begin) = (&rig, &begin);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                begin.wait();
                runtime.unwrap().block_on(async {
                    for number in 0..EACH {
                        let trail = rig.begin(&format!("{thread}-{number}"));
                        trail.answered(200, None).await;
                    }
                });
            });
        }
    });
    let told = rig.told(AuditQuery::default());
    let mut ids: Vec<u64> = told.iter().map(|entry| entry.id).collect();
    ids.sort_unstable();
    // The first is hostd's own.
    assert!(ids.into_iter().eq(1..=(THREADS * EACH) as u64 + 1));
    assert!(segment::numbers(&rig.path()).unwrap().len() > 2);
    for thread in 0..THREADS {
        let theirs = told.iter().filter_map(|entry| entry.target.as_deref());
        let numbers: Vec<usize> = theirs
            .filter_map(|target| target.strip_prefix(&format!("{thread}-")))
            .map(|number| number.parse().unwrap())
            .collect();
        assert!(numbers.into_iter().eq(0..EACH), "{thread}");
    }
}

#[tokio::test]
async fn no_more_than_its_size_is_kept_and_the_newest_is() {
    let rig = Rig::new();
    for number in 0..6000 {
        drop(rig.begin(&number.to_string()));
        if number % 100 == 0 {
            rig.audit.writer.synced().await;
        }
    }
    rig.audit.writer.synced().await;
    assert!(rig.bytes() <= SMALL, "{} bytes", rig.bytes());
    assert!(segment::numbers(&rig.path()).unwrap()[0] > 1);
    let last = |limit| AuditQuery {
        limit: Some(limit),
        ..AuditQuery::default()
    };
    let told = rig.told(last(1500));
    assert!(told.len() >= 1500, "{}", told.len());
    assert_eq!(told.last().unwrap().target.as_deref(), Some("5999"));
    let again = rig.again();
    drop(again.begin("after"));
    let told = again.told(AuditQuery::default());
    assert_eq!(told.last().unwrap().target.as_deref(), Some("after"));
    assert!(again.bytes() <= SMALL);
}

#[tokio::test]
async fn entries_are_found_by_time_operation_and_caller() {
    let rig = Rig::new();
    rig.begin("one").answered(200, None).await;
    let between = Timestamp::now();
    // Enough for several files.
    for number in 0..700 {
        rig.begin(&number.to_string()).answered(200, None).await;
    }
    assert!(segment::numbers(&rig.path()).unwrap().len() > 2);
    let found = |query| -> Vec<String> {
        let told = rig.told(query);
        let found = targets(&told, AuditState::Done);
        found.into_iter().map(str::to_owned).collect()
    };
    let with = AuditQuery::default;
    let since = AuditQuery {
        since: Some(between),
        ..with()
    };
    assert_eq!(found(since).len(), 700);
    let until = AuditQuery {
        until: Some(between),
        ..with()
    };
    assert_eq!(found(until), ["one"]);
    for (operation, is) in [("dyno", 701), ("dyno.start", 701), ("volume", 0)] {
        let query = AuditQuery {
            operation: Some(operation.to_owned()),
            ..with()
        };
        assert_eq!(found(query).len(), is, "{operation}");
    }
    let query = AuditQuery {
        caller: Some("1000".to_owned()),
        ..with()
    };
    assert!(found(query).is_empty());
}

#[test]
fn what_callers_wrote_is_short_and_plain() {
    assert_eq!(bounded("a\x1b[2J\u{202e}\nb"), "a?[2J??b");
    assert_eq!(bounded(&"\u{e9}".repeat(9999)).len(), MAX_TARGET);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_refuses_changes_and_recovers_by_itself() {
    let top = tempfile::tempdir().unwrap();
    let folder = top.path().join("no/such/folder");
    let audit = Audit::open(&folder, SMALL).unwrap();
    assert!(audit.begin(asked("one"), false).is_err());
    // What frees the disk is done all the same.
    audit
        .begin(asked("two"), true)
        .unwrap()
        .answered(200, None)
        .await;
    assert!(audit.trouble().is_some());
    fs::create_dir_all(folder.parent().unwrap()).unwrap();
    let deadline = Instant::now() + std::time::Duration::from_secs(30);
    while audit.trouble().is_some() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    audit
        .begin(asked("three"), false)
        .unwrap()
        .answered(200, None)
        .await;
    let end = audit.writer.ends_at();
    let mut reader = Reader::open(&folder, Wanted::default(), end).unwrap();
    let told = reader.next(end).unwrap().unwrap();
    let operations: Vec<&str> = told.iter().map(|entry| entry.operation.as_str()).collect();
    assert_eq!(operations, ["hostd.start", "audit.lost", "dyno.start"]);
    assert_eq!(told[1].target.as_deref(), Some("2 lines"));
}

#[tokio::test]
async fn what_the_disk_does_not_take_is_told_and_another_file_is_begun() {
    let rig = Rig::new();
    rig.begin("one").answered(200, None).await;
    // Of a character device pwrite(2) works and fdatasync(2) is an error, as of a disk that
    // has broken meanwhile.
    let device = fs::OpenOptions::new()
        .write(true)
        .open("/dev/null")
        .unwrap();
    let shared = rig.audit.writer.shared.clone();
    shared.tail().current.as_mut().unwrap().file = Arc::new(device);
    // It was done, and is answered.
    rig.begin("two").answered(200, None).await;
    assert_eq!(
        targets(&rig.told(AuditQuery::default()), AuditState::Done),
        ["one"]
    );
    let deadline = Instant::now() + std::time::Duration::from_secs(30);
    while rig.audit.begin(asked("three"), false).is_err() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let told = rig.told(AuditQuery::default());
    assert_eq!(targets(&told, AuditState::Done), ["one"]);
    assert_eq!(targets(&told, AuditState::Unknown), ["three"]);
    let lost = told.iter().find(|entry| entry.operation == "audit.lost");
    assert_eq!(lost.unwrap().target.as_deref(), Some("2 lines"));
    assert_eq!(segment::numbers(&rig.path()).unwrap().len(), 3);
}
