//! What every store keeps. `promises!` makes a test of each for one kind of store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dyno_cluster::store::{
    Entry, Error, Event, Fresh, Is, KEYS_MAX, Outcome, Revision, Store, Transaction, VALUE_MAX,
    Watch,
};
use tokio::time::timeout;

pub type Any = Arc<dyn Store>;

macro_rules! promises {
    ($open:path) => {
        $crate::suite::promises!($open:
            what_is_written_is_read_with_its_revisions,
            what_is_not_as_expected_is_not_changed_and_is_shown,
            a_transaction_is_done_whole_or_not_at_all,
            of_writers_at_once_each_change_is_done_once,
            a_list_is_in_order_whole_and_of_one_moment,
            values_are_kept_to_the_byte,
            a_watch_tells_each_change_once_and_in_order,
            a_watch_begins_in_the_past,
            a_watch_that_is_not_read_holds_up_nobody_and_loses_nothing,
            a_wait_for_changes_may_be_given_up,
            forgotten_changes_are_refused_and_all_else_is_there,
            a_lease_ends_with_its_keys_and_that_is_told,
            a_lease_that_is_kept_alive_does_not_end,
            a_lease_that_was_revoked_ends_at_once,
            what_was_replaced_outlives_its_former_lease,
            nothing_hangs_on_a_lease_that_has_ended,
            whoever_has_seen_a_change_reads_nothing_older,
            what_cannot_be_is_refused,
            it_says_how_it_is,
        );
    };
    ($open:path: $($name:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let (store, rig) = $open().await;
                $crate::suite::$name(&store).await;
                drop((store, rig));
            }
        )*
    };
}
pub(crate) use promises;

/// Nothing here takes longer unless it never ends.
const PATIENCE: Duration = Duration::from_secs(20);

pub async fn done(store: &Any, transaction: Transaction) -> Revision {
    match store.commit(&transaction).await.unwrap() {
        Outcome::Committed { revision } => revision,
        conflict @ Outcome::Conflict { .. } => panic!("{transaction:?}: {conflict:?}"),
    }
}

pub async fn get(store: &Any, key: &str) -> Option<Entry> {
    store
        .get(key.as_bytes(), Fresh::Latest)
        .await
        .unwrap()
        .value
}

async fn keys(store: &Any, prefix: &[u8]) -> Vec<Vec<u8>> {
    let list = store.list(prefix, Fresh::Latest).await.unwrap();
    list.value.into_iter().map(|entry| entry.key).collect()
}

/// The next so many events.
pub async fn events(watch: &mut Watch, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        let batch = timeout(PATIENCE, watch.next())
            .await
            .expect("a change")
            .unwrap();
        let last = batch.events.last().map(Event::revision);
        assert!(last.is_none_or(|last| last <= batch.revision));
        events.extend(batch.events);
    }
    events
}

pub async fn what_is_written_is_read_with_its_revisions(store: &Any) {
    assert_eq!(get(store, "a").await, None);
    let first = done(store, Transaction::new().create("a", "1")).await;
    let entry = get(store, "a").await.unwrap();
    assert_eq!(entry.value, b"1");
    assert_eq!(
        (entry.created, entry.modified, entry.lease),
        (first, first, None)
    );
    let second = done(store, Transaction::new().replace("a", first, "2")).await;
    assert!(second > first);
    let entry = get(store, "a").await.unwrap();
    assert_eq!(
        (&entry.value[..], entry.created, entry.modified),
        (&b"2"[..], first, second)
    );
    let third = done(store, Transaction::new().delete("a", second)).await;
    assert_eq!(get(store, "a").await, None);
    let fourth = done(store, Transaction::new().create("a", "3")).await;
    assert_eq!(get(store, "a").await.unwrap().created, fourth);
    assert!(fourth > third);
}

