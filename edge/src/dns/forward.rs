//! Asking an upstream resolver, and believing only the answer to what was asked.
//!
//! Each try has a fresh random id and, being a socket of its own, a random
//! source port; the socket is connected, so the kernel drops what comes from
//! elsewhere; id, question and the response bit are compared (RFC 5452).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use rustix::rand::GetRandomFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::UDP_PAYLOAD_BYTES;
use super::decide::reply;
use super::encode::Transport;

/// How long one upstream may take.
const TRY_TIME: Duration = Duration::from_secs(2);
/// How often upstreams are asked for one query, in turn: a client has given up by then.
const TRIES: usize = 4;
/// How many wrong datagrams one try reads before it is taken for an attack.
const MAX_WRONG: usize = 64;
/// A datagram longer than this was not asked for.
const MAX_DATAGRAM_BYTES: usize = 4096;

/// Asks `upstreams` in turn until one answers; the bytes of its answer for the
/// client, or `None` when none did.
pub(super) async fn forward(
    upstreams: &[SocketAddr],
    request: &Message,
    client: Transport,
) -> Option<Vec<u8>> {
    let mut failure = None;
    for upstream in upstreams
        .iter()
        .cycle()
        .take(TRIES.min(upstreams.len() * 2))
    {
        let Some(answer) = ask(*upstream, request, client).await else {
            continue;
        };
        let Some(answer) = for_client(answer, request, client) else {
            continue;
        };
        // An upstream in trouble says nothing about the next one.
        if matches!(
            response_code(&answer),
            ResponseCode::ServFail | ResponseCode::Refused
        ) {
            failure = Some(answer);
            continue;
        }
        return Some(answer);
    }
    failure
}

/// Asks one upstream over UDP, and over TCP what does not fit if the client can take it.
async fn ask(upstream: SocketAddr, request: &Message, client: Transport) -> Option<Vec<u8>> {
    let question = Question::of(request)?;
    let answer = timeout(TRY_TIME, over_udp(upstream, &question))
        .await
        .ok()?
        .ok()??;
    if !(client == Transport::Tcp && is_truncated(&answer)) {
        return Some(answer);
    }
    // What fits is better than nothing, should the upstream not speak TCP.
    let whole = timeout(TRY_TIME, over_tcp(upstream, &question)).await;
    whole.ok().and_then(Result::ok).flatten().or(Some(answer))
}

/// What is sent upstream: the client's question under our own id.
///
/// EDNS is hop by hop (RFC 6891): of the client's only the wish for DNSSEC
/// records goes on.
struct Question {
    id: u16,
    query: Query,
    bytes: Vec<u8>,
}

impl Question {
    fn of(request: &Message) -> Option<Self> {
        let query = request.queries.first()?.clone();
        let mut message = Message::new(random_id()?, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.metadata.checking_disabled = request.metadata.checking_disabled;
        message.metadata.authentic_data = request.metadata.authentic_data;
        message.add_query(query.clone());
        if let Some(asked) = &request.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().clamp(512, UDP_PAYLOAD_BYTES));
            edns.set_dnssec_ok(asked.flags().dnssec_ok);
            message.set_edns(edns);
        }
        Some(Self {
            id: message.metadata.id,
            query,
            bytes: message.to_vec().ok()?,
        })
    }

    /// Whether `answer` is one to this question. Its records are the client's
    /// to read: types unknown here pass.
    fn is_answered_by(&self, answer: &[u8]) -> bool {
        let mut decoder = BinDecoder::new(answer);
        let Ok(header) = Header::read(&mut decoder) else {
            return false;
        };
        if header.id != self.id
            || header.message_type != MessageType::Response
            || header.counts.queries != 1
        {
            return false;
        }
        Query::read(&mut decoder).is_ok_and(|query| {
            query.name() == self.query.name()
                && query.query_type() == self.query.query_type()
                && query.query_class() == self.query.query_class()
        })
    }
}

/// From the kernel directly: in a static binary the usual crates look for
/// getrandom(2) in vain and open a file, which a confined process cannot.
fn random_id() -> Option<u16> {
    let mut bytes = [0; 2];
    match rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty()) {
        Ok(_) => Some(u16::from_ne_bytes(bytes)),
        Err(error) => {
            tracing::error!(%error, "no random numbers");
            None
        }
    }
}

