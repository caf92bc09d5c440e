//! What changes while dynos are placed: who is where, and what is free.

use super::frame::{Frame, NOWHERE, share_a_port};
use super::model::{Availability, Count, Port};
use super::tree::{Amounts, FitTree, covers};

/// What a host may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Open,
    Cordoned,
    Draining,
    /// Lost, in a question of what would be if it were.
    Gone,
}

impl From<Availability> for Standing {
    fn from(availability: Availability) -> Standing {
        match availability {
            Availability::Open => Standing::Open,
            Availability::Cordoned => Standing::Cordoned,
            Availability::Draining => Standing::Draining,
        }
    }
}

/// Who is where. An instance is a *slot*: its number, or, in a group that runs
/// on every host, a place in the list of those that run.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) standing: Vec<Standing>,
    free: Vec<Amounts>,
    devices: Vec<Vec<(u32, u64)>>,
    ports: Vec<Vec<Port>>,
    /// The host of each slot of each group, or [`NOWHERE`].
    pub(super) at: Vec<Vec<u32>>,
    /// For groups on every host: the number of each slot.
    pub(super) numbers: Vec<Vec<u32>>,
    /// Once hosts are to be searched for.
    tree: Option<FitTree>,
    /// Once victims are to be searched for.
    occupants: Option<Vec<Occupied>>,
}

/// Who is on a host.
#[derive(Clone, Debug, Default)]
struct Occupied {
    /// (group, slot), in no order.
    who: Vec<(u32, u32)>,
    /// What each priority has, the lowest first.
    by_priority: Vec<OfPriority>,
}

/// What the dynos of one priority have on a host.
#[derive(Clone, Debug)]
pub(super) struct OfPriority {
    pub(super) priority: i32,
    dynos: u32,
    pub(super) has: Amounts,
}

impl Occupied {
    fn add(&mut self, frame: &Frame, group: u32, slot: u32) {
        self.who.push((group, slot));
        let priority = frame.groups[group as usize].priority;
        let place = match self
            .by_priority
            .binary_search_by_key(&priority, |of| of.priority)
        {
            Ok(place) => place,
            Err(place) => {
                self.by_priority.insert(
                    place,
                    OfPriority {
                        priority,
                        dynos: 0,
                        has: [0; 3],
                    },
                );
                place
            }
        };
        let of = &mut self.by_priority[place];
        of.dynos += 1;
        for (has, ask) in of.has.iter_mut().zip(frame.compiled[group as usize].ask) {
            *has += ask;
        }
    }

    fn remove(&mut self, frame: &Frame, group: u32, slot: u32) {
        self.who.retain(|&who| who != (group, slot));
        let priority = frame.groups[group as usize].priority;
        for of in self
            .by_priority
            .iter_mut()
            .filter(|of| of.priority == priority)
        {
            of.dynos -= 1;
            for (has, ask) in of.has.iter_mut().zip(frame.compiled[group as usize].ask) {
                *has -= ask;
            }
        }
        self.by_priority.retain(|of| of.dynos > 0);
    }
}

impl State {
    /// Nobody runs.
    pub(super) fn new(frame: &Frame) -> State {
        State {
            standing: frame
                .hosts
                .iter()
                .map(|host| host.availability.into())
                .collect(),
            free: frame.usable.clone(),
            devices: frame.usable_devices.clone(),
            ports: frame
                .hosts
                .iter()
                .map(|host| host.reserved_ports.iter().copied().collect())
                .collect(),
            at: frame
                .groups
                .iter()
                .map(|group| match group.count {
                    Count::Instances(count) => vec![NOWHERE; count as usize],
                    Count::EveryHost => Vec::new(),
                })
                .collect(),
            numbers: vec![Vec::new(); frame.groups.len()],
            tree: None,
            occupants: None,
        }
    }

    pub(super) fn free(&self, host: u32) -> &Amounts {
        &self.free[host as usize]
    }

    pub(super) fn free_devices(&self, host: u32, kind: u32) -> u64 {
        let devices = &self.devices[host as usize];
        devices
            .iter()
            .find(|(name, _)| *name == kind)
            .map_or(0, |(_, count)| *count)
    }

    pub(super) fn has_port(&self, host: u32, port: Port) -> bool {
        self.ports[host as usize].contains(&port)
    }

    /// Whether a host has what one of a group asks for.
    pub(super) fn fits(&self, frame: &Frame, group: u32, host: u32) -> bool {
        let asks = &frame.compiled[group as usize];
        covers(self.free(host), &asks.ask)
            && asks
                .devices
                .iter()
                .all(|&(kind, count)| self.free_devices(host, kind) >= count)
            && frame.groups[group as usize]
                .ports
                .iter()
                .all(|&port| !self.has_port(host, port))
    }

