use proptest::prelude::*;

use super::*;

fn host(n: usize, fit: Fit) -> Host {
    Host {
        name: format!("h{n}"),
        peer_url: format!("http://h{n}:2380"),
        fit,
    }
}

fn member(n: usize, learner: bool, healthy: bool) -> Member {
    Member {
        id: n as u64,
        name: format!("h{n}"),
        peer_urls: vec![format!("http://h{n}:2380")],
        learner,
        healthy,
    }
}

/// Etcd, as far as members go.
#[derive(Clone, Debug)]
struct World {
    hosts: Vec<Host>,
    /// Whether the machine answers; a host is Down some time after it does not.
    answers: Vec<bool>,
    members: Vec<Member>,
    steps: usize,
}

impl World {
    fn new(hosts: usize) -> Self {
        Self {
            hosts: (0..hosts).map(|n| host(n, Fit::Up)).collect(),
            answers: vec![true; hosts],
            members: vec![member(0, false, true)],
            steps: 0,
        }
    }

    fn looked_at(&self) -> Vec<Member> {
        let look = |member: &Member| Member {
            healthy: usize::try_from(member.id).is_ok_and(|n| self.answers[n]),
            ..member.clone()
        };
        self.members.iter().map(look).collect()
    }

    fn voters(&self) -> (usize, usize) {
        let looked = self.looked_at();
        let voters = looked.iter().filter(|member| !member.learner);
        let healthy = voters.clone().filter(|member| member.healthy).count();
        (healthy, voters.count())
    }

    fn has_quorum(&self) -> bool {
        let (healthy, voters) = self.voters();
        healthy > voters / 2
    }

    /// One step, with what must hold of it.
    fn step(&mut self) -> Decision {
        let decision = next(&self.hosts, &self.looked_at());
        let had_quorum = self.has_quorum();
        if let Decision::Do(step) = &decision {
            assert!(had_quorum, "{step:?} without a quorum");
            self.steps += 1;
            match step {
                Step::Add { host, peer_url } => {
                    let learners = self.members.iter().filter(|member| member.learner);
                    assert_eq!(learners.count(), 0, "two learners");
                    let n: usize = host[1..].parse().unwrap();
                    assert_eq!(self.hosts[n].fit, Fit::Up);
                    let peer_urls = vec![peer_url.clone()];
                    self.members.push(Member {
                        peer_urls,
                        ..member(n, true, true)
                    });
                }
                Step::Promote { id } => {
                    let member = self.members.iter_mut().find(|member| member.id == *id);
                    member.unwrap().learner = false;
                }
                Step::Remove { id, .. } => self.members.retain(|member| member.id != *id),
                Step::Move { id, peer_url } => {
                    let member = self.members.iter_mut().find(|member| member.id == *id);
                    member.unwrap().peer_urls = vec![peer_url.clone()];
                }
            }
            assert!(self.has_quorum(), "{step:?} has cost the quorum");
        }
        decision
    }

    /// Until nothing is left to be done.
    fn settle(&mut self) -> Decision {
        let before = self.steps;
        loop {
            let decision = self.step();
            if !matches!(decision, Decision::Do(_)) {
                return decision;
            }
            assert!(self.steps - before < 50, "it does not come to an end");
        }
    }

    fn names(&self) -> Vec<&str> {
        self.members
            .iter()
            .map(|member| member.name.as_str())
            .collect()
    }
}

#[test]
fn one_two_three_and_five_hosts_have_one_one_three_and_five_members() {
    for (hosts, members) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5), (9, 5)] {
        let mut world = World::new(hosts);
        assert_eq!(world.settle(), Decision::Settled);
        assert_eq!(world.voters(), (members, members), "{hosts} hosts");
    }
}

#[test]
fn a_host_that_stays_away_is_replaced_and_a_short_absence_waited_for() {
    let mut world = World::new(4);
    world.settle();
    assert_eq!(world.names(), ["h0", "h1", "h2"]);
    world.answers[1] = false;
    let waited = world.settle();
    assert_eq!(waited, Decision::Wait(Wait::Member { host: "h1".into() }));
    assert_eq!(world.names(), ["h0", "h1", "h2"]);
    world.hosts[1].fit = Fit::Down;
    assert_eq!(world.settle(), Decision::Settled);
    assert_eq!(world.names(), ["h0", "h2", "h3"]);
}

