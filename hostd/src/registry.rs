//! Who is who among the dynos of this host: names, ids, user id ranges and
//! ports belong to one dyno each, from its creation to its removal.

use std::collections::{BTreeMap, HashMap, HashSet};

use dyno_api::dyno::PortMapping;
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::{DynoId, DynoName};
use dyno_images::LayerId;

use crate::admission::ports;
use crate::desired::Record;
use crate::once::Once;
use crate::supervisor::Handle;
use crate::uids::UidPool;

/// The fewest digits of an id that find a dyno.
const MIN_PREFIX: usize = 4;

/// Everything that dynos of one host must not share.
#[derive(Debug)]
pub struct Registry {
    slots: BTreeMap<DynoId, Slot>,
    names: HashMap<DynoName, DynoId>,
    uids: UidPool,
}

#[derive(Debug)]
struct Slot {
    name: DynoName,
    rm: bool,
    uid_base: u32,
    ports: Vec<PortMapping>,
    image: String,
    layers: Vec<LayerId>,
    once: Option<Once>,
    handle: Option<Handle>,
}

impl Registry {
    /// Nobody yet.
    pub fn new(uids: UidPool) -> Self {
        Self {
            slots: BTreeMap::new(),
            names: HashMap::new(),
            uids,
        }
    }

    /// Whether the name's bearer goes by itself once it has ended.
    pub fn is_passing(&self, name: &DynoName) -> Option<Handle> {
        let slot = self.slots.get(self.names.get(name)?)?;
        slot.handle.clone().filter(|_| slot.rm)
    }

    /// Whether someone has this name.
    pub fn has_name(&self, name: &DynoName) -> bool {
        self.names.contains_key(name)
    }

    /// Gives a new dyno what is its alone; the record is filled in.
    ///
    /// # Errors
    /// Conflict or Exhausted, naming what and who; nothing is taken then.
    pub fn reserve(&mut self, record: &mut Record) -> Result<(), ApiError> {
        if let Some(id) = self.names.get(&record.name) {
            return Err(ApiError::new(
                ErrorKind::Conflict,
                format!("the name {} belongs to dyno {id}", record.name),
            )
            .hint(format!(
                "choose another name, or remove that one: `dyno rm {}`",
                record.name
            )));
        }
        let mut chosen: Vec<PortMapping> = Vec::new();
        for port in &record.spec.ports {
            if let Some((slot, taken)) = self.owner_of(port) {
                let message = format!("{} belongs to dyno {}", ports::describe(taken), slot.name);
                let hint = format!(
                    "choose another port, or remove that one: `dyno rm {}`",
                    slot.name
                );
                return Err(ApiError::new(ErrorKind::Conflict, message).hint(hint));
            }
            let taken = |candidate: &PortMapping| {
                self.owner_of(candidate).is_some()
                    || chosen
                        .iter()
                        .chain(&record.spec.ports)
                        .any(|other| ports::clash(other, candidate))
            };
            chosen.push(ports::resolve(port, taken)?);
        }
        record.ports = chosen;
        record.uid_base = self
            .uids
            .take()
            .map_err(|error| ApiError::new(ErrorKind::Exhausted, error.to_string()))?;
        self.insert(record);
        Ok(())
    }

    /// Takes a recorded dyno up again. `false` when its range is not this
    /// host's any more, or somebody else's: then it needs a
    /// [`new_range`](Self::new_range), once everybody has claimed their own.
    pub fn readmit(&mut self, record: &Record) -> bool {
        self.insert(record);
        self.uids.adopt(record.uid_base)
    }

    /// Gives a dyno that has none another range.
    ///
    /// # Errors
    /// Exhausted, when no range is left.
    pub fn new_range(&mut self, record: &mut Record) -> Result<(), ApiError> {
        record.uid_base = self
            .uids
            .take()
            .map_err(|error| ApiError::new(ErrorKind::Exhausted, error.to_string()))?;
        if let Some(slot) = self.slots.get_mut(&record.id) {
            slot.uid_base = record.uid_base;
        }
        Ok(())
    }

    fn insert(&mut self, record: &Record) {
        self.names.insert(record.name.clone(), record.id.clone());
        let slot = Slot {
            name: record.name.clone(),
            rm: record.spec.rm,
            uid_base: record.uid_base,
            ports: record.ports.clone(),
            image: record.image.reference.clone(),
            layers: record.image.layers.clone(),
            once: None,
            handle: None,
        };
        self.slots.insert(record.id.clone(), slot);
    }

    /// A dyno was created with this key.
    pub fn made_with(&mut self, id: &DynoId, once: Once) {
        if let Some(slot) = self.slots.get_mut(id) {
            slot.once = Some(once);
        }
    }

    /// The dyno that the same request has made before.
    ///
    /// # Errors
    /// Conflict, where another request had the same key.
    pub fn made_by(&self, once: &Once) -> Result<Option<Handle>, ApiError> {
        for slot in self.slots.values() {
            if let (Some(former), Some(handle)) = (&slot.once, &slot.handle)
                && once.repeats(former)?
            {
                return Ok(Some(handle.clone()));
            }
        }
        Ok(None)
    }

    /// A dyno can be reached from now on.
    pub fn open(&mut self, id: &DynoId, handle: Handle) {
        if let Some(slot) = self.slots.get_mut(id) {
            slot.handle = Some(handle);
        }
    }

