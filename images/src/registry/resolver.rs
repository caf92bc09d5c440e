//! Host names to addresses, without libc: a static program must never enter NSS.
//!
//! `/etc/hosts` first, then the name servers of `/etc/resolv.conf` by UDP, or TCP where an
//! answer is truncated. Read each time: both files change while a daemon runs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
const MAX_NAME_SERVERS: usize = 3;
const MAX_SEARCH: usize = 6;

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Not a name.
    #[error("`{name}` is not a host name")]
    Name {
        /// What it was.
        name: String,
    },
    /// The name servers know no address.
    #[error("the name `{name}` has no address")]
    NoAddress {
        /// The name.
        name: String,
    },
    /// No name server gave a usable answer.
    #[error("no name server in /etc/resolv.conf answered for `{name}`")]
    NoAnswer {
        /// The name.
        name: String,
        /// The last failure.
        source: io::Error,
    },
}

impl ResolveError {
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, ResolveError::NoAnswer { .. })
    }
}

/// All addresses of `host`, IPv4 first: where both work there is no difference, and where one is
/// broken it is IPv6.
///
/// # Errors
/// [`ResolveError`].
pub async fn resolve(host: &str) -> Result<Vec<IpAddr>, ResolveError> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    if host == "localhost" {
        // RFC 6761: never asked of a name server.
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    // A machine without these files just has no entries.
    let hosts = tokio::fs::read_to_string("/etc/hosts")
        .await
        .unwrap_or_default();
    let listed = listed_in_hosts(&hosts, host);
    if !listed.is_empty() {
        return Ok(listed);
    }
    let resolv_conf = tokio::fs::read_to_string("/etc/resolv.conf")
        .await
        .unwrap_or_default();
    let settings = Settings::parse(&resolv_conf);
    let mut last = ResolveError::NoAddress {
        name: host.to_owned(),
    };
    for name in settings.candidates(host)? {
        match lookup(&settings, &name, host).await {
            Ok(addresses) => return Ok(addresses),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn listed_in_hosts(hosts: &str, host: &str) -> Vec<IpAddr> {
    let listed = |line: &str| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words
            .any(|name| name.eq_ignore_ascii_case(host))
            .then_some(address)
    };
    hosts.lines().filter_map(listed).collect()
}

/// What of resolv.conf(5) counts here.
#[derive(Debug, PartialEq)]
struct Settings {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
}

impl Settings {
    fn parse(text: &str) -> Settings {
        let (mut servers, mut search) = (Vec::new(), Vec::new());
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    servers.extend(address.map(|address| SocketAddr::new(address, 53)));
                }
                Some("search" | "domain") => {
                    search = words.take(MAX_SEARCH).map(str::to_owned).collect()
                }
                _ => {}
            }
        }
        servers.truncate(MAX_NAME_SERVERS);
        if servers.is_empty() {
            servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53));
        }
        Settings { servers, search }
    }

    /// Full names to ask for: a name without a dot first within the search domains.
    fn candidates(&self, host: &str) -> Result<Vec<Name>, ResolveError> {
        let name = |text: String| match Name::from_ascii(&text) {
            Ok(name) => Ok(name),
            Err(_not_a_name) => Err(ResolveError::Name { name: text }),
        };
        let mut names = Vec::new();
        if !host.contains('.') {
            for domain in &self.search {
                names.push(name(format!("{host}.{}.", domain.trim_end_matches('.')))?);
            }
        }
        names.push(name(format!("{}.", host.trim_end_matches('.')))?);
        Ok(names)
    }
}

async fn lookup(settings: &Settings, name: &Name, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
    let ask = |kind| ask_servers(&settings.servers, name, kind);
    let (v4, v6) = tokio::join!(ask(RecordType::A), ask(RecordType::AAAA));
    let no_answer = |source| ResolveError::NoAnswer {
        name: host.to_owned(),
        source,
    };
    let addresses: Vec<IpAddr> = match (v4, v6) {
        (Err(source), Err(_)) => return Err(no_answer(source)),
        // One family will do.
        (v4, v6) => v4
            .unwrap_or_default()
            .into_iter()
            .chain(v6.unwrap_or_default())
            .collect(),
    };
    match addresses.is_empty() {
        true => Err(ResolveError::NoAddress {
            name: host.to_owned(),
        }),
        false => Ok(addresses),
    }
}

async fn ask_servers(
    servers: &[SocketAddr],
    name: &Name,
    kind: RecordType,
) -> io::Result<Vec<IpAddr>> {
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
        match timeout(QUERY_TIMEOUT, ask(*server, name, kind)).await {
            Ok(Ok(addresses)) => return Ok(addresses),
            Ok(Err(error)) => last = error,
            Err(elapsed) => last = elapsed.into(),
        }
    }
    Err(last)
}

/// One question to one server. A name that does not exist is an answer: no addresses.
async fn ask(server: SocketAddr, name: &Name, kind: RecordType) -> io::Result<Vec<IpAddr>> {
    let mut query = Message::new(random_id(), MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name.clone(), kind));
    let question = query.to_bytes().map_err(io::Error::other)?;
    let mut answer = ask_by_udp(server, &question, &query).await?;
    if answer.metadata.truncation {
        answer = ask_by_tcp(server, &question, &query).await?;
    }
    match answer.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        code => return Err(io::Error::other(format!("the name server answered {code}"))),
    }
    // A recursive server puts the whole chain of aliases into one answer.
    let addresses = answer
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        });
    Ok(addresses.collect())
}

