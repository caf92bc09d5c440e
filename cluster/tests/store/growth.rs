//! A cluster of etcd that grows, loses a member, replaces it, and shrinks, while
//! somebody writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dyno_cluster::members::{Decision, Fit, Host, Members, Step, next};
use dyno_cluster::store::etcd::Config;
use dyno_cluster::store::{Fresh, Transaction};

use crate::etcd_rig::Rig;
use crate::suite::Any;

struct Cluster {
    rig: Rig,
    hosts: Vec<Host>,
    members: Members,
}

impl Cluster {
    /// As many hosts; the first carries the one member that there is.
    async fn new(hosts: usize) -> (Self, Any) {
        let mut rig = Rig::one();
        rig.members[0].ready();
        while rig.members.len() < hosts {
            rig.another();
        }
        let config = Config {
            endpoints: rig.endpoints(),
            ..Config::default()
        };
        let store = crate::etcd::connect(&rig).await;
        let host = |member: &crate::etcd_rig::Member| Host {
            name: member.name.clone(),
            peer_url: member.peer.clone(),
            fit: Fit::Up,
        };
        let cluster = Self {
            hosts: rig.members.iter().map(host).collect(),
            members: Members::connect(config).await.unwrap(),
            rig,
        };
        (cluster, store)
    }

    /// Takes steps until nothing is left to be done; the members' names then.
    async fn settle(&mut self) -> Vec<String> {
        let begun = Instant::now();
        loop {
            assert!(
                begun.elapsed() < Duration::from_secs(90),
                "{:?}",
                self.members.look().await
            );
            let Ok(members) = self.members.look().await else {
                continue;
            };
            match next(&self.hosts, &members) {
                Decision::Settled => {
                    let mut names: Vec<String> = members.into_iter().map(|m| m.name).collect();
                    names.sort();
                    return names;
                }
                Decision::Wait(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                Decision::Do(step) => {
                    // What it refuses now is tried again.
                    if self.members.take(&step).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                    self.follow(&step, &members);
                }
            }
        }
    }

    /// What hostd does on the host in question.
    fn follow(&mut self, step: &Step, members: &[dyno_cluster::members::Member]) {
        match step {
            Step::Add { host, peer_url } => {
                let there = members.iter().filter(|member| !member.name.is_empty());
                let mut cluster: Vec<String> = there
                    .map(|member| format!("{}={}", member.name, member.peer_urls[0]))
                    .collect();
                cluster.push(format!("{host}={peer_url}"));
                let new = self
                    .rig
                    .members
                    .iter_mut()
                    .find(|member| member.name == *host);
                let new = new.unwrap();
                new.joins(&cluster.join(","), "existing");
                new.start();
            }
            Step::Remove { id, .. } => {
                let gone = members.iter().find(|member| member.id == *id).unwrap();
                let gone = |member: &&mut crate::etcd_rig::Member| member.name == gone.name;
                if let Some(gone) = self.rig.members.iter_mut().find(gone) {
                    gone.kill();
                }
            }
            Step::Promote { .. } | Step::Move { .. } => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go_under_a_writer_and_nothing_acknowledged_is_lost() {
    let (mut cluster, store) = Cluster::new(5).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        async move {
            let mut acknowledged = Vec::new();
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("k/{n:06}");
                if store
                    .commit(&Transaction::new().create(key.clone(), ""))
                    .await
                    .is_ok()
                {
                    acknowledged.push(key.into_bytes());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            acknowledged
        }
    });
    // Four hosts, of which three carry one; the fifth comes later.
    cluster.hosts[4].fit = Fit::Leaving;
    assert_eq!(cluster.settle().await, ["m0", "m1", "m2"]);
    // One dies for good, the first of all.
    cluster.rig.members[0].kill();
    cluster.hosts[0].fit = Fit::Down;
    assert_eq!(cluster.settle().await, ["m1", "m2", "m3"]);
    // Another leaves in order, and the fifth takes its place.
    cluster.hosts[4].fit = Fit::Up;
    cluster.hosts[1].fit = Fit::Leaving;
    assert_eq!(cluster.settle().await, ["m2", "m3", "m4"]);
    // Of one host there is one member.
    cluster.hosts[2].fit = Fit::Leaving;
    cluster.hosts[3].fit = Fit::Leaving;
    assert_eq!(cluster.settle().await, ["m4"]);
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writer.await.unwrap();
    assert!(acknowledged.len() > 50, "{} writes", acknowledged.len());
    let begun = Instant::now();
    let list = loop {
        match store.list(b"k/", Fresh::Latest).await {
            Ok(list) => break list.value,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}"),
        }
    };
    let there: std::collections::BTreeSet<Vec<u8>> = list.into_iter().map(|e| e.key).collect();
    let lost: Vec<&Vec<u8>> = acknowledged
        .iter()
        .filter(|key| !there.contains(*key))
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
}
