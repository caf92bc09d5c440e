//! Hosts, groups, and who runs where: what a schedule is made from.

use super::frame::{Frame, NOWHERE, number};
use super::model::{Assignment, Count, Group, Host, Invalid, Policy};
use super::plan::Plan;
use super::schedule::Scheduling;
use super::state::State;
use std::collections::HashMap;
use std::sync::Arc;

/// A dyno that stops whatever else happens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stray {
    pub(super) group: String,
    pub(super) instance: u32,
    pub(super) host: u32,
    pub(super) why: Unwanted,
}

/// Why a dyno is not wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unwanted {
    /// Its group is gone.
    Group,
    /// Its group has fewer instances now.
    ScaledDown,
    /// The same instance runs elsewhere, too.
    Twice,
}

/// The cluster as it is and as it is wanted.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub(super) frame: Arc<Frame>,
    pub(super) policy: Policy,
    pub(super) state: State,
    pub(super) strays: Vec<Stray>,
    /// Instances whose host is no more: (group, slot, place in `gone`).
    pub(super) lost: Vec<(u32, u32, u32)>,
    /// Names of hosts that are no more.
    pub(super) gone: Vec<String>,
    gone_numbers: HashMap<String, u32>,
}

impl Cluster {
    /// Hosts and groups, in any order; nothing runs yet.
    ///
    /// # Errors
    ///
    /// What [`Invalid`] says.
    pub fn new(hosts: Vec<Host>, groups: Vec<Group>, policy: Policy) -> Result<Cluster, Invalid> {
        let frame = Frame::new(hosts, groups)?;
        Ok(Cluster {
            state: State::new(&frame),
            frame: Arc::new(frame),
            policy,
            strays: Vec::new(),
            lost: Vec::new(),
            gone: Vec::new(),
            gone_numbers: HashMap::new(),
        })
    }

    /// What runs, in any order. A group that is not wanted any more, an instance
    /// too many, or one that runs twice stops; one whose host is not among the
    /// cluster's runs nowhere.
    pub fn running<'a>(&mut self, assignments: impl IntoIterator<Item = Assignment<'a>>) {
        let frame = Arc::clone(&self.frame);
        let mut last: Option<(&str, Option<u32>)> = None;
        for assignment in assignments {
            // Assignments mostly come group by group.
            let group = match last {
                Some((name, group)) if name == assignment.group => group,
                _ => frame.group_numbers.get(assignment.group).copied(),
            };
            last = Some((assignment.group, group));
            match (group, frame.host_numbers.get(assignment.host).copied()) {
                (Some(group), Some(host)) => self.runs(&frame, group, assignment.instance, host),
                (Some(group), None) => {
                    self.loses(&frame, group, assignment.instance, assignment.host)
                }
                (None, Some(host)) => self.stray(assignment, host, Unwanted::Group),
                (None, None) => {}
            }
        }
    }

    fn stray(&mut self, assignment: Assignment, host: u32, why: Unwanted) {
        let group = assignment.group.to_owned();
        self.strays.push(Stray {
            group,
            instance: assignment.instance,
            host,
            why,
        });
    }

    fn runs(&mut self, frame: &Frame, group: u32, instance: u32, host: u32) {
        let place = group as usize;
        let at = &mut self.state.at[place];
        let stray = |instance, host, why| Stray {
            group: frame.groups[place].id.clone(),
            instance,
            host,
            why,
        };
        match frame.groups[place].count {
            Count::EveryHost => {
                at.push(host);
                self.state.numbers[place].push(instance);
            }
            Count::Instances(count) if instance >= count => {
                self.strays
                    .push(stray(instance, host, Unwanted::ScaledDown));
            }
            Count::Instances(_) => {
                let here = &mut at[instance as usize];
                // Whichever order they come in, the first host keeps it.
                let extra = (*here).max(host);
                *here = (*here).min(host);
                if extra != NOWHERE && extra != *here {
                    self.strays.push(stray(instance, extra, Unwanted::Twice));
                }
            }
        }
    }

    fn loses(&mut self, frame: &Frame, group: u32, instance: u32, host: &str) {
        let Count::Instances(count) = frame.groups[group as usize].count else {
            return;
        };
        if instance >= count {
            return;
        }
        let place = match self.gone_numbers.get(host) {
            Some(&place) => place,
            None => {
                let place = number(self.gone.len());
                self.gone.push(host.to_owned());
                self.gone_numbers.insert(host.to_owned(), place);
                place
            }
        };
        self.lost.push((group, instance, place));
    }

    /// Where everything is to run. The same cluster gives the same plan.
    pub fn schedule(self) -> Plan {
        Scheduling::of(self)
    }

    /// A host's name, gone or not.
    pub(super) fn host_name(&self, host: u32) -> &str {
        let known = self.frame.hosts.len();
        match self.frame.hosts.get(host as usize) {
            Some(host) => &host.id,
            None => &self.gone[host as usize - known],
        }
    }
}