    /// A slot takes its place on a host where it fits.
    pub(super) fn take(&mut self, frame: &Frame, group: u32, slot: u32, host: u32) {
        let asks = &frame.compiled[group as usize];
        let free = &mut self.free[host as usize];
        for (free, ask) in free.iter_mut().zip(asks.ask) {
            *free -= ask;
        }
        for (kind, free) in &mut self.devices[host as usize] {
            *free -= asks
                .devices
                .iter()
                .find(|(name, _)| name == kind)
                .map_or(0, |(_, count)| *count);
        }
        self.ports[host as usize].extend(&frame.groups[group as usize].ports);
        self.at[group as usize][slot as usize] = host;
        self.changed(host);
        if let Some(occupants) = &mut self.occupants {
            occupants[host as usize].add(frame, group, slot);
        }
    }

    /// A slot leaves its host.
    pub(super) fn give(&mut self, frame: &Frame, group: u32, slot: u32) {
        let asks = &frame.compiled[group as usize];
        let host = std::mem::replace(&mut self.at[group as usize][slot as usize], NOWHERE);
        let free = &mut self.free[host as usize];
        for (free, ask) in free.iter_mut().zip(asks.ask) {
            *free += ask;
        }
        for (kind, free) in &mut self.devices[host as usize] {
            *free += asks
                .devices
                .iter()
                .find(|(name, _)| name == kind)
                .map_or(0, |(_, count)| *count);
        }
        let ports = &frame.groups[group as usize].ports;
        self.ports[host as usize].retain(|port| !ports.contains(port));
        self.changed(host);
        if let Some(occupants) = &mut self.occupants {
            occupants[host as usize].remove(frame, group, slot);
        }
    }

    fn changed(&mut self, host: u32) {
        if let Some(tree) = &mut self.tree
            && self.standing[host as usize] == Standing::Open
        {
            tree.set(host as usize, self.free[host as usize]);
        }
    }

    /// A host is gone; nobody is left on it.
    pub(super) fn close(&mut self, host: u32) {
        self.standing[host as usize] = Standing::Gone;
        if let Some(tree) = &mut self.tree {
            tree.set(host as usize, [0; 3]);
        }
    }

    /// Makes [`State::first`] answer. Hosts that are not open have nothing free.
    pub(super) fn index(&mut self) {
        let open = |host: usize| {
            if self.standing[host] == Standing::Open {
                self.free[host]
            } else {
                [0; 3]
            }
        };
        let free: Vec<Amounts> = (0..self.free.len()).map(open).collect();
        self.tree = Some(FitTree::new(&free));
    }

    /// The first host in `from..to` with so much free.
    pub(super) fn first(&self, from: u32, to: u32, ask: &Amounts) -> Option<u32> {
        let tree = self
            .tree
            .as_ref()
            .expect("indexed before anybody is placed");
        tree.first(from as usize, to as usize, ask)
            .map(super::frame::number)
    }

    /// Who is on a host: (group, slot).
    pub(super) fn occupants(&mut self, frame: &Frame, host: u32) -> &[(u32, u32)] {
        &self.occupied(frame)[host as usize].who
    }

    /// What each priority has on a host, the lowest first.
    pub(super) fn by_priority(&mut self, frame: &Frame, host: u32) -> &[OfPriority] {
        &self.occupied(frame)[host as usize].by_priority
    }

    fn occupied(&mut self, frame: &Frame) -> &[Occupied] {
        let (at, hosts) = (&self.at, self.free.len());
        self.occupants.get_or_insert_with(|| {
            let mut occupants = vec![Occupied::default(); hosts];
            for (group, slots) in (0..).zip(at) {
                for (slot, &host) in (0..).zip(slots) {
                    if host != NOWHERE {
                        occupants[host as usize].add(frame, group, slot);
                    }
                }
            }
            occupants
        })
    }

    /// Whether a group that holds ports stands in the way of another.
    pub(super) fn ports_collide(frame: &Frame, one: u32, other: u32) -> bool {
        share_a_port(
            &frame.groups[one as usize].ports,
            &frame.groups[other as usize].ports,
        )
    }

    /// The number by which a slot is known outside.
    pub(super) fn instance(&self, frame: &Frame, group: u32, slot: u32) -> u32 {
        match frame.groups[group as usize].count {
            Count::Instances(_) => slot,
            Count::EveryHost => self.numbers[group as usize][slot as usize],
        }
    }
}