async fn over_udp(upstream: SocketAddr, question: &Question) -> std::io::Result<Option<Vec<u8>>> {
    let any = match upstream {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    socket.send(&question.bytes).await?;
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    for _ in 0..MAX_WRONG {
        let length = socket.recv(&mut buffer).await?;
        if buffer
            .get(..length)
            .is_some_and(|answer| question.is_answered_by(answer))
        {
            buffer.truncate(length);
            return Ok(Some(buffer));
        }
    }
    Ok(None)
}

async fn over_tcp(upstream: SocketAddr, question: &Question) -> std::io::Result<Option<Vec<u8>>> {
    let mut stream = TcpStream::connect(upstream).await?;
    stream
        .write_all(&super::tcp::framed(&question.bytes))
        .await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(question.is_answered_by(&answer).then_some(answer))
}

/// The upstream's answer under the client's id, cut where it is too long for it.
fn for_client(mut answer: Vec<u8>, request: &Message, client: Transport) -> Option<Vec<u8>> {
    if answer.len() > client.max_bytes() {
        let mut truncated = reply(request, response_code(&answer));
        truncated.metadata.truncation = true;
        return truncated.to_vec().ok();
    }
    *answer.first_chunk_mut::<2>()? = request.metadata.id.to_be_bytes();
    Some(answer)
}

fn header(answer: &[u8]) -> Option<Header> {
    Header::read(&mut BinDecoder::new(answer)).ok()
}

fn is_truncated(answer: &[u8]) -> bool {
    header(answer).is_some_and(|header| header.truncation)
}

fn response_code(answer: &[u8]) -> ResponseCode {
    header(answer).map_or(ResponseCode::ServFail, |header| header.response_code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::{Name, RecordType};

    fn request() -> Message {
        let mut request = Message::query();
        let name = Name::from_ascii("Example.org.").unwrap();
        request.add_query(Query::query(name, RecordType::A));
        request
    }

    fn answer_to(question: &Question) -> Message {
        let mut answer = Message::response(question.id, hickory_proto::op::OpCode::Query);
        answer.add_query(question.query.clone());
        answer
    }

    #[test]
    fn only_the_answer_to_the_question_is_believed() {
        let question = Question::of(&request()).unwrap();
        let believed = |change: &dyn Fn(&mut Message)| {
            let mut answer = answer_to(&question);
            change(&mut answer);
            question.is_answered_by(&answer.to_vec().unwrap())
        };
        assert!(believed(&|_| {}));
        assert!(believed(&|m| {
            m.queries[0].set_name(Name::from_ascii("example.ORG.").unwrap());
        }));
        assert!(!believed(&|m| m.metadata.id = m.metadata.id.wrapping_add(1)));
        assert!(!believed(&|m| m.metadata.message_type = MessageType::Query));
        assert!(!believed(&|m| m.queries.clear()));
        assert!(!believed(&|m| {
            m.queries[0].set_name(Name::from_ascii("example.com.").unwrap());
        }));
        assert!(!believed(&|m| {
            m.queries[0].set_query_type(RecordType::AAAA);
        }));
    }

    #[test]
    fn ids_are_fresh_for_every_question() {
        let request = request();
        let ids: std::collections::HashSet<u16> = (0..64)
            .filter_map(|_| Question::of(&request))
            .map(|question| question.id)
            .collect();
        assert!(ids.len() > 32, "{} different ids of 64", ids.len());
    }

    #[test]
    fn a_long_answer_is_cut_for_a_small_client() {
        let request = request();
        let question = Question::of(&request).unwrap();
        let mut long = answer_to(&question).to_vec().unwrap();
        long.resize(600, 0);
        let cut = for_client(long.clone(), &request, Transport::Udp(512)).unwrap();
        assert!(is_truncated(&cut) && cut.len() <= 512);
        assert_eq!(header(&cut).unwrap().id, request.metadata.id);
        assert_eq!(
            for_client(long, &request, Transport::Tcp).unwrap().len(),
            600
        );
    }
}
