//! A host, its neighbour and its dynos, each in a network namespace of its
//! own. Everything disappears with the test's process.
//!
//! ```text
//!  outside                      host (the test's own thread)         dynos
//!  192.0.2.2  fd00:2::2 ─veth─ 192.0.2.1, .3  fd00:2::1 ─ Network ─ eth0 …
//! ```
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    reason = "a test whose world cannot be built fails"
)]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dyno_netns::{Config, Desired, Endpoint, Network, Protocol, Published, pool};
use nix::sched::{CloneFlags, setns, unshare};

/// Long enough on a busy machine; a refusal comes at once.
const ANSWER: Duration = Duration::from_secs(5);
/// How long silence must last to be believed.
const SILENCE: Duration = Duration::from_millis(400);

/// A network namespace.
pub(crate) struct Namespace {
    file: File,
}

impl Namespace {
    /// A fresh one, with its loopback link up.
    pub(crate) fn new() -> Self {
        let namespace = Self::bare();
        namespace.command("ip link set lo up");
        namespace
    }

    /// A fresh one, as the kernel makes it.
    pub(crate) fn bare() -> Self {
        let file = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self {
            file: file.join().unwrap(),
        }
    }

    pub(crate) fn of(pid: u32) -> Self {
        Self {
            file: File::open(format!("/proc/{pid}/ns/net")).unwrap(),
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Runs a closure inside.
    pub(crate) fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).unwrap();
                inside()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a command inside and returns what it printed.
    pub(crate) fn command(&self, line: &str) -> String {
        self.run(|| command(line))
    }

    /// Answers every TCP connection and UDP datagram on a port with
    /// `label from ADDRESS`, until the process ends.
    pub(crate) fn serve(&self, label: &'static str, address: &str, port: u16) {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        self.run(|| serve(label, address));
    }

    /// What a server at the address says over TCP.
    pub(crate) fn tcp(&self, address: &str, port: u16) -> io::Result<String> {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        self.run(|| tcp(address))
    }

    /// What a server at the address says over UDP.
    pub(crate) fn udp(&self, address: &str, port: u16) -> io::Result<String> {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        self.run(|| udp(address))
    }
}

/// The test's thread in a namespace of its own, wired to a neighbour.
pub(crate) struct Host {
    pub(crate) outside: Namespace,
    pub(crate) own: Namespace,
}

pub(crate) const HOST: &str = "192.0.2.1";
pub(crate) const HOST_SECOND: &str = "192.0.2.3";
pub(crate) const HOST6: &str = "fd00:2::1";
pub(crate) const OUTSIDE: &str = "192.0.2.2";
pub(crate) const OUTSIDE6: &str = "fd00:2::2";

impl Host {
    pub(crate) fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        let own = Namespace {
            file: File::open("/proc/thread-self/ns/net").unwrap(),
        };
        let outside = Namespace::new();
        let fd = outside.file.as_raw_fd();
        let me = std::process::id();
        command("ip link set lo up");
        command(&format!(
            "ip link add out0 type veth peer name eth0 netns /proc/{me}/fd/{fd}"
        ));
        command("ip addr add 192.0.2.1/24 dev out0");
        command("ip addr add 192.0.2.3/24 dev out0");
        command("ip addr add fd00:2::1/64 dev out0 nodad");
        // Without link-local addresses, which appear in their own good time.
        command("ip link set out0 addrgenmode none up");
        outside.command("ip addr add 192.0.2.2/24 dev eth0");
        outside.command("ip addr add fd00:2::2/64 dev eth0 nodad");
        outside.command("ip link set eth0 addrgenmode none up");
        // The end that came up first drops packets for a moment.
        let deadline = Instant::now() + ANSWER;
        while command("ip link show out0").contains("qdisc noop ") {
            assert!(Instant::now() < deadline, "out0 does not come up");
            thread::sleep(Duration::from_millis(1));
        }
        Self { outside, own }
    }
}

pub(crate) fn config() -> Config {
    config_of("00c0ffee", "10.128.16.0/20", "fd12:3456:789a::/64")
}

pub(crate) fn config_of(host: &str, subnet4: &str, subnet6: &str) -> Config {
    Config {
        host: host.parse().unwrap(),
        subnet4: subnet4.parse().unwrap(),
        subnet6: Some(subnet6.parse().unwrap()),
        name: "default".to_owned(),
    }
}

/// A dyno: its namespace and its place in the network.
pub(crate) struct Dyno {
    pub(crate) namespace: Namespace,
    pub(crate) endpoint: Endpoint,
    _process: Option<Helper>,
}

