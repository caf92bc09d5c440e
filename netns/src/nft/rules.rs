//! The table of one host, and what is known of its state in the kernel.

use std::net::IpAddr;

use super::read::Fingerprint;
use super::table::{Table, is_missing};
use super::{Chain, Elements, chains};
use crate::error::{Error, Result};
use crate::model::Config;
use crate::netlink::Socket;

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
        match rules.table.read()? {
            Some((_, elements)) => rules.elements = elements,
            None => rules.replace(Elements::fixed())?,
        }
        Ok(rules)
    }

    /// Changes elements, in one transaction. A table that somebody removed or
    /// changed is replaced.
    pub(crate) fn change(
        &mut self,
        change: impl FnOnce(&mut Elements) -> Result<()>,
    ) -> Result<()> {
        let mut wanted = self.elements.clone();
        change(&mut wanted)?;
        let before = self.table.generation()?;
        match self.table.change(&self.elements, &wanted) {
            Err(error) if is_missing(&error) => return self.replace(wanted),
            other => other?,
        }
        let changed = self.elements.differs(&wanted);
        self.elements = wanted;
        // Ours was the only transaction in between, or somebody may have
        // meddled and the next reconciliation looks.
        let ours = before.wrapping_add(u32::from(changed));
        let undisturbed = self.seen == Some(before) && self.table.generation()? == ours;
        self.seen = undisturbed.then_some(ours);
        Ok(())
    }

    fn become_equal(&mut self, wanted: Elements) -> Result<()> {
        self.change(|elements| {
            *elements = wanted;
            Ok(())
        })
    }

    /// An attached endpoint's addresses.
    pub(crate) fn addresses(&self, id: &str) -> Vec<IpAddr> {
        self.elements.addresses(id)
    }

    /// Replaces rules and elements in one transaction.
    pub(crate) fn replace(&mut self, elements: Elements) -> Result<()> {
        self.table.replace(&self.chains, &elements)?;
        self.elements = elements;
        self.written = None;
        self.seen = Some(self.table.generation()?);
        self.written = self.table.read()?.map(|(fingerprint, _)| fingerprint);
        Ok(())
    }

    /// Makes the kernel hold these rules and elements. True if somebody had
    /// meddled with them.
    pub(crate) fn reconcile(&mut self, wanted: Elements) -> Result<bool> {
        let Some(written) = &self.written else {
            self.replace(wanted)?; // the table of a former process
            return Ok(false);
        };
        let generation = self.table.generation()?;
        if self.seen == Some(generation) {
            self.become_equal(wanted)?;
            return Ok(false);
        }
        match self.table.read()? {
            Some((fingerprint, elements))
                if fingerprint == *written && !elements.differs(&self.elements) =>
            {
                self.seen = Some(generation);
                self.become_equal(wanted)?;
                Ok(false)
            }
            _ => {
                self.replace(wanted)?;
                Ok(true)
            }
        }
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
