//! The next step, from what there is.

use std::fmt;

/// Whether a host may carry a member.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fit {
    /// It may.
    Up,
    /// It has been away for so long that another shall take its place.
    Down,
    /// It shall not, as it is being drained or removed.
    Leaving,
}

/// A host of the cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Host {
    /// Its name, and that of its member.
    pub name: String,
    /// Where its member is reached by the others.
    pub peer_url: String,
    /// Whether it may carry one.
    pub fit: Fit,
}

/// A member of etcd.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// Etcd's number for it.
    pub id: u64,
    /// Its host's name; empty until it has been started once.
    pub name: String,
    /// Where it is reached by the others.
    pub peer_urls: Vec<String>,
    /// It has no vote yet.
    pub learner: bool,
    /// It answers, and knows the leader.
    pub healthy: bool,
}

/// One change of the members.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Adds a member without a vote, to be started on this host.
    Add {
        /// The host.
        host: String,
        /// Where it will be reached.
        peer_url: String,
    },
    /// Gives a member its vote. Etcd refuses until it has caught up.
    Promote {
        /// The member.
        id: u64,
    },
    /// Removes a member.
    Remove {
        /// The member.
        id: u64,
        /// Why.
        why: &'static str,
    },
    /// Tells the others where a member is now.
    Move {
        /// The member.
        id: u64,
        /// Where it is reached from now on.
        peer_url: String,
    },
}

/// What is to be done now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    /// This, and then it is looked at again.
    Do(Step),
    /// Something has to happen first.
    Wait(Wait),
    /// All is as it should be.
    Settled,
}

/// What is waited for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wait {
    /// Most members do not answer: etcd agrees to nothing.
    Quorum {
        /// How many with a vote answer.
        healthy: usize,
        /// How many have one.
        voters: usize,
    },
    /// A new member, which does not answer yet.
    Learner {
        /// Its host.
        host: String,
    },
    /// A member that does not answer and cannot be removed yet, as too few would be
    /// left that do.
    Member {
        /// Its host.
        host: String,
    },
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quorum { healthy, voters } => write!(
                f,
                "only {healthy} of {voters} members of etcd answer, which is no majority"
            ),
            Self::Learner { host } => write!(f, "the new member on {host} does not answer yet"),
            Self::Member { host } => write!(
                f,
                "the member on {host} does not answer; without it too few would be left"
            ),
        }
    }
}

/// How many members so many hosts shall have.
fn wanted(hosts: usize) -> usize {
    match hosts {
        0..3 => 1,
        3..5 => 3,
        _ => 5,
    }
}

fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The next step towards as many members as the hosts shall have. The hosts come in
/// order of preference; those that carry a member keep it.
#[must_use]
pub fn next(hosts: &[Host], members: &[Member]) -> Decision {
    let view = View { hosts, members };
    let voters: Vec<&Member> = members.iter().filter(|member| !member.learner).collect();
    let healthy = voters.iter().filter(|member| member.healthy).count();
    if healthy < majority(voters.len()) {
        let voters = voters.len();
        return Decision::Wait(Wait::Quorum { healthy, voters });
    }
    if let Some(decision) = view.learner() {
        return decision;
    }
    if let Some(step) = view.moved(healthy, voters.len()) {
        return Decision::Do(step);
    }
    view.resize(&voters, healthy)
}

#[derive(Clone, Copy)]
struct View<'a> {
    hosts: &'a [Host],
    members: &'a [Member],
}

