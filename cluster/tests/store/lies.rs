//! A store whose watches lie, as etcd's have.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dyno_cluster::store::mirror::{Mirror, follow};
use dyno_cluster::store::{
    Batch, Entry, Fresh, Lease, LeaseId, Outcome, Read, Result, Revision, Source, Status, Store,
    Transaction, Watch,
};
use tokio::time::timeout;

use crate::embedded::open;
use crate::suite::{Any, done};

/// Drops some changes, doubles some, and turns pairs of them round.
#[derive(Debug)]
struct Liar(Any);

struct Lying {
    truth: Watch,
    seed: u64,
}

impl Lying {
    /// xorshift64, Marsaglia 2003.
    fn random(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }
}

#[async_trait]
impl Source for Lying {
    async fn next(&mut self) -> Result<Batch> {
        let mut batch = self.truth.next().await?;
        let mut told = Vec::new();
        for event in batch.events.drain(..) {
            match self.random() % 4 {
                0 => {}
                1 => told.extend([event.clone(), event]),
                2 => told.insert(0, event),
                _ => told.push(event),
            }
        }
        batch.events = told;
        Ok(batch)
    }
}

#[async_trait]
impl Store for Liar {
    async fn get(&self, key: &[u8], fresh: Fresh) -> Result<Read<Option<Entry>>> {
        self.0.get(key, fresh).await
    }

    async fn list(&self, prefix: &[u8], fresh: Fresh) -> Result<Read<Vec<Entry>>> {
        self.0.list(prefix, fresh).await
    }

    async fn commit(&self, transaction: &Transaction) -> Result<Outcome> {
        self.0.commit(transaction).await
    }

    async fn watch(&self, prefix: &[u8], after: Revision) -> Result<Watch> {
        let truth = self.0.watch(prefix, after).await?;
        let seed = 0x9e37_79b9_7f4a_7c15 ^ after.0;
        Ok(Watch::new(Lying { truth, seed }))
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        self.0.grant(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Lease> {
        self.0.keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.0.revoke(lease).await
    }

    async fn compact(&self, first: Revision) -> Result<()> {
        self.0.compact(first).await
    }

    async fn status(&self) -> Result<Status> {
        self.0.status().await
    }
}

fn shown(mirror: Option<&Mirror>) -> Vec<Entry> {
    mirror.map_or(Vec::new(), |mirror| mirror.list(b"").cloned().collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_follows_a_liar_has_the_truth_after_the_next_list() {
    let (store, _folder) = open().await;
    let liar: Any = Arc::new(Liar(Arc::clone(&store)));
    let mut seen = follow(liar, "k/", Duration::from_millis(300));
    let mut at = std::collections::BTreeMap::new();
    for n in 0..300_u64 {
        let key = format!("k/{}", n * 7 % 20);
        let transaction = match at.get(&key).copied() {
            None => Transaction::new().create(key.clone(), n.to_string()),
            Some(at) if n % 3 == 0 => Transaction::new().delete(key.clone(), at),
            Some(at) => Transaction::new().replace(key.clone(), at, n.to_string()),
        };
        let deleted = transaction.changes().iter().any(is_deletion);
        let revision = done(&store, transaction).await;
        match deleted {
            true => drop(at.remove(&key)),
            false => drop(at.insert(key, revision)),
        }
    }
    let truth = store.list(b"k/", Fresh::Latest).await.unwrap().value;
    let has_it = |mirror: &Option<Arc<Mirror>>| shown(mirror.as_deref()) == truth;
    let seen = timeout(Duration::from_secs(10), seen.wait_for(has_it)).await;
    let mirror = seen.expect("the truth").unwrap();
    assert!(
        mirror.as_ref().unwrap().repaired() > 0,
        "it had no lies to repair"
    );
}

fn is_deletion(change: &dyno_cluster::store::Change) -> bool {
    matches!(change, dyno_cluster::store::Change::Delete { .. })
}