/// A process that holds a dyno's namespaces.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Dyno {
    /// The `number`th of a network, attached.
    pub(crate) fn attached(network: &Network, number: u32) -> Self {
        let dyno = Self::detached(network.config(), number);
        network.attach(dyno.namespace.fd(), &dyno.endpoint).unwrap();
        dyno
    }

    pub(crate) fn detached(config: &Config, number: u32) -> Self {
        Self {
            namespace: Namespace::bare(),
            endpoint: endpoint(config, number),
            _process: None,
        }
    }

    /// As in production: the network namespace belongs to a user namespace
    /// in which host root is nobody.
    pub(crate) fn in_user_namespace(network: &Network, number: u32) -> Self {
        let mut child = Command::new("unshare")
            .args(["--user", "--net", "sh", "-c", "echo ready; read forever"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut ready)
            .unwrap();
        for map in ["uid_map", "gid_map"] {
            let path = format!("/proc/{}/{map}", child.id());
            let mut file = File::options().write(true).open(path).unwrap();
            file.write_all(b"0 300000 65536").unwrap();
        }
        let namespace = Namespace::of(child.id());
        let dyno = Self {
            namespace,
            endpoint: endpoint(network.config(), number),
            _process: Some(Helper(child)),
        };
        network.attach(dyno.namespace.fd(), &dyno.endpoint).unwrap();
        dyno
    }

    pub(crate) fn ipv4(&self) -> String {
        self.endpoint.ipv4.to_string()
    }

    pub(crate) fn ipv6(&self) -> String {
        self.endpoint.ipv6.unwrap().to_string()
    }

    pub(crate) fn publish(&self, host_port: u16, dyno_port: u16, protocol: Protocol) -> Published {
        Published {
            endpoint: self.endpoint.id.clone(),
            address: None,
            host_port,
            dyno_port,
            protocol,
        }
    }
}

pub(crate) fn endpoint(config: &Config, number: u32) -> Endpoint {
    let ipv4 = Ipv4Addr::from(u32::from(config.subnet4.network()) + 1 + number);
    Endpoint {
        id: format!("{number:012x}"),
        ipv4,
        ipv6: config
            .subnet6
            .and_then(|subnet| pool::paired_ipv6(config.subnet4, subnet, ipv4)),
    }
}

pub(crate) fn desired(dynos: &[&Dyno], published: Vec<Published>) -> Desired {
    Desired {
        endpoints: dynos.iter().map(|dyno| dyno.endpoint.clone()).collect(),
        published,
    }
}

/// Runs a command in the calling thread's namespace; fails loudly.
pub(crate) fn command(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{line}: {}\n{out}{err}",
        output.status
    );
    out.into_owned()
}

/// Fails with the lines that differ.
pub(crate) fn assert_same(now: &str, before: &str) {
    let lines = |text: &str| -> BTreeSet<String> { text.lines().map(str::to_owned).collect() };
    let (now, before) = (lines(now), lines(before));
    let more: Vec<_> = now.difference(&before).collect();
    let less: Vec<_> = before.difference(&now).collect();
    assert!(
        now == before,
        "more than before: {more:#?}\nless than before: {less:#?}"
    );
}

/// Everything that a network could leave behind in this namespace, once it
/// has settled: the kernel puts IPv6 routes in place with a delay.
pub(crate) fn traces() -> String {
    let deadline = Instant::now() + ANSWER;
    let mut before = snapshot();
    while Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
        let now = snapshot();
        if now == before {
            return now;
        }
        before = now;
    }
    before
}

/// The state of a carrier follows with a delay and leaves nothing behind.
fn snapshot() -> String {
    let text: String = [
        "ip -o link",
        "ip -o addr",
        "ip route show table all",
        "ip -6 route show table all",
        "ip neigh show nud permanent",
        "nft list ruleset",
    ]
    .map(command)
    .concat();
    [
        "NO-CARRIER,",
        ",LOWER_UP",
        "linkdown ",
        "state UP ",
        "state DOWN ",
        "state LOWERLAYERDOWN ",
    ]
    .iter()
    .fold(text, |text, carrier| text.replace(carrier, ""))
}

/// A new IPv6 address can be bound to with a delay.
fn bound(address: SocketAddr) -> TcpListener {
    let deadline = Instant::now() + ANSWER;
    loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                assert!(Instant::now() < deadline, "{address}: {error}");
                thread::sleep(Duration::from_millis(5));
            }
            other => return other.unwrap(),
        }
    }
}

fn serve(label: &'static str, address: SocketAddr) {
    let listener = bound(address);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip().to_canonical();
            // The client may be gone.
            drop(stream.write_all(format!("{label} from {peer}").as_bytes()));
        }
    });
    let socket = UdpSocket::bind(address).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        loop {
            let (_, peer) = socket.recv_from(&mut buffer).unwrap();
            let answer = format!("{label} from {}", peer.ip().to_canonical());
            drop(socket.send_to(answer.as_bytes(), peer));
        }
    });
}

fn tcp(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn udp(address: SocketAddr) -> io::Result<String> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => "0.0.0.0".parse().unwrap(),
        SocketAddr::V6(_) => "::".parse().unwrap(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(ANSWER))?;
    socket.send(b"hello")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// A TCP connection gets no answer at all.
pub(crate) fn is_silent(namespace: &Namespace, address: &str, port: u16) -> bool {
    let address = SocketAddr::new(address.parse().unwrap(), port);
    namespace.run(|| {
        let error = TcpStream::connect_timeout(&address, SILENCE).err();
        error.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
    })
}
