//! The table of one host, and what is known of its state in the kernel.

use std::net::IpAddr;

use super::read::Fingerprint;
use super::table::{Table, is_missing};
use super::{Chain, Elements, chains};
use crate::conntrack::Stale;
use crate::error::{Error, Result};
use crate::model::Config;
use crate::netlink::{Socket, once_loaded};

/// Rules and elements of one host.
#[derive(Debug)]
pub(crate) struct Rules {
    table: Table,
    chains: Vec<Chain>,
    /// What the kernel holds, if nobody meddled.
    elements: Elements,
    /// What the rules look like when read back; unknown until we wrote them.
    written: Option<Fingerprint>,
    /// The generation at which the kernel was last known to hold just that.
    seen: Option<u32>,
}

impl Rules {
    /// Finds the table, or creates it without any dyno: closed.
    pub(crate) fn open(config: &Config) -> Result<Self> {
        let table =
            Table::open(format!("dyno-{}", config.host)).map_err(|source| Error::Netlink {
                operation: "open an nftables socket".to_owned(),
                source,
            })?;
        let mut rules = Self {
            table,
            chains: chains(config),
            elements: Elements::fixed(),
            written: None,
            seen: None,
        };
        match once_loaded(|| rules.table.read())? {
            Some((_, elements)) => rules.elements = elements,
            None => once_loaded(|| rules.replace(Elements::fixed())).map(drop)?,
        }
        Ok(rules)
    }

    /// Changes elements, in one transaction. A table that somebody removed or
    /// changed is replaced. The flows to be forgotten are the caller's affair.
    pub(crate) fn change(
        &mut self,
        change: impl FnOnce(&mut Elements) -> Result<()>,
    ) -> Result<Vec<Stale>> {
        let mut wanted = self.elements.clone();
        change(&mut wanted)?;
        let before = self.table.generation()?;
        let seen = self.seen.take();
        match self.table.change(&self.elements, &wanted) {
            Err(error) if is_missing(&error) => return self.replace(wanted),
            other => other?,
        }
        // Either ours was the only transaction in between, or somebody may
        // have meddled and the next reconciliation looks.
        let ours = before.wrapping_add(u32::from(self.elements.differs(&wanted)));
        if seen == Some(before) && self.table.generation()? == ours {
            self.seen = Some(ours);
        }
        Ok(self.become_known(wanted))
    }

    /// Replaces rules and elements in one transaction. The flows to be
    /// forgotten are the caller's affair.
    pub(crate) fn replace(&mut self, wanted: Elements) -> Result<Vec<Stale>> {
        let before = self.table.generation()?;
        self.seen = None;
        self.table.replace(&self.chains, &wanted)?;
        let held = self.table.read()?;
        // What was read is what we wrote only if nobody else wrote meanwhile.
        let ours = before.wrapping_add(1);
        if self.table.generation()? == ours {
            self.seen = Some(ours);
            self.written = held.map(|(fingerprint, _)| fingerprint);
        }
        Ok(self.become_known(wanted))
    }

    /// Makes the kernel hold these rules and elements. True if somebody had
    /// meddled with them. The flows to be forgotten are the caller's affair.
    pub(crate) fn reconcile(&mut self, wanted: Elements) -> Result<(bool, Vec<Stale>)> {
        let Some(written) = &self.written else {
            return Ok((false, self.replace(wanted)?)); // a former process's table
        };
        let generation = self.table.generation()?;
        if self.seen != Some(generation) {
            match self.table.read()? {
                Some((fingerprint, elements))
                    if fingerprint == *written && !elements.differs(&self.elements) =>
                {
                    self.seen = Some(generation);
                }
                _ => return Ok((true, self.replace(wanted)?)),
            }
        }
        let stale = self.change(|elements| {
            *elements = wanted;
            Ok(())
        })?;
        Ok((false, stale))
    }

    /// An attached endpoint's addresses.
    pub(crate) fn addresses(&self, id: &str) -> Vec<IpAddr> {
        self.elements.addresses(id)
    }

    fn become_known(&mut self, elements: Elements) -> Vec<Stale> {
        let stale = self.elements.stale(&elements);
        self.elements = elements;
        stale
    }

    /// Removes the table.
    pub(crate) fn remove(&mut self) -> Result<()> {
        self.table.remove()
    }

    /// Our table's name, and a socket for questions about others.
    pub(crate) fn others(&mut self) -> (&str, &mut Socket) {
        self.table.parts()
    }
}