pub async fn what_is_not_as_expected_is_not_changed_and_is_shown(store: &Any) {
    let first = done(store, Transaction::new().create("a", "1").create("b", "1")).await;
    let second = done(store, Transaction::new().replace("a", first, "2")).await;
    for wrong in [
        Transaction::new().create("a", "x"),
        Transaction::new().replace("a", first, "x"),
        Transaction::new().delete("a", first),
        Transaction::new().replace("c", first, "x"),
        Transaction::new().expect("a", Is::Absent).create("d", "x"),
        Transaction::new().expect("c", Is::Present).create("d", "x"),
        Transaction::new()
            .expect("a", Is::At(first))
            .create("d", "x"),
    ] {
        let Outcome::Conflict { revision, found } = store.commit(&wrong).await.unwrap() else {
            panic!("{wrong:?} was done");
        };
        assert_eq!(revision, second);
        assert_eq!(found.len(), wrong.expects().len());
        for (expect, found) in wrong.expects().iter().zip(found) {
            let there = store.get(&expect.key, Fresh::Latest).await.unwrap().value;
            assert_eq!(found, there);
        }
    }
    assert_eq!(keys(store, b"").await, [b"a", b"b"]);
    assert_eq!(get(store, "a").await.unwrap().modified, second);
    // Expectations alone change nothing, and are answered.
    let only = Transaction::new()
        .expect("a", Is::At(second))
        .expect("c", Is::Absent);
    assert_eq!(done(store, only).await, second);
}

pub async fn a_transaction_is_done_whole_or_not_at_all(store: &Any) {
    let many = |value: &str| {
        (0..KEYS_MAX).fold(Transaction::new(), |all, n| {
            all.create(format!("k/{n:03}"), value)
        })
    };
    let revision = done(store, many("1")).await;
    let list = store.list(b"k/", Fresh::Latest).await.unwrap();
    assert_eq!((list.value.len(), list.revision), (KEYS_MAX, revision));
    assert!(list.value.iter().all(|entry| entry.modified == revision));
    let one_is_wrong = Transaction::new()
        .replace("k/000", revision, "2")
        .delete("k/001", revision)
        .create("k/002", "2");
    let outcome = store.commit(&one_is_wrong).await.unwrap();
    assert!(matches!(outcome, Outcome::Conflict { .. }));
    assert_eq!(store.list(b"k/", Fresh::Latest).await.unwrap(), list);
}

pub async fn of_writers_at_once_each_change_is_done_once(store: &Any) {
    done(store, Transaction::new().create("n", "0")).await;
    let writers = (0..8).map(|_| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let mut revisions = Vec::new();
            while revisions.len() < 20 {
                let now = get(&store, "n").await.unwrap();
                let number: u64 = String::from_utf8(now.value).unwrap().parse().unwrap();
                let next = (number + 1).to_string();
                let next = Transaction::new().replace("n", now.modified, next);
                if let Outcome::Committed { revision } = store.commit(&next).await.unwrap() {
                    revisions.push(revision);
                }
            }
            revisions
        })
    });
    let mut revisions = BTreeSet::new();
    for writer in writers.collect::<Vec<_>>() {
        revisions.extend(writer.await.unwrap());
    }
    assert_eq!(revisions.len(), 160);
    assert_eq!(get(store, "n").await.unwrap().value, b"160");
}

