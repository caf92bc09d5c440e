//! Leaders, one after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dyno_cluster::leader::{Candidate, Leadership};
use dyno_cluster::store::{Outcome, Transaction};
use rustix::process::Signal;
use tokio::time::timeout;

use crate::suite::{Any, done, get};

fn candidate(store: &Any, name: &str) -> Candidate {
    Candidate {
        store: Arc::clone(store),
        key: b"leader".to_vec(),
        name: name.into(),
        ttl: Duration::from_secs(2),
    }
}

async fn lead(store: &Any, name: &str) -> Leadership {
    let led = timeout(Duration::from_secs(20), candidate(store, name).campaign()).await;
    led.expect("a leader").unwrap()
}

async fn who_waits_leads_when_the_leader_resigns(store: &Any) {
    let first = lead(store, "a").await;
    assert!(first.holds());
    let name = candidate(store, "b").leader().await.unwrap();
    assert_eq!(name, Some((b"a".to_vec(), first.epoch())));
    let waiting = tokio::spawn({
        let store = Arc::clone(store);
        async move { lead(&store, "b").await }
    });
    // Longer than a lease: it is kept alive.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(first.holds() && !waiting.is_finished());
    let epoch = first.epoch();
    first.resign().await.unwrap();
    let second = waiting.await.unwrap();
    assert!(second.holds() && second.epoch() > epoch);
}

async fn of_a_leader_that_is_gone_nothing_is_written_any_more(store: &Any) {
    let first = lead(store, "a").await;
    let at = done(store, first.fence(Transaction::new().create("k", "of a"))).await;
    let late = first.fence(Transaction::new().replace("k", at, "of a again"));
    let too_late = first.fence(Transaction::new().create("other", "of a"));
    // As if it had crashed.
    drop(first);
    let second = lead(store, "b").await;
    for refused in [&late, &too_late] {
        let outcome = store.commit(refused).await.unwrap();
        assert!(matches!(outcome, Outcome::Conflict { .. }), "{outcome:?}");
    }
    done(
        store,
        second.fence(Transaction::new().replace("k", at, "of b")),
    )
    .await;
    assert_eq!(get(store, "other").await, None);
}

async fn two_never_lead_at_once(store: &Any) {
    let run = |name: &'static str| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let mut led = Vec::new();
            for round in 0..3 {
                let leadership = lead(&store, name).await;
                let begun = Instant::now();
                let mut last = begun;
                while leadership.holds() && last - begun < Duration::from_millis(300) {
                    last = Instant::now();
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                led.push((begun, last));
                match round % 2 {
                    0 => leadership.resign().await.unwrap(),
                    _ => drop(leadership),
                }
            }
            led
        })
    };
    let mut led = Vec::new();
    for runner in [run("a"), run("b"), run("c")] {
        led.extend(runner.await.unwrap());
    }
    led.sort();
    assert_eq!(led.len(), 9);
    for pair in led.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "two led at once");
    }
}

macro_rules! promises {
    ($($kind:ident: $($name:ident,)*;)*) => {
        $(mod $kind {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let (store, rig) = crate::$kind::open().await;
                    super::$name(&store).await;
                    drop((store, rig));
                }
            )*
        })*
    };
}

promises! {
    embedded:
        who_waits_leads_when_the_leader_resigns,
        of_a_leader_that_is_gone_nothing_is_written_any_more,
        two_never_lead_at_once,
    ;
    etcd:
        who_waits_leads_when_the_leader_resigns,
        of_a_leader_that_is_gone_nothing_is_written_any_more,
        two_never_lead_at_once,
    ;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_reach_the_store_knows_in_time() {
    let (store, rig) = crate::etcd::open().await;
    let leadership = lead(&store, "a").await;
    rig.members[0].signal(Signal::STOP);
    let begun = Instant::now();
    timeout(Duration::from_secs(20), leadership.lost())
        .await
        .expect("an end");
    assert!(!leadership.holds());
    // Its lease cannot have ended before it had word of it, which may be twice its time.
    assert!(
        begun.elapsed() < Duration::from_secs(6),
        "{:?}",
        begun.elapsed()
    );
    rig.members[0].signal(Signal::CONT);
    let next = lead(&store, "b").await;
    assert!(next.epoch() > leadership.epoch() && !leadership.holds());
}
