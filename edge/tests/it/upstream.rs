//! An upstream resolver that behaves as badly as a test tells it to.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{Name, RData, Record};

use crate::rig::stream;

/// What is sent back for a query that came by UDP.
type Behaviour = dyn FnMut(&Message) -> Vec<Message> + Send;

pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) by_udp: Arc<AtomicUsize>,
    pub(crate) by_tcp: Arc<AtomicUsize>,
    /// Where each UDP query came from, and under which id.
    pub(crate) seen: mpsc::Receiver<(SocketAddr, u16)>,
}

impl Upstream {
    /// Serves until the test's process ends. Over TCP it always tells the truth, at length.
    pub(crate) fn start(address: &str, mut behave: Box<Behaviour>) -> Self {
        let udp = UdpSocket::bind((address, 0)).unwrap();
        let address = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(address).unwrap();
        let (by_udp, by_tcp) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (sender, seen) = mpsc::channel();
        let counter = Arc::clone(&by_udp);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = udp.recv_from(&mut buffer) {
                let query = Message::from_vec(&buffer[..length]).unwrap();
                counter.fetch_add(1, Ordering::Relaxed);
                if sender.send((client, query.metadata.id)).is_err() {
                    return;
                }
                for answer in behave(&query) {
                    udp.send_to(&answer.to_vec().unwrap(), client).unwrap();
                }
            }
        });
        let counter = Arc::clone(&by_tcp);
        thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let query = Message::from_vec(&stream::receive(&mut stream).unwrap()).unwrap();
                counter.fetch_add(1, Ordering::Relaxed);
                stream::send(&mut stream, &long(&query).to_vec().unwrap());
            }
        });
        Self {
            address,
            by_udp,
            by_tcp,
            seen,
        }
    }

    /// One that answers every query at once.
    pub(crate) fn honest(address: &str) -> Self {
        Self::start(address, Box::new(|query| vec![truth(query)]))
    }

    /// One that never answers.
    pub(crate) fn silent(address: &str) -> Self {
        Self::start(address, Box::new(|_| Vec::new()))
    }
}

/// The address that every upstream here gives.
pub(crate) const TRUTH: [u8; 4] = [192, 0, 2, 7];

pub(crate) fn truth(query: &Message) -> Message {
    answer(query, TRUTH)
}

pub(crate) fn lie(query: &Message) -> Message {
    answer(query, [6, 6, 6, 6])
}

pub(crate) fn failure(query: &Message, code: ResponseCode) -> Message {
    let mut message = empty(query);
    message.metadata.response_code = code;
    message
}

pub(crate) fn empty(query: &Message) -> Message {
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.recursion_available = true;
    message.add_queries(query.queries.iter().cloned());
    message
}

fn answer(query: &Message, address: [u8; 4]) -> Message {
    let mut message = empty(query);
    message.add_answer(record(&query.queries[0].name, RData::A(A(address.into()))));
    message
}

/// More than any datagram here may carry.
pub(crate) fn long(query: &Message) -> Message {
    let mut message = empty(query);
    let text = "x".repeat(200);
    for _ in 0..20 {
        let data = RData::TXT(TXT::new(vec![text.clone()]));
        message.add_answer(record(&query.queries[0].name, data));
    }
    message
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), 60, data)
}