pub async fn a_list_is_in_order_whole_and_of_one_moment(store: &Any) {
    let names: BTreeSet<Vec<u8>> = (0..300_u32)
        .map(|n| [b"a/", &n.wrapping_mul(2_654_435_761).to_be_bytes()[..]].concat())
        .chain([b"a".to_vec(), b"a/".to_vec(), b"a0".to_vec(), b"b".to_vec()])
        .chain([vec![0xff], vec![0xff, 0xff, 1], vec![0]])
        .collect();
    for name in &names {
        done(store, Transaction::new().create(name.clone(), "")).await;
    }
    assert_eq!(
        keys(store, b"").await,
        names.iter().cloned().collect::<Vec<_>>()
    );
    for prefix in [&b"a/"[..], b"a", b"\xff", b"\xff\xff", b"c", b"b"] {
        let begin = |name: &&Vec<u8>| name.starts_with(prefix);
        let expected: Vec<Vec<u8>> = names.iter().filter(begin).cloned().collect();
        assert_eq!(keys(store, prefix).await, expected, "{prefix:?}");
    }
    // While somebody moves a key back and forth, each list has it once.
    let moving = Arc::clone(store);
    let mut at = done(store, Transaction::new().create("a/\u{1}first", "")).await;
    let mover = tokio::spawn(async move {
        for turn in 0..40 {
            let (from, to) = match turn % 2 {
                0 => ("a/\u{1}first", "a/\u{7f}last"),
                _ => ("a/\u{7f}last", "a/\u{1}first"),
            };
            at = done(&moving, Transaction::new().delete(from, at).create(to, "")).await;
        }
    });
    while !mover.is_finished() {
        let listed = keys(store, b"a/").await;
        let moved = |key: &&Vec<u8>| key.ends_with(b"first") || key.ends_with(b"last");
        assert_eq!(listed.iter().filter(moved).count(), 1);
    }
    mover.await.unwrap();
}

pub async fn values_are_kept_to_the_byte(store: &Any) {
    let long: Vec<u8> = (0..VALUE_MAX)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    let key: Vec<u8> = (0..=u8::MAX).collect();
    for value in [Vec::new(), vec![0], long] {
        let revision = done(store, Transaction::new().create(key.clone(), value.clone())).await;
        let entry = store.get(&key, Fresh::Latest).await.unwrap().value.unwrap();
        assert!(entry.value == value && entry.key == key);
        done(store, Transaction::new().delete(key.clone(), revision)).await;
    }
}

pub async fn a_watch_tells_each_change_once_and_in_order(store: &Any) {
    let begin = done(store, Transaction::new().create("a/before", "")).await;
    let mut watch = store.watch(b"a/", begin).await.unwrap();
    let one = done(
        store,
        Transaction::new().create("a/1", "x").create("b/1", "x"),
    )
    .await;
    done(store, Transaction::new().create("b/2", "x")).await;
    let two = done(
        store,
        Transaction::new()
            .replace("a/1", one, "y")
            .create("a/2", "z"),
    )
    .await;
    let three = done(store, Transaction::new().delete("a/1", two)).await;
    let told = events(&mut watch, 4).await;
    let put = |key: &str, value: &str, created, modified| {
        Event::Put(Entry {
            key: key.into(),
            value: value.into(),
            created,
            modified,
            lease: None,
        })
    };
    let expected = [
        put("a/1", "x", one, one),
        put("a/1", "y", one, two),
        put("a/2", "z", two, two),
        Event::Delete {
            key: b"a/1".to_vec(),
            revision: three,
        },
    ];
    assert_eq!(told, expected);
    let last = done(store, Transaction::new().create("a/3", "")).await;
    assert_eq!(events(&mut watch, 1).await, [put("a/3", "", last, last)]);
}

pub async fn a_watch_begins_in_the_past(store: &Any) {
    let mut revisions = Vec::new();
    for n in 0..20 {
        revisions.push(done(store, Transaction::new().create(format!("k{n}"), "")).await);
    }
    for (index, after) in revisions.iter().enumerate().take(19) {
        let mut watch = store.watch(b"", *after).await.unwrap();
        let told = events(&mut watch, 19 - index).await;
        let told: Vec<Revision> = told.iter().map(Event::revision).collect();
        assert_eq!(told, revisions[index + 1..]);
    }
}

