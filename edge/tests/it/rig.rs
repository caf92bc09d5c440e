//! A network namespace, a folder, and edges that run in them.

use std::io::{BufRead, BufReader, IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use dyno_api::edge::{NetworkTable, Tables, VERSION};
use dyno_edge::control::protocol::{Refusal, Request, Response, StartLine, Status};
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// The user and group that edges become here: nobody's.
pub(crate) const UID: u32 = 1_987_654;
/// Two networks' gateways, and a client in each; and one in none.
pub(crate) const GATEWAY_A: &str = "127.0.1.1";
pub(crate) const GATEWAY_B: &str = "127.0.2.1";
pub(crate) const CLIENT_A: &str = "127.0.1.9";
pub(crate) const CLIENT_A2: &str = "127.0.1.10";
pub(crate) const CLIENT_B: &str = "127.0.2.9";
pub(crate) const STRANGER: &str = "127.0.9.9";

/// How long anything may take that is expected to happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Rig {
    pub(crate) folder: PathBuf,
}

impl Rig {
    /// A fresh network namespace with loopback up, and tables of two networks.
    pub(crate) fn new() -> Self {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .expect("a network namespace of one's own needs root");
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.expect("iproute2 is installed").success());
        let folder = std::env::temp_dir().join(format!("dyno-edge-it-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        Self { folder }
    }

    /// Replaces the tables as hostd does.
    pub(crate) fn put(&self, tables: &Tables) {
        self.put_text(&serde_json::to_string(tables).unwrap());
    }

    pub(crate) fn put_text(&self, text: &str) {
        let temporary = self.folder.join("tables.json.new");
        std::fs::File::create(&temporary)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        std::fs::rename(temporary, self.folder.join("tables.json")).unwrap();
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dyno-edge"));
        command
            .arg("--tables")
            .arg(self.folder.join("tables.json"))
            .arg("--control")
            .arg(self.folder.join("edge.sock"))
            .args(["--uid", &UID.to_string(), "--gid", &UID.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }

    /// Starts an edge that must become ready.
    pub(crate) fn start(&self, extra: &[&str]) -> Edge {
        let (edge, line) = self.try_start(extra);
        match line {
            StartLine::Ready { pid, .. } => assert_eq!(pid, edge.child.id()),
            StartLine::Failed { message } => panic!("not started: {message}"),
        }
        edge
    }

    pub(crate) fn try_start(&self, extra: &[&str]) -> (Edge, StartLine) {
        let mut child = self.command().args(extra).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        (Edge { child }, serde_json::from_str(&line).unwrap())
    }

    /// An edge that serves both networks.
    pub(crate) fn serving(&self, tables: &Tables) -> Edge {
        self.put(tables);
        let edge = self.start(&[]);
        let mut control = self.connect();
        for (network, gateway) in [("a", GATEWAY_A), ("b", GATEWAY_B)] {
            control.listen(network, &sockets(gateway)).unwrap();
        }
        edge
    }

    pub(crate) fn connect(&self) -> Control {
        Control::new(UnixStream::connect(self.folder.join("edge.sock")).unwrap())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("{}: {error}", self.folder.display());
        }
    }
}

/// A running edge, killed when dropped.
pub(crate) struct Edge {
    pub(crate) child: Child,
}

impl Edge {
    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        eventually("the edge ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("cannot kill the edge: {error}");
        }
    }
}

/// hostd's end of the control socket.
pub(crate) struct Control {
    stream: BufReader<UnixStream>,
}

impl Control {
    fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Result<Status, Refusal> {
        self.send(&serde_json::to_string(request).unwrap(), &[])
    }

    pub(crate) fn listen(&mut self, network: &str, sockets: &[OwnedFd]) -> Result<Status, Refusal> {
        let request = Request::Listen {
            network: network.to_owned(),
        };
        let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        self.send(&serde_json::to_string(&request).unwrap(), &sockets)
    }

