//! Looking at the members of a running etcd, and changing them.

use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Member as Theirs, MemberAddOptions};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Member, Step};
use crate::store::etcd::{Config, Etcd};
use crate::store::{Error, Result};

/// A member that does not answer within this does not answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The members of one etcd.
#[derive(Debug)]
pub struct Members {
    etcd: Etcd,
}

impl Members {
    /// Those of the etcd that answers at these endpoints.
    ///
    /// # Errors
    /// As [`Etcd::connect`].
    pub async fn connect(config: Config) -> Result<Self> {
        let etcd = Etcd::connect(config).await?;
        Ok(Self { etcd })
    }

    /// All members, and which of them answer.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where none can be asked.
    pub async fn look(&self) -> Result<Vec<Member>> {
        let listed = self
            .etcd
            .again(|mut client| async move { client.member_list().await });
        let listed = listed.await?;
        let mut looks = JoinSet::new();
        for (index, member) in listed.members().iter().enumerate() {
            let endpoints = member.client_urls().to_vec();
            let options = self.etcd.config.options(PATIENCE);
            looks.spawn(async move { (index, answers(endpoints, options).await) });
        }
        let mut members: Vec<Member> = listed.members().iter().map(member).collect();
        while let Some(looked) = looks.join_next().await {
            if let Ok((index, healthy)) = looked
                && let Some(member) = members.get_mut(index)
            {
                member.healthy = healthy;
            }
        }
        members.sort_by_key(|member| member.id);
        Ok(members)
    }

    /// Does a step. That it was done before is no error, as its answer may have been
    /// lost.
    ///
    /// # Errors
    /// [`Error::Unavailable`] for a member that has not caught up, among others.
    pub async fn take(&self, step: &Step) -> Result<()> {
        let mut client = self.etcd.client.clone();
        let done = match step {
            Step::Add { peer_url, .. } => {
                let learner = MemberAddOptions::new().with_is_learner();
                let added = client.member_add([peer_url], Some(learner));
                self.etcd.once(added).await.map(drop)
            }
            Step::Promote { id } => self.etcd.once(client.member_promote(*id)).await.map(drop),
            Step::Remove { id, .. } => self.etcd.once(client.member_remove(*id)).await.map(drop),
            Step::Move { id, peer_url } => {
                let moved = client.member_update(*id, vec![peer_url.clone()]);
                self.etcd.once(moved).await.map(drop)
            }
        };
        match (step, done) {
            // etcd/api/v3/v3rpc/rpctypes: done already.
            (Step::Remove { .. }, Err(error)) if says(&error, "member not found") => Ok(()),
            (Step::Promote { .. }, Err(error)) if says(&error, "not a learner") => Ok(()),
            (Step::Add { .. }, Err(error)) if says(&error, "Peer URLs already exists") => Ok(()),
            (Step::Promote { .. }, Err(error)) if says(&error, "in sync with leader") => {
                Err(Error::Unavailable(error.to_string()))
            }
            (_, done) => done,
        }
    }
}

fn says(error: &Error, words: &str) -> bool {
    error.to_string().contains(words)
}

fn member(theirs: &Theirs) -> Member {
    Member {
        id: theirs.id(),
        name: theirs.name().to_owned(),
        peer_urls: theirs.peer_urls().to_vec(),
        learner: theirs.is_learner(),
        healthy: false,
    }
}

/// Whether it answers, and knows a leader. One that was never started has no endpoint.
async fn answers(endpoints: Vec<String>, options: ConnectOptions) -> bool {
    if endpoints.is_empty() {
        return false;
    }
    let asked = async {
        let mut client = Client::connect(endpoints, Some(options)).await.ok()?;
        client.status().await.ok()
    };
    let status = timeout(PATIENCE, asked).await.ok().flatten();
    status.is_some_and(|status| status.leader() != 0 && status.errors().is_empty())
}