pub async fn a_watch_that_is_not_read_holds_up_nobody_and_loses_nothing(store: &Any) {
    let mut idle = store.watch(b"k", Revision(0)).await.unwrap();
    let mut revisions = Vec::new();
    for n in 0..400 {
        let value = vec![0; 4096];
        revisions.push(done(store, Transaction::new().create(format!("k{n:03}"), value)).await);
    }
    let told = events(&mut idle, 400).await;
    let told: Vec<Revision> = told.iter().map(Event::revision).collect();
    assert_eq!(told, revisions);
}

pub async fn a_wait_for_changes_may_be_given_up(store: &Any) {
    let mut watch = store.watch(b"k", Revision(0)).await.unwrap();
    let writing = Arc::clone(store);
    let writer = tokio::spawn(async move {
        for n in 0..60 {
            done(&writing, Transaction::new().create(format!("k{n:02}"), "")).await;
        }
    });
    let mut told = Vec::new();
    let begun = Instant::now();
    while told.len() < 60 {
        assert!(begun.elapsed() < PATIENCE, "{} changes", told.len());
        if let Ok(batch) = timeout(Duration::from_micros(300), watch.next()).await {
            told.extend(batch.unwrap().events);
        }
    }
    writer.await.unwrap();
    let keys: Vec<String> = (0..60).map(|n| format!("k{n:02}")).collect();
    let told: Vec<&[u8]> = told.iter().map(Event::key).collect();
    assert_eq!(told, keys.iter().map(String::as_bytes).collect::<Vec<_>>());
}

pub async fn forgotten_changes_are_refused_and_all_else_is_there(store: &Any) {
    let mut revisions = Vec::new();
    for n in 0..20 {
        revisions.push(done(store, Transaction::new().create(format!("k{n:02}"), "")).await);
    }
    let before = store.list(b"", Fresh::Latest).await.unwrap();
    store.compact(revisions[10]).await.unwrap();
    store.compact(revisions[10]).await.unwrap();
    store.compact(revisions[5]).await.unwrap();
    assert_eq!(store.list(b"", Fresh::Latest).await.unwrap(), before);
    let mut watch = store.watch(b"", revisions[10]).await.unwrap();
    assert_eq!(events(&mut watch, 9).await.len(), 9);
    let refused = match store.watch(b"", revisions[3]).await {
        Ok(mut watch) => watch.next().await.map(drop),
        Err(error) => Err(error),
    };
    let refused = refused.unwrap_err();
    assert!(matches!(refused, Error::Compacted { .. }), "{refused}");
    let future = store
        .compact(Revision(revisions[19].0 + 100))
        .await
        .unwrap_err();
    assert!(matches!(future, Error::Invalid(_)), "{future}");
}

pub async fn a_lease_ends_with_its_keys_and_that_is_told(store: &Any) {
    let lease = store.grant(Duration::from_secs(1)).await.unwrap();
    assert!(lease.ttl >= Duration::from_secs(1));
    let transaction = Transaction::new()
        .create_with("k/1", "", lease.id)
        .create_with("k/2", "", lease.id)
        .create("k/3", "");
    let made = done(store, transaction).await;
    assert_eq!(get(store, "k/1").await.unwrap().lease, Some(lease.id));
    let mut watch = store.watch(b"k/", made).await.unwrap();
    let gone = events(&mut watch, 2).await;
    let gone: BTreeSet<&[u8]> = gone.iter().map(Event::key).collect();
    assert_eq!(gone, BTreeSet::from([&b"k/1"[..], b"k/2"]));
    assert_eq!(keys(store, b"k/").await, [b"k/3"]);
    let ended = store.keep_alive(lease.id).await.unwrap_err();
    assert!(
        matches!(ended, Error::NoLease(id) if id == lease.id),
        "{ended}"
    );
}

pub async fn a_lease_that_is_kept_alive_does_not_end(store: &Any) {
    let lease = store.grant(Duration::from_secs(2)).await.unwrap();
    done(store, Transaction::new().create_with("k", "", lease.id)).await;
    for _ in 0..5 {
        tokio::time::sleep(lease.ttl / 2).await;
        assert_eq!(store.keep_alive(lease.id).await.unwrap(), lease);
    }
    assert!(get(store, "k").await.is_some());
}