    /// Gives everything of a dyno back.
    pub fn forget(&mut self, id: &DynoId) {
        if let Some(slot) = self.slots.remove(id) {
            if self.names.get(&slot.name) == Some(id) {
                self.names.remove(&slot.name);
            }
            self.uids.release(slot.uid_base);
        }
    }

    /// The dyno with this name, id, or unique beginning of an id.
    ///
    /// # Errors
    /// NotFound; Invalid for an ambiguous beginning.
    pub fn find(&self, wanted: &str) -> Result<Handle, ApiError> {
        let by_name = self
            .names
            .iter()
            .find(|(name, _)| name.as_str() == wanted)
            .map(|(_, id)| id);
        let by_id = || self.slots.keys().find(|id| id.as_str() == wanted);
        let found = match by_name.or_else(by_id) {
            Some(id) => Some(id),
            None => self.by_prefix(wanted)?,
        };
        let handle = found
            .and_then(|id| self.slots.get(id))
            .and_then(|slot| slot.handle.clone());
        handle.ok_or_else(|| {
            ApiError::new(ErrorKind::NotFound, format!("there is no dyno {wanted:?}"))
                .hint("`dyno ps -a` lists all")
        })
    }

    fn by_prefix(&self, wanted: &str) -> Result<Option<&DynoId>, ApiError> {
        if wanted.len() < MIN_PREFIX {
            return Ok(None);
        }
        let mut matching = self
            .slots
            .keys()
            .filter(|id| id.as_str().starts_with(wanted));
        match (matching.next(), matching.next()) {
            (Some(_), Some(_)) => Err(ApiError::new(
                ErrorKind::Invalid,
                format!("more than one dyno's id begins with {wanted}"),
            )),
            (found, _) => Ok(found),
        }
    }

    /// Everyone who can be reached.
    pub fn handles(&self) -> Vec<Handle> {
        self.slots
            .values()
            .filter_map(|slot| slot.handle.clone())
            .collect()
    }

    /// Whether there is a dyno with this id.
    pub fn contains(&self, id: &DynoId) -> bool {
        self.slots.contains_key(id)
    }

    /// The layers that dynos stand on.
    pub fn layers_in_use(&self) -> HashSet<LayerId> {
        self.slots
            .values()
            .flat_map(|slot| slot.layers.iter().copied())
            .collect()
    }

    /// A dyno that was made from this image.
    pub fn user_of(&self, reference: &str) -> Option<&DynoName> {
        self.slots
            .values()
            .find(|slot| slot.image == reference)
            .map(|slot| &slot.name)
    }

    fn owner_of(&self, wanted: &PortMapping) -> Option<(&Slot, &PortMapping)> {
        self.slots.values().find_map(|slot| {
            let taken = slot
                .ports
                .iter()
                .find(|taken| ports::clash(taken, wanted))?;
            Some((slot, taken))
        })
    }
}

#[cfg(test)]
mod tests {
    use dyno_api::dyno::Protocol;

    use super::*;
    use crate::desired::tests::record;

    fn registry() -> Registry {
        Registry::new(UidPool::for_tests())
    }

    #[test]
    fn a_name_and_a_port_belong_to_one_dyno_and_the_refusal_names_it() {
        let mut registry = registry();
        let port = PortMapping {
            address: Some("127.0.0.1".parse().unwrap()),
            host_port: None,
            dyno_port: 80,
            protocol: Protocol::Tcp,
        };
        let mut first = record(1);
        first.spec.ports = vec![port.clone(), port.clone()];
        registry.reserve(&mut first).unwrap();
        assert_ne!(first.ports[0].host_port, first.ports[1].host_port);
        let mut second = record(2);
        second.spec.ports = vec![first.ports[0].clone()];
        let error = registry.reserve(&mut second).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Conflict);
        assert!(error.message.contains(first.name.as_str()), "{error}");
        second.spec.ports.clear();
        second.name = first.name.clone();
        assert_eq!(
            registry.reserve(&mut second).unwrap_err().kind,
            ErrorKind::Conflict
        );
        registry.forget(&first.id);
        second.spec.ports = vec![first.ports[0].clone()];
        registry.reserve(&mut second).unwrap();
    }

    #[test]
    fn no_two_dynos_share_a_range_after_recovery() {
        let mut registry = registry();
        let (mut first, mut second) = (record(1), record(2));
        registry.reserve(&mut first).unwrap();
        second.uid_base = first.uid_base;
        assert!(!registry.readmit(&second));
        registry.new_range(&mut second).unwrap();
        assert_ne!(first.uid_base, second.uid_base);
        // Each gives back its own.
        registry.forget(&second.id);
        let mut third = record(3);
        third.uid_base = first.uid_base;
        assert!(!registry.readmit(&third));
    }

    #[test]
    fn a_new_range_is_nobodys_who_was_taken_up() {
        let mut registry = registry();
        let (mut foreign, mut own) = (record(1), record(2));
        foreign.uid_base = 100_000;
        own.uid_base = UidPool::for_tests().take().unwrap();
        assert!(!registry.readmit(&foreign));
        assert!(registry.readmit(&own));
        registry.new_range(&mut foreign).unwrap();
        assert_ne!(foreign.uid_base, own.uid_base);
    }

    #[test]
    fn an_unknown_dyno_is_not_found() {
        let registry = registry();
        assert_eq!(registry.find("web").unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(registry.find("").unwrap_err().kind, ErrorKind::NotFound);
    }
}
