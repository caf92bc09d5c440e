//! One query from its bytes to the bytes of its answer, whatever the transport.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;

use hickory_proto::op::{Message, ResponseCode};

use super::decide::{Decision, decide, reply};
use super::encode::{Transport, encode};
use super::forward::forward;
use super::limits::{Limits, Permit};
use crate::control::protocol::Counters;
use crate::tables::Live;

/// Queries at upstreams: each holds a socket for as long as an upstream is slow.
const IN_FLIGHT: u32 = 1024;
const IN_FLIGHT_PER_CLIENT: u32 = 128;
/// TCP connections of clients.
const CONNECTIONS: u32 = 256;
const CONNECTIONS_PER_CLIENT: u32 = 16;

/// What every listener of the edge shares.
#[derive(Debug)]
pub struct Service {
    tables: Rc<Live>,
    turn: Cell<usize>,
    counts: Cell<Counts>,
    queries: Rc<Limits>,
    connections: Rc<Limits>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    answered: u64,
    forwarded: u64,
    refused: u64,
    failed: u64,
    dropped: u64,
}

/// What a listener does with a query.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Nothing.
    Silence,
    /// Send this.
    Now(Vec<u8>),
    /// Ask an upstream, beside other work: [`Service::finish`].
    Later(Forwarding),
}

/// A query on its way to an upstream, and its place among those in flight.
#[derive(Debug)]
pub(super) struct Forwarding {
    request: Message,
    transport: Transport,
    _place: Permit,
}

impl Service {
    /// A service that answers from `tables`.
    #[must_use]
    pub fn new(tables: Rc<Live>) -> Self {
        Self {
            tables,
            turn: Cell::new(0),
            counts: Cell::default(),
            queries: Limits::new(IN_FLIGHT, IN_FLIGHT_PER_CLIENT),
            connections: Limits::new(CONNECTIONS, CONNECTIONS_PER_CLIENT),
        }
    }

    /// A place for a TCP connection of `client`.
    pub(super) fn connect(&self, client: IpAddr) -> Option<Permit> {
        self.connections.enter(client.to_canonical())
    }

    /// Begins a query that came over a stream, or as a datagram.
    pub(super) fn begin(&self, client: IpAddr, packet: &[u8], stream: bool) -> Outcome {
        self.turn.set(self.turn.get().wrapping_add(1));
        let networks = self.tables.networks();
        let transport = |payload| {
            if stream {
                Transport::Tcp
            } else {
                Transport::udp(payload)
            }
        };
        match decide(&networks, client, packet, self.turn.get()) {
            Decision::Ignore => {
                self.count(|counts| counts.dropped += 1);
                Outcome::Silence
            }
            Decision::Answer(reply) => {
                self.count(|counts| counts.answered += 1);
                self.encode(&reply.message, transport(reply.client_payload_bytes))
            }
            Decision::Refuse(reply) => {
                self.count(|counts| counts.refused += 1);
                self.encode(&reply.message, transport(reply.client_payload_bytes))
            }
            Decision::Forward(request) => {
                let transport = transport(request.max_payload());
                match self.queries.enter(client.to_canonical()) {
                    Some(place) => Outcome::Later(Forwarding {
                        request: *request,
                        transport,
                        _place: place,
                    }),
                    None => self.fail(&request, transport),
                }
            }
        }
    }

    /// Asks the upstreams; the bytes to send, if any.
    pub(super) async fn finish(&self, forwarding: Forwarding) -> Option<Vec<u8>> {
        let Forwarding {
            request,
            transport,
            _place,
        } = forwarding;
        let networks = self.tables.networks();
        let outcome = match forward(networks.upstreams(), &request, transport).await {
            Some(bytes) => {
                self.count(|counts| counts.forwarded += 1);
                Outcome::Now(bytes)
            }
            None => self.fail(&request, transport),
        };
        match outcome {
            Outcome::Now(bytes) => Some(bytes),
            Outcome::Silence | Outcome::Later(_) => None,
        }
    }

    /// Waits until no query is in flight and every connection is closed.
    pub async fn drained(&self) {
        self.connections.drained().await;
        self.queries.drained().await;
    }

    /// The counts since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let Counts {
            answered,
            forwarded,
            refused,
            failed,
            dropped,
        } = self.counts.get();
        Counters {
            answered,
            forwarded,
            refused,
            failed,
            dropped,
        }
    }

    fn fail(&self, request: &Message, transport: Transport) -> Outcome {
        self.count(|counts| counts.failed += 1);
        self.encode(&reply(request, ResponseCode::ServFail), transport)
    }

    fn encode(&self, message: &Message, transport: Transport) -> Outcome {
        match encode(message, transport) {
            Ok(bytes) => Outcome::Now(bytes),
            Err(error) => {
                // Names that were parsed can be written again; if not, it is a bug.
                tracing::error!(%error, "an answer cannot be encoded");
                self.count(|counts| counts.dropped += 1);
                Outcome::Silence
            }
        }
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }
}