impl<'a> View<'a> {
    fn host_of(self, member: &Member) -> Option<&'a Host> {
        let same = |host: &&Host| match member.name.is_empty() {
            false => host.name == member.name,
            true => member.peer_urls.contains(&host.peer_url),
        };
        self.hosts.iter().find(same)
    }

    fn fit(self, member: &Member) -> Fit {
        // Of a host that nobody knows any more.
        self.host_of(member).map_or(Fit::Leaving, |host| host.fit)
    }

    fn name(self, member: &Member) -> String {
        match member.name.as_str() {
            "" => member.peer_urls.join(" "),
            name => name.to_owned(),
        }
    }

    /// What becomes of the one that has no vote yet: it comes before all others.
    fn learner(self) -> Option<Decision> {
        let learner = self.members.iter().find(|member| member.learner)?;
        let id = learner.id;
        Some(match self.fit(learner) {
            Fit::Up if learner.healthy => Decision::Do(Step::Promote { id }),
            Fit::Up => Decision::Wait(Wait::Learner {
                host: self.name(learner),
            }),
            // It has no vote that would be missed.
            Fit::Down => remove(learner, "its host is away"),
            Fit::Leaving => remove(learner, "its host leaves"),
        })
    }

    /// A member whose host has another address now. It cannot answer the others until
    /// they know, so most must be there without it.
    fn moved(self, healthy: usize, voters: usize) -> Option<Step> {
        self.members.iter().find_map(|member| {
            let host = self.host_of(member)?;
            let without = healthy - usize::from(member.healthy);
            let elsewhere = !member.peer_urls.contains(&host.peer_url);
            (elsewhere && (without >= majority(voters) || voters == 1)).then(|| Step::Move {
                id: member.id,
                peer_url: host.peer_url.clone(),
            })
        })
    }

    fn resize(self, voters: &[&Member], healthy: usize) -> Decision {
        let up = self.hosts.iter().filter(|host| host.fit == Fit::Up).count();
        let wanted = wanted(up);
        let may_go = |member: &Member| {
            let left = healthy - usize::from(member.healthy);
            voters.len() > 1 && left >= majority(voters.len() - 1)
        };
        // A dead one goes first: what is added beside it would make a majority larger.
        let dead = |member: &&&Member| self.fit(member) == Fit::Down && !member.healthy;
        if let Some(dead) = voters.iter().find(dead) {
            return match may_go(dead) {
                true => remove(dead, "its host is away"),
                false => Decision::Wait(Wait::Member {
                    host: self.name(dead),
                }),
            };
        }
        let good = voters
            .iter()
            .filter(|member| self.fit(member) == Fit::Up)
            .count();
        if good < wanted
            && let Some(host) = self.spare()
        {
            return Decision::Do(Step::Add {
                host: host.name.clone(),
                peer_url: host.peer_url.clone(),
            });
        }
        let leaving = |member: &&&Member| self.fit(member) != Fit::Up;
        if let Some(leaving) = voters.iter().find(leaving) {
            // The last one has all there is.
            return match may_go(leaving) {
                true => remove(leaving, "its host leaves"),
                false if voters.len() == 1 => Decision::Settled,
                false => Decision::Wait(Wait::Member {
                    host: self.name(leaving),
                }),
            };
        }
        if good > wanted {
            // One that does not answer first, else that of the least preferred host.
            let place = |member: &&&Member| {
                let at = self.hosts.iter().position(|host| host.name == member.name);
                (!member.healthy, at)
            };
            if let Some(last) = voters.iter().max_by_key(place)
                && may_go(last)
            {
                return remove(last, "there are more than so few hosts need");
            }
        }
        match voters.iter().find(|member| !member.healthy) {
            Some(member) => Decision::Wait(Wait::Member {
                host: self.name(member),
            }),
            None => Decision::Settled,
        }
    }

    /// The first host without a member.
    fn spare(self) -> Option<&'a Host> {
        let carries = |host: &Host| {
            let mut members = self.members.iter();
            members.any(|member| self.host_of(member) == Some(host))
        };
        let mut hosts = self.hosts.iter();
        hosts.find(|host| host.fit == Fit::Up && !carries(host))
    }
}

fn remove(member: &Member, why: &'static str) -> Decision {
    Decision::Do(Step::Remove { id: member.id, why })
}

#[cfg(test)]
mod tests;