    /// Sends a line, which may be nonsense, with descriptors.
    pub(crate) fn send(&mut self, line: &str, fds: &[BorrowedFd<'_>]) -> Result<Status, Refusal> {
        let line = format!("{line}\n");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let bytes = [IoSlice::new(line.as_bytes())];
        sendmsg(
            self.stream.get_ref(),
            &bytes,
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
        .unwrap();
        let mut answer = String::new();
        self.stream.read_line(&mut answer).unwrap();
        match serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{answer:?}: {error}")) {
            Response::Ok(status) => Ok(status),
            Response::Err(refusal) => Err(refusal),
            Response::Network(network) => panic!("unasked sockets of {network}"),
        }
    }
}

/// Port 53 of an address, both ways.
pub(crate) fn sockets(address: &str) -> Vec<OwnedFd> {
    let address = (address.parse::<IpAddr>().unwrap(), 53);
    vec![
        UdpSocket::bind(address).unwrap().into(),
        TcpListener::bind(address).unwrap().into(),
    ]
}

/// Tables of networks a and b, with `web` in both.
pub(crate) fn tables(upstreams: &[SocketAddr]) -> Tables {
    let network = |source: &str, web: &str| NetworkTable {
        sources: vec![source.to_owned()],
        names: [("web".to_owned(), vec![web.parse().unwrap()])].into(),
    };
    Tables {
        version: VERSION,
        upstreams: upstreams.to_vec(),
        networks: [
            ("a".to_owned(), network("127.0.1.0/24", "10.1.0.2")),
            ("b".to_owned(), network("127.0.2.0/24", "10.2.0.2")),
        ]
        .into(),
    }
}

pub(crate) fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

/// Asks over UDP as `client`; `None` when nothing comes within `patience`.
pub(crate) fn ask_within(
    client: &str,
    gateway: &str,
    question: &Message,
    patience: Duration,
) -> Option<Message> {
    let socket = UdpSocket::bind((client, 0)).unwrap();
    socket.connect((gateway, 53)).unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.send(&question.to_vec().unwrap()).unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).ok()?;
    let answer = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!(answer.metadata.id, question.metadata.id);
    Some(answer)
}

pub(crate) fn ask(client: &str, gateway: &str, question: &Message) -> Message {
    ask_within(client, gateway, question, DEADLINE).expect("an answer")
}

/// The A records of `name` as `client` sees them.
pub(crate) fn addresses(client: &str, gateway: &str, name: &str) -> Vec<String> {
    texts(&ask(client, gateway, &question(name, RecordType::A)))
}

pub(crate) fn texts(message: &Message) -> Vec<String> {
    message
        .answers
        .iter()
        .map(|record| record.data.to_string())
        .collect()
}

/// Polls until there is a value, or panics with `what`.
pub(crate) fn eventually<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A TCP conversation as `client`.
pub(crate) mod stream {
    use std::io::Read;
    use std::net::TcpStream;

    use super::*;

    pub(crate) fn connect(client: &str, gateway: &str) -> TcpStream {
        // The standard library cannot choose the source address of a stream.
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            None,
        )
        .unwrap();
        rustix::net::bind(&socket, &SocketAddr::new(client.parse().unwrap(), 0)).unwrap();
        rustix::net::connect(&socket, &SocketAddr::new(gateway.parse().unwrap(), 53)).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    pub(crate) fn send(stream: &mut TcpStream, message: &[u8]) {
        let length = u16::try_from(message.len()).unwrap();
        stream
            .write_all(&[&length.to_be_bytes()[..], message].concat())
            .unwrap();
    }

    pub(crate) fn receive(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut message)?;
        Ok(message)
    }

    pub(crate) fn ask(client: &str, gateway: &str, question: &Message) -> Message {
        let mut stream = connect(client, gateway);
        send(&mut stream, &question.to_vec().unwrap());
        Message::from_vec(&receive(&mut stream).unwrap()).unwrap()
    }
}