async fn ask_by_udp(server: SocketAddr, question: &[u8], query: &Message) -> io::Result<Message> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A port of the kernel's choice, connected: together with the id that is what keeps
    // forged answers out.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = read_answer(&buffer[..length], query) {
            return Ok(answer);
        }
    }
}

async fn ask_by_tcp(server: SocketAddr, question: &[u8], query: &Message) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes()[..], question].concat())
        .await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    read_answer(&answer, query)
        .ok_or_else(|| io::Error::other("the name server answered something else"))
}

/// The message if it answers this very question.
fn read_answer(bytes: &[u8], query: &Message) -> Option<Message> {
    let answer = Message::from_bytes(bytes).ok()?;
    let fits = answer.metadata.id == query.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.queries == query.queries;
    fits.then_some(answer)
}

fn random_id() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    let [a, b, ..] = RandomState::new().hash_one(0_u8).to_ne_bytes();
    u16::from_ne_bytes([a, b])
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{A, CNAME};

    #[test]
    fn reads_hosts_and_resolv_conf() {
        let hosts = "127.0.0.1 localhost\n# 1.1.1.1 x\n10.0.0.1 a Registry # b\nfe80::1 registry\nbad registry\n";
        let listed = listed_in_hosts(hosts, "registry");
        assert_eq!(
            listed,
            [
                "10.0.0.1".parse::<IpAddr>().unwrap(),
                "fe80::1".parse().unwrap()
            ]
        );
        assert!(listed_in_hosts(hosts, "b").is_empty());

        let settings = Settings::parse(
            "nameserver 10.0.0.2\nnameserver x\nsearch one two.\noptions ndots:1\n",
        );
        assert_eq!(settings.servers, ["10.0.0.2:53".parse().unwrap()]);
        let names = |host| -> Vec<String> {
            settings
                .candidates(host)
                .unwrap()
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(
            names("registry"),
            ["registry.one.", "registry.two.", "registry."]
        );
        assert_eq!(names("a.example"), ["a.example."]);
        assert_eq!(
            Settings::parse("").servers,
            ["127.0.0.1:53".parse().unwrap()]
        );
    }

    /// A name server on loopback that answers each question with `answer`.
    async fn server(answer: impl Fn(&Message) -> Vec<Message> + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let question = Message::from_bytes(&buffer[..length]).unwrap();
                for message in answer(&question) {
                    socket
                        .send_to(&message.to_bytes().unwrap(), from)
                        .await
                        .unwrap();
                }
            }
        });
        address
    }

    fn reply(question: &Message) -> Message {
        let mut reply = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
        reply.add_queries(question.queries.clone());
        reply
    }

    #[tokio::test]
    async fn follows_aliases_and_ignores_answers_to_other_questions() {
        let address = server(|question| {
            let name = question.queries[0].name().clone();
            let alias = Name::from_ascii("cdn.example.").unwrap();
            let mut forged = reply(question);
            forged.metadata.id ^= 1;
            forged.add_answer(Record::from_rdata(
                name.clone(),
                60,
                RData::A(A::new(6, 6, 6, 6)),
            ));
            let mut right = reply(question);
            right.add_answer(Record::from_rdata(
                name,
                60,
                RData::CNAME(CNAME(alias.clone())),
            ));
            right.add_answer(Record::from_rdata(alias, 60, RData::A(A::new(10, 1, 2, 3))));
            vec![forged, right]
        })
        .await;
        let name = Name::from_ascii("registry.example.").unwrap();
        let addresses = ask(address, &name, RecordType::A).await.unwrap();
        assert_eq!(addresses, ["10.1.2.3".parse::<IpAddr>().unwrap()]);
    }

    #[tokio::test]
    async fn a_failing_server_is_an_error_and_an_unknown_name_is_none() {
        let failing = server(|question| {
            let mut failed = reply(question);
            failed.metadata.response_code = ResponseCode::ServFail;
            vec![failed]
        })
        .await;
        let knowing = server(|question| {
            let mut unknown = reply(question);
            unknown.metadata.response_code = ResponseCode::NXDomain;
            vec![unknown]
        })
        .await;
        let name = Name::from_ascii("nowhere.example.").unwrap();
        let settings = |server| Settings {
            servers: vec![server],
            search: Vec::new(),
        };
        let failed = lookup(&settings(failing), &name, "nowhere")
            .await
            .unwrap_err();
        assert!(matches!(failed, ResolveError::NoAnswer { .. }), "{failed}");
        let unknown = lookup(&settings(knowing), &name, "nowhere")
            .await
            .unwrap_err();
        assert!(
            matches!(unknown, ResolveError::NoAddress { .. }),
            "{unknown}"
        );
        // The second server is asked when the first fails.
        let both = Settings {
            servers: vec![failing, knowing],
            search: Vec::new(),
        };
        let unknown = lookup(&both, &name, "nowhere").await.unwrap_err();
        assert!(
            matches!(unknown, ResolveError::NoAddress { .. }),
            "{unknown}"
        );
    }
}