#[test]
fn a_host_that_leaves_is_replaced_before_it_goes() {
    let mut world = World::new(4);
    world.settle();
    world.hosts[0].fit = Fit::Leaving;
    assert!(matches!(world.step(), Decision::Do(Step::Add { host, .. }) if host == "h3"));
    assert!(matches!(world.step(), Decision::Do(Step::Promote { .. })));
    assert!(matches!(
        world.step(),
        Decision::Do(Step::Remove { id: 0, .. })
    ));
    assert_eq!(world.settle(), Decision::Settled);
}

#[test]
fn the_last_member_stays_on_a_host_that_leaves() {
    let mut world = World::new(1);
    world.hosts[0].fit = Fit::Leaving;
    assert_eq!(world.settle(), Decision::Settled);
    assert_eq!(world.names(), ["h0"]);
}

#[test]
fn without_a_majority_nothing_is_touched() {
    let mut world = World::new(3);
    world.settle();
    world.answers = vec![true, false, false];
    world.hosts[1].fit = Fit::Down;
    world.hosts[2].fit = Fit::Down;
    let waited = Decision::Wait(Wait::Quorum {
        healthy: 1,
        voters: 3,
    });
    assert_eq!(world.settle(), waited);
}

#[test]
fn a_host_with_another_address_is_told_of() {
    let mut world = World::new(3);
    world.settle();
    world.hosts[2].peer_url = "http://elsewhere:2380".into();
    world.answers[2] = false;
    let moved = Step::Move {
        id: 2,
        peer_url: "http://elsewhere:2380".into(),
    };
    assert_eq!(world.step(), Decision::Do(moved));
    world.answers[2] = true;
    assert_eq!(world.settle(), Decision::Settled);
}

#[test]
fn a_member_that_was_never_started_is_known_by_its_address() {
    let hosts = [host(0, Fit::Up), host(1, Fit::Up), host(2, Fit::Up)];
    let mut new = member(1, true, false);
    new.name.clear();
    let members = [member(0, false, true), new];
    let wait = Decision::Wait(Wait::Learner {
        host: "http://h1:2380".into(),
    });
    assert_eq!(next(&hosts, &members), wait);
}

#[derive(Clone, Debug)]
enum Happening {
    Dies(usize),
    Returns(usize),
    IsGivenUp(usize),
    Leaves(usize),
    Moves(usize),
    Steps(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    let host = 0_usize..7;
    prop_oneof![
        host.clone().prop_map(Happening::Dies),
        host.clone().prop_map(Happening::Returns),
        host.clone().prop_map(Happening::IsGivenUp),
        host.clone().prop_map(Happening::Leaves),
        host.prop_map(Happening::Moves),
        (1_usize..6).prop_map(Happening::Steps),
    ]
}

proptest! {
    /// Whatever happens to the hosts, no step costs the quorum, and once they are all
    /// back there are as many members as there should be.
    #[test]
    fn no_step_costs_the_quorum_and_all_ends_well(
        count in 1_usize..7,
        happenings in prop::collection::vec(happening(), 0..40),
    ) {
        let mut world = World::new(count);
        for happening in happenings {
            match happening {
                Happening::Dies(n) if n < count => world.answers[n] = false,
                Happening::Returns(n) if n < count => {
                    world.answers[n] = true;
                    world.hosts[n].fit = Fit::Up;
                }
                Happening::IsGivenUp(n) if n < count && !world.answers[n] => {
                    world.hosts[n].fit = Fit::Down;
                }
                Happening::Leaves(n) if n < count => world.hosts[n].fit = Fit::Leaving,
                Happening::Moves(n) if n < count => {
                    world.hosts[n].peer_url.push('1');
                }
                Happening::Steps(steps) => for _ in 0..steps {
                    world.step();
                },
                _ => {}
            }
        }
        for n in 0..count {
            world.answers[n] = true;
            world.hosts[n].fit = Fit::Up;
        }
        prop_assert_eq!(world.settle(), Decision::Settled);
        let wanted = wanted(count);
        prop_assert_eq!(world.voters(), (wanted, wanted));
    }
}