pub async fn a_lease_that_was_revoked_ends_at_once(store: &Any) {
    let lease = store.grant(Duration::from_secs(600)).await.unwrap();
    done(store, Transaction::new().create_with("k", "", lease.id)).await;
    store.revoke(lease.id).await.unwrap();
    assert_eq!(get(store, "k").await, None);
    for ended in [
        store.revoke(lease.id).await.unwrap_err(),
        store.keep_alive(lease.id).await.unwrap_err(),
    ] {
        assert!(
            matches!(ended, Error::NoLease(id) if id == lease.id),
            "{ended}"
        );
    }
}

pub async fn what_was_replaced_outlives_its_former_lease(store: &Any) {
    let (one, two) = (
        store.grant(Duration::from_secs(600)).await.unwrap().id,
        store.grant(Duration::from_secs(600)).await.unwrap().id,
    );
    let made = Transaction::new()
        .create_with("free", "", one)
        .create_with("other", "", one)
        .create_with("gone", "", one);
    let made = done(store, made).await;
    let changed = Transaction::new()
        .replace("free", made, "")
        .replace_with("other", made, "", two)
        .delete("gone", made);
    done(store, changed).await;
    done(store, Transaction::new().create("gone", "anew")).await;
    store.revoke(one).await.unwrap();
    assert_eq!(keys(store, b"").await, [&b"free"[..], b"gone", b"other"]);
    store.revoke(two).await.unwrap();
    assert_eq!(keys(store, b"").await, [&b"free"[..], b"gone"]);
}

pub async fn nothing_hangs_on_a_lease_that_has_ended(store: &Any) {
    let lease = store.grant(Duration::from_secs(600)).await.unwrap().id;
    store.revoke(lease).await.unwrap();
    let late = Transaction::new()
        .create("a", "")
        .create_with("b", "", lease);
    let error = store.commit(&late).await.unwrap_err();
    assert!(matches!(error, Error::NoLease(_)), "{error}");
    assert!(keys(store, b"").await.is_empty());
}

pub async fn whoever_has_seen_a_change_reads_nothing_older(store: &Any) {
    let mut at = done(store, Transaction::new().create("n", "0")).await;
    for n in 1..50 {
        at = done(store, Transaction::new().replace("n", at, n.to_string())).await;
        let read = store.get(b"n", Fresh::AtLeast(at)).await.unwrap();
        assert!(read.revision >= at && read.value.unwrap().modified == at);
        let read = store.list(b"n", Fresh::AtLeast(at)).await.unwrap();
        assert!(read.revision >= at && read.value[0].modified == at);
    }
    let future = Fresh::AtLeast(Revision(at.0 + 1000));
    let error = store.get(b"n", future).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
}

pub async fn what_cannot_be_is_refused(store: &Any) {
    let before = store.status().await.unwrap().revision;
    for transaction in [
        Transaction::new(),
        Transaction::new().create("", ""),
        Transaction::new().create("a", vec![0; VALUE_MAX + 1]),
        Transaction::new().create("a", "").expect("a", Is::Absent),
    ] {
        let error = store.commit(&transaction).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error}");
    }
    let error = store.get(b"", Fresh::Latest).await.unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error}");
    assert_eq!(store.status().await.unwrap().revision, before);
}

pub async fn it_says_how_it_is(store: &Any) {
    let revision = done(store, Transaction::new().create("a", vec![1; 100_000])).await;
    let status = store.status().await.unwrap();
    assert_eq!(status.revision, revision);
    assert_eq!(status.alarms, Vec::<String>::new());
    assert!(
        status.used <= status.bytes && status.bytes > 0,
        "{status:?}"
    );
}
