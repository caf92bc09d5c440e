//! Which groups each selector selects, found without asking every group for
//! every selector.

use super::frame::number;
use super::model::{Group, Selector};
use std::collections::HashMap;

/// The groups of each selector, in order.
#[derive(Debug)]
pub(super) struct Selected(Vec<Vec<u32>>);

impl Selected {
    pub(super) fn groups(&self, selector: u32) -> &[u32] {
        &self.0[selector as usize]
    }
}

#[derive(Hash, PartialEq, Eq)]
enum Trait<'a> {
    App(&'a str),
    ProcessType(&'a str),
    Label(&'a str, &'a str),
}

/// Collects selectors; equal ones have one number.
pub(super) struct Selectors<'a> {
    groups: &'a [Group],
    with: HashMap<Trait<'a>, Vec<u32>>,
    numbers: HashMap<Selector, u32>,
    found: Vec<Vec<u32>>,
}

impl<'a> Selectors<'a> {
    pub(super) fn new(groups: &'a [Group]) -> Selectors<'a> {
        let mut with: HashMap<Trait<'a>, Vec<u32>> = HashMap::new();
        for (place, group) in groups.iter().enumerate() {
            let labels = group.labels.iter().map(|(k, v)| Trait::Label(k, v));
            let names = [
                Trait::App(&group.app),
                Trait::ProcessType(&group.process_type),
            ];
            for key in names.into_iter().chain(labels) {
                with.entry(key).or_default().push(number(place));
            }
        }
        Selectors {
            groups,
            with,
            numbers: HashMap::new(),
            found: Vec::new(),
        }
    }

    /// A selector's number.
    pub(super) fn number(&mut self, selector: &Selector) -> u32 {
        if let Some(&known) = self.numbers.get(selector) {
            return known;
        }
        let labels = selector.labels.iter().map(|(k, v)| Trait::Label(k, v));
        let app = selector.app.iter().map(|app| Trait::App(app));
        let process_type = selector
            .process_type
            .iter()
            .map(|name| Trait::ProcessType(name));
        // The rarest trait has the fewest groups to ask.
        let few = app
            .chain(process_type)
            .chain(labels)
            .map(|key| self.with.get(&key).map_or(&[][..], Vec::as_slice))
            .min_by_key(|groups| groups.len())
            .unwrap_or(&[]);
        let these = few
            .iter()
            .copied()
            .filter(|&place| selects(selector, &self.groups[place as usize]))
            .collect();
        let name = number(self.found.len());
        self.found.push(these);
        self.numbers.insert(selector.clone(), name);
        name
    }

    /// Whether a selector selects a group.
    pub(super) fn has(&self, selector: u32, group: u32) -> bool {
        self.found[selector as usize].binary_search(&group).is_ok()
    }

    pub(super) fn finish(self) -> Selected {
        Selected(self.found)
    }
}

/// Whether a group is what a selector speaks of.
pub(super) fn selects(selector: &Selector, group: &Group) -> bool {
    selector.app.as_ref().is_none_or(|app| *app == group.app)
        && selector
            .process_type
            .as_ref()
            .is_none_or(|name| *name == group.process_type)
        && selector
            .labels
            .iter()
            .all(|(name, value)| group.labels.get(name) == Some(value))
}
