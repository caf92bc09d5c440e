//! Our table in the kernel: replaced as a whole, changed by elements, read
//! back, removed. Each change is one transaction, there at once or not at all.

use std::io;

use rustix::net::netlink::NETFILTER;

use super::elements::{Contents, Elements};
use super::read::{self, Fingerprint};
use super::schema::{SETS, Set};
use super::{Chain, INET, Rule, family, kind};
use crate::error::{Error, Result};
use crate::netlink::{Attributes, Message, Socket, flags};

/// Elements per message: far below an attribute's 64 KiB.
const CHUNK: usize = 256;

/// One table of family `inet`, through a socket of its network namespace.
#[derive(Debug)]
pub(crate) struct Table {
    name: String,
    socket: Socket,
}

impl Table {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open(name: String) -> io::Result<Self> {
        let socket = Socket::open(Some(NETFILTER))?;
        Ok(Self { name, socket })
    }

    /// Replaces rules, sets and elements in one transaction (P13).
    pub(crate) fn replace(&mut self, chains: &[Chain], elements: &Elements) -> Result<()> {
        // Deleting what may not be there is an error, so it is made first.
        let mut batch = vec![self.table(kind::NEW_TABLE, flags::CREATE)];
        batch.push(self.table(kind::DEL_TABLE, 0));
        batch.push(self.table(kind::NEW_TABLE, flags::CREATE));
        for (id, set) in (1..).zip(&SETS) {
            batch.push(self.new_set(set, id));
        }
        for set in &SETS {
            batch.extend(self.elements(kind::NEW_ELEMENT, set, elements.contents(set.name)));
        }
        batch.extend(chains.iter().map(|chain| self.new_chain(chain)));
        for chain in chains {
            batch.extend(
                chain
                    .rules
                    .iter()
                    .map(|rule| self.new_rule(chain.name, rule)),
            );
        }
        let operation = format!("replace nft table {}", self.name);
        self.commit(&operation, batch)
    }

    /// Changes the elements from one state to another in one transaction.
    pub(crate) fn change(&mut self, from: &Elements, to: &Elements) -> Result<()> {
        let mut batch = Vec::new();
        let mut added = Vec::new();
        for set in &SETS {
            let (old, new) = (from.contents(set.name), to.contents(set.name));
            batch.extend(self.elements(kind::DEL_ELEMENT, set, &missing(old, new)));
            added.extend(self.elements(kind::NEW_ELEMENT, set, &missing(new, old)));
        }
        batch.append(&mut added);
        if batch.is_empty() {
            return Ok(());
        }
        let operation = format!("change elements of nft table {}", self.name);
        self.commit(&operation, batch)
    }

    /// Removes the table. Not an error if there is none.
    pub(crate) fn remove(&mut self) -> Result<()> {
        let batch = vec![
            self.table(kind::NEW_TABLE, flags::CREATE),
            self.table(kind::DEL_TABLE, 0),
        ];
        let operation = format!("remove nft table {}", self.name);
        self.commit(&operation, batch)
    }

    /// What the kernel holds: chains, sets and rules in a form that can be
    /// compared, and the elements. `None` if the table is not there.
    pub(crate) fn read(&mut self) -> Result<Option<(Fingerprint, Elements)>> {
        let Some(fingerprint) = read::fingerprint(&mut self.socket, &self.name)? else {
            return Ok(None);
        };
        let mut elements = Elements::default();
        for set in &SETS {
            match read::elements(&mut self.socket, &self.name, set.name) {
                Ok(contents) => {
                    for (key, value) in contents {
                        elements.add(set.name, key, value);
                    }
                }
                Err(error) if is_missing(&error) => {} // the fingerprint tells
                Err(error) => return Err(error),
            }
        }
        Ok(Some((fingerprint, elements)))
    }

    /// The number that grows with every transaction in this namespace.
    pub(crate) fn generation(&mut self) -> Result<u32> {
        read::generation(&mut self.socket)
    }

    /// Its name, and the socket for questions about other tables.
    pub(crate) fn parts(&mut self) -> (&str, &mut Socket) {
        (&self.name, &mut self.socket)
    }

    fn commit(&mut self, operation: &str, messages: Vec<Message>) -> Result<()> {
        let bound = |kind| Message::new(kind, 0, &[0, 0, 0, 10]);
        let mut batch = vec![bound(kind::BATCH_BEGIN)];
        batch.extend(messages);
        batch.push(bound(kind::BATCH_END));
        self.socket.transaction(operation, batch)
    }

    fn table(&self, kind: u16, flags: u16) -> Message {
        Message::new(kind, flags, &family(INET)).string(1, &self.name)
    }

    fn new_set(&self, set: &Set, id: u32) -> Message {
        const MAP: u32 = 0x8;
        let message = self
            .table(kind::NEW_SET, flags::CREATE)
            .string(2, set.name)
            .be32(3, set.value().map_or(0, |_| MAP))
            .be32(4, set.key_type())
            .be32(5, set.key_length())
            .be32(10, id);
        match set.value() {
            Some((kind, length)) => message.be32(6, kind).be32(7, length),
            None => message,
        }
    }

    fn elements<'a>(&'a self, kind: u16, set: &'a Set, contents: &Contents) -> Vec<Message> {
        let all: Vec<_> = contents.iter().collect();
        all.chunks(CHUNK)
            .map(|chunk| {
                let list = chunk.iter().fold(Attributes::new(), |list, (key, value)| {
                    list.nest(1, &element(key, value))
                });
                self.table(
                    kind,
                    if kind == kind::NEW_ELEMENT {
                        flags::CREATE
                    } else {
                        0
                    },
                )
                .string(2, set.name)
                .nest(3, &list)
            })
            .collect()
    }

    fn new_chain(&self, chain: &Chain) -> Message {
        const ACCEPT: u32 = 1;
        let message = self
            .table(kind::NEW_CHAIN, flags::CREATE)
            .string(3, chain.name);
        let Some(hook) = chain.hook else {
            return message;
        };
        let place = Attributes::new()
            .be32(1, hook.number)
            .be32(2, hook.priority.cast_unsigned());
        message.nest(4, &place).be32(5, ACCEPT).string(7, hook.kind)
    }

    fn new_rule(&self, chain: &str, rule: &Rule) -> Message {
        let list = rule
            .expressions
            .iter()
            .fold(Attributes::new(), |list, expression| {
                list.nest(1, &expression.encode())
            });
        self.table(kind::NEW_RULE, flags::CREATE | flags::APPEND)
            .string(2, chain)
            .nest(4, &list)
    }
}

/// Whether the kernel does not know the object.
pub(crate) fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Netlink { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

fn element(key: &[u8], value: &[u8]) -> Attributes {
    let element = Attributes::new().nest(1, &super::expression::value(key));
    if value.is_empty() {
        return element;
    }
    element.nest(2, &super::expression::value(value))
}

/// What `all` has and `there` has not, or has with another value.
fn missing(all: &Contents, there: &Contents) -> Contents {
    all.iter()
        .filter(|(key, value)| there.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
