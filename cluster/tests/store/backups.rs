//! From one store to another, and back.

use std::collections::BTreeMap;
use std::time::Duration;

use dyno_cluster::backup::{self, BackupError};
use dyno_cluster::store::{Fresh, Transaction, VALUE_MAX};

use crate::suite::{Any, done};

async fn pairs(store: &Any) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let list = store.list(b"", Fresh::Latest).await.unwrap().value;
    list.into_iter()
        .map(|entry| (entry.key, entry.value))
        .collect()
}

/// Many keys, long values, odd bytes; and one on a lease.
async fn filled(store: &Any) -> BTreeMap<Vec<u8>, Vec<u8>> {
    for n in 0..250_u32 {
        let key = [b"k/", &n.to_be_bytes()[..]].concat();
        done(store, Transaction::new().create(key, n.to_string())).await;
    }
    for n in 0..6_u8 {
        done(
            store,
            Transaction::new().create(vec![0xff, n], vec![n; VALUE_MAX]),
        )
        .await;
    }
    done(store, Transaction::new().create("empty", "")).await;
    let lasting = pairs(store).await;
    let lease = store.grant(Duration::from_secs(600)).await.unwrap().id;
    done(store, Transaction::new().create_with("leased", "", lease)).await;
    lasting
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_moves_to_etcd_and_back() {
    let (file, _folder) = crate::embedded::open().await;
    let (etcd, _rig) = crate::etcd::open().await;
    let (again, _other) = crate::embedded::open().await;
    let there = filled(&file).await;
    let count = u64::try_from(there.len()).unwrap();
    assert_eq!(backup::copy(&file, &etcd).await.unwrap(), count);
    assert_eq!(pairs(&etcd).await, there);
    assert_eq!(backup::copy(&etcd, &again).await.unwrap(), count);
    assert_eq!(pairs(&again).await, there);
    // Once more, as after a try that was cut short.
    assert_eq!(backup::copy(&file, &etcd).await.unwrap(), count);
    done(&etcd, Transaction::new().create("k/x", "")).await;
    let refused = backup::copy(&file, &etcd).await.unwrap_err();
    assert!(matches!(refused, BackupError::NotEmpty(key) if key == "k/x"));
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_restoration_is_finished_by_the_next() {
    let (file, _folder) = crate::embedded::open().await;
    let (half, _other) = crate::embedded::open().await;
    let there = filled(&file).await;
    for (key, value) in there.iter().step_by(3) {
        done(&half, Transaction::new().create(&**key, &**value)).await;
    }
    backup::copy(&file, &half).await.unwrap();
    assert_eq!(pairs(&half).await, there);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_restored_whole_or_not_at_all() {
    let (store, _folder) = crate::embedded::open().await;
    let there = filled(&store).await;
    let mut written = Vec::new();
    let count = backup::write(&*store, &mut written).await.unwrap();
    assert_eq!(count, u64::try_from(there.len()).unwrap());
    let (empty, _other) = crate::embedded::open().await;
    let ends = [0, 1, 12, 13, 17, 100, written.len() / 2, written.len() - 1];
    let cut = ends.map(|end| written[..end].to_vec());
    let changed = (0..200).map(|n| {
        let mut changed = written.clone();
        let at = n * 7919 % changed.len();
        changed[at] ^= 1 << (n % 8);
        changed
    });
    let more = [[&written[..], &[0]].concat()];
    for damaged in cut.into_iter().chain(changed).chain(more) {
        let refused = backup::restore(&*empty, &mut &damaged[..]).await;
        assert!(
            matches!(refused, Err(BackupError::Damaged(_))),
            "{refused:?}"
        );
        assert!(pairs(&empty).await.is_empty());
    }
    assert_eq!(
        backup::restore(&*empty, &mut &written[..]).await.unwrap(),
        count
    );
    assert_eq!(pairs(&empty).await, there);
}
