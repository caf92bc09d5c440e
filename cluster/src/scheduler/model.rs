//! What the scheduler is given: hosts, groups of equal asks, and a policy.

use std::collections::{BTreeMap, BTreeSet};

/// What a host has, or what one dyno asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Processor time, in thousandths of a processor.
    pub cpu_millis: u64,
    /// Disk, in bytes.
    pub disk_bytes: u64,
    /// How many of each named device.
    pub devices: BTreeMap<String, u64>,
}

/// Whose port a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port of the host's, which one dyno at a time may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// Whether a host takes new dynos and keeps those that it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Availability {
    /// Takes new ones.
    #[default]
    Open,
    /// Keeps what it has, takes no more.
    Cordoned,
    /// Is to be emptied.
    Draining,
}

/// A machine that runs dynos.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Its name, unique in the cluster.
    pub id: String,
    /// The zone that it fails with.
    pub zone: String,
    /// What constraints ask about. `host` and `zone` need not be given: they
    /// are its `id` and its `zone`.
    pub tags: BTreeMap<String, String>,
    /// All that it has.
    pub capacity: Resources,
    /// What of it dynos never get: the system's share.
    pub reserved: Resources,
    /// Ports that dynos never get.
    pub reserved_ports: BTreeSet<Port>,
    /// Whether it takes new dynos.
    pub availability: Availability,
}

/// What a tag must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Test {
    /// The tag is there and has this value.
    Equals(String),
    /// The tag has another value, or is not there.
    Differs(String),
    /// The tag is there and has one of these values.
    In(BTreeSet<String>),
    /// The tag is there.
    Exists,
}

/// A tag, and what it must be. A dyno runs only where all its constraints hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Constraint {
    /// The tag's name.
    pub tag: String,
    /// What it must be.
    pub test: Test,
}

impl Constraint {
    /// Whether a host's tag, if it has one, is as it must be.
    pub(super) fn holds(&self, found: Option<&str>) -> bool {
        match &self.test {
            Test::Equals(value) => found == Some(value),
            Test::Differs(value) => found != Some(value),
            Test::In(values) => found.is_some_and(|found| values.contains(found)),
            Test::Exists => found.is_some(),
        }
    }
}

/// Groups that an affinity speaks of: all that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// The group's app.
    pub app: Option<String>,
    /// The group's process type.
    pub process_type: Option<String>,
    /// Labels that the group has, among others.
    pub labels: BTreeMap<String, String>,
}

/// How near is near.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// On the same host.
    Host,
    /// In the same zone.
    Zone,
}

/// Towards or away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Where at least one of the selected runs. A group that selects itself
    /// may begin where it likes while none of the selected runs anywhere.
    Beside,
    /// Where none of the selected runs; also asked the other way round: the
    /// selected do not come to where this group runs.
    Apart,
}

/// Whether it must be or is only liked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strength {
    /// A host that does not keep it is refused.
    Required,
    /// A host that keeps it is preferred, by this weight (see [`Spread`]).
    /// The group's own instances do not count; for them there is [`Spread`].
    Preferred(u16),
}

/// Affinity and anti-affinity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// To whom.
    pub to: Selector,
    /// Towards or away.
    pub direction: Direction,
    /// On the same host or in the same zone.
    pub within: Within,
    /// Must be, or is liked.
    pub strength: Strength,
}

/// How the instances of one group are spread. Weights are in points for each
/// instance already there; how well a dyno fits a host is worth 0 to 100
/// points. From 100 on, spreading therefore always goes before packing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Weight of being on different hosts.
    pub hosts_weight: u16,
    /// Weight of being in different zones.
    pub zones_weight: u16,
    /// The most by which the instances on one eligible, open host may exceed
    /// those on another.
    pub hosts_max_skew: Option<u32>,
    /// The most by which the instances in one zone may exceed those in another;
    /// zones without an eligible, open host do not count.
    pub zones_max_skew: Option<u32>,
    /// The most instances on one host; 1 is one-per-host.
    pub max_per_host: Option<u32>,
}

impl Default for Spread {
    fn default() -> Spread {
        Spread {
            hosts_weight: 100,
            zones_weight: 100,
            hosts_max_skew: None,
            zones_max_skew: None,
            max_per_host: None,
        }
    }
}

/// How many instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Instances 0 to n − 1.
    Instances(u32),
    /// One on each host that its constraints allow and that is open.
    EveryHost,
}

/// Dynos that ask for the same: a process type of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name, unique in the cluster: `shop/web`.
    pub id: String,
    /// Its app.
    pub app: String,
    /// Its process type.
    pub process_type: String,
    /// What selectors ask about.
    pub labels: BTreeMap<String, String>,
    /// How many.
    pub count: Count,
    /// What each asks for.
    pub ask: Resources,
    /// Ports of the host's that each asks for.
    pub ports: BTreeSet<Port>,
    /// Who goes first, and who may take the place of whom: more is higher.
    pub priority: i32,
    /// Where it may run.
    pub constraints: Vec<Constraint>,
    /// Beside or apart from whom.
    pub affinities: Vec<Affinity>,
    /// How it is spread.
    pub spread: Spread,
    /// Instances with a volume, and the host where the volume is: they run
    /// there or wait. Of no meaning for [`Count::EveryHost`].
    pub pinned: BTreeMap<u32, String>,
}

impl Group {
    /// A group without rules, spread over hosts and zones.
    pub fn new(app: &str, process_type: &str, instances: u32, ask: Resources) -> Group {
        Group {
            id: format!("{app}/{process_type}"),
            app: app.into(),
            process_type: process_type.into(),
            labels: BTreeMap::new(),
            count: Count::Instances(instances),
            ask,
            ports: BTreeSet::new(),
            priority: 0,
            constraints: Vec::new(),
            affinities: Vec::new(),
            spread: Spread::default(),
            pinned: BTreeMap::new(),
        }
    }
}

/// What holds for the cluster as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether a dyno may take the place of others with a lower priority.
    pub preemption: bool,
    /// The loss of how many hosts, whichever they are, everything must
    /// survive: new dynos are placed only as long as all would still fit.
    pub survive_hosts: u32,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            preemption: true,
            survive_hosts: 0,
        }
    }
}

/// One dyno that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Assignment<'a> {
    /// Its group.
    pub group: &'a str,
    /// Which of the group's instances it is.
    pub instance: u32,
    /// Where it runs.
    pub host: &'a str,
}

/// Why hosts or groups cannot be scheduled at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Two hosts with one name.
    #[error("host {0:?} is given twice; every host needs a name of its own")]
    HostTwice(String),
    /// Two groups with one name.
    #[error("group {0:?} is given twice; every group needs a name of its own")]
    GroupTwice(String),
    /// An affinity to nobody in particular.
    #[error("group {0:?} has an affinity to everything; name an app, a process type or a label")]
    EmptySelector(String),
    /// A limit that lets nothing run.
    #[error("group {group:?} has {limit} 0, which lets nothing run; use 1 or more")]
    ZeroLimit {
        /// The group.
        group: String,
        /// Which limit.
        limit: &'static str,
    },
}
