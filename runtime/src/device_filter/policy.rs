//! What a list of device rules amounts to.

use std::collections::BTreeMap;

use super::{Access, Error, Kind, Nodes, Rule};

/// The state of the v1 devices controller (`security/device_cgroup.c`): a default, and
/// exceptions from it. It begins with denying everything.
///
/// - A rule of type `a` sets the default and forgets every exception.
/// - Others add an exception where they contradict the default, and take one away
///   where they agree with it. Only one for the very same nodes is touched; denying
///   part of an allowed wildcard would be ignored by the kernel and is an error here,
///   as in runc.
/// - An access is allowed if *one* exception covers all of it, or by default if no
///   exception covers any of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Policy {
    pub(crate) allow_by_default: bool,
    pub(crate) exceptions: BTreeMap<Nodes, Access>,
}

impl Policy {
    /// Takes one more rule into account.
    ///
    /// # Errors
    /// [`Error::Hole`].
    pub fn apply(&mut self, rule: &Rule) -> Result<(), Error> {
        let Some(nodes) = rule.nodes else {
            *self = Self {
                allow_by_default: rule.allow,
                exceptions: BTreeMap::new(),
            };
            return Ok(());
        };
        if rule.allow == self.allow_by_default {
            return self.remove(nodes, rule);
        }
        let access = self.exceptions.entry(nodes).or_insert(Access::NONE);
        *access = access.with(rule.access);
        Ok(())
    }

    fn remove(&mut self, nodes: Nodes, rule: &Rule) -> Result<(), Error> {
        let of = |major, minor| Nodes {
            major,
            minor,
            ..nodes
        };
        let wider = [of(None, nodes.minor), of(nodes.major, None), of(None, None)];
        for wildcard in wider.into_iter().filter(|wider| *wider != nodes) {
            let access = self.exceptions.get(&wildcard).copied();
            if let Some(access) = access.filter(|access| access.overlaps(rule.access)) {
                let earlier = Rule {
                    allow: !rule.allow,
                    nodes: Some(wildcard),
                    access,
                };
                return Err(Error::Hole {
                    rule: rule.line(),
                    wildcard: earlier.line(),
                });
            }
        }
        if let Some(access) = self.exceptions.get_mut(&nodes) {
            *access = access.without(rule.access);
            if *access == Access::NONE {
                self.exceptions.remove(&nodes);
            }
        }
        Ok(())
    }

    /// Whether there is no exception from allowing everything.
    #[must_use]
    pub fn allows_everything(&self) -> bool {
        self.allow_by_default && self.exceptions.is_empty()
    }

    /// The policy that `devices.list` of a v1 cgroup shows. It shows no exceptions from
    /// allowing everything.
    ///
    /// # Errors
    /// [`Error::List`].
    pub fn from_list(list: &str) -> Result<Self, Error> {
        let mut policy = Self::default();
        for line in list.lines() {
            let rule = parse_line(line).ok_or_else(|| Error::List { line: line.into() })?;
            policy.apply(&rule)?;
        }
        Ok(policy)
    }

    /// The rules that lead from this policy, as `devices.list` has shown it, to
    /// `target`, disturbing nothing that both allow: a container that opens
    /// `/dev/null` meanwhile shall not notice. Only a change of the default, or one
    /// from exceptions that the list does not show, begins with a rule for everything.
    #[must_use]
    pub fn transition(&self, target: &Self) -> Vec<Rule> {
        let mut rules = Vec::new();
        let none = BTreeMap::new();
        let mut old = &self.exceptions;
        if self.allow_by_default || target.allow_by_default {
            rules.push(Rule {
                allow: target.allow_by_default,
                nodes: None,
                access: Access::ALL,
            });
            old = &none;
        }
        let missing = |from: &BTreeMap<Nodes, Access>, other: &BTreeMap<Nodes, Access>, allow| {
            let mut rules = Vec::new();
            for (nodes, access) in from {
                let there = other.get(nodes).copied().unwrap_or(Access::NONE);
                let access = access.without(there);
                if access != Access::NONE {
                    rules.push(Rule {
                        allow,
                        nodes: Some(*nodes),
                        access,
                    });
                }
            }
            rules
        };
        rules.extend(missing(old, &target.exceptions, target.allow_by_default));
        rules.extend(missing(&target.exceptions, old, !target.allow_by_default));
        rules
    }
}

/// `c 1:3 rwm`, or `a *:* rwm`: everything is allowed.
fn parse_line(line: &str) -> Option<Rule> {
    let (kind, rest) = line.split_once(' ')?;
    let kind = match kind {
        "a" => None,
        "b" => Some(Kind::Block),
        "c" => Some(Kind::Char),
        _ => return None,
    };
    let (numbers, access) = rest.split_once(' ')?;
    let (major, minor) = numbers.split_once(':')?;
    let number = |text: &str| match text {
        "*" => Some(None),
        digits => digits.parse().ok().map(Some),
    };
    let (major, minor) = (number(major)?, number(minor)?);
    Some(Rule {
        allow: true,
        nodes: kind.map(|kind| Nodes { major, minor, kind }),
        access: Access::parse(access.trim())?,
    })
}
