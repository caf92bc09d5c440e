//! Debian's etcd, as many members as a test wants, on loopback.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A cluster of etcd; it ends with this.
#[derive(Debug)]
pub struct Rig {
    pub members: Vec<Member>,
    folder: TempDir,
}

/// One of its members.
#[derive(Debug)]
pub struct Member {
    pub name: String,
    pub endpoint: String,
    pub peer: String,
    arguments: Vec<String>,
    process: Option<Child>,
    log: PathBuf,
}

/// How a test wants it.
#[derive(Debug, Default)]
pub struct Wish<'a> {
    pub members: usize,
    pub arguments: Vec<String>,
    /// A folder with `ca.pem`, `server.pem` and `server.key`.
    pub tls: Option<&'a Path>,
}

fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Rig {
    pub fn one() -> Self {
        Self::new(&Wish {
            members: 1,
            ..Wish::default()
        })
    }

    pub fn new(wish: &Wish<'_>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let scheme = if wish.tls.is_some() { "https" } else { "http" };
        let peers: Vec<String> = (0..wish.members)
            .map(|_| format!("http://127.0.0.1:{}", port()))
            .collect();
        let named = peers.iter().enumerate();
        let cluster: Vec<String> = named.map(|(n, peer)| format!("m{n}={peer}")).collect();
        let members = peers.iter().enumerate().map(|(n, peer)| {
            let endpoint = format!("{scheme}://127.0.0.1:{}", port());
            let mut member = Member::new(folder.path(), n, &endpoint, peer);
            member.joins(&cluster.join(","), "new");
            if let Some(tls) = wish.tls {
                for (flag, file) in [("cert-file", "server.pem"), ("key-file", "server.key")] {
                    let path = tls.join(file);
                    member
                        .arguments
                        .push(format!("--{flag}={}", path.display()));
                }
            }
            member.arguments.extend(wish.arguments.iter().cloned());
            member
        });
        let mut rig = Self {
            members: members.collect(),
            folder,
        };
        rig.members.iter_mut().for_each(Member::start);
        rig
    }

    /// A further member, which is not started yet and joins those that are there.
    pub fn another(&mut self) -> &mut Member {
        let (endpoint, peer) = (
            format!("http://127.0.0.1:{}", port()),
            format!("http://127.0.0.1:{}", port()),
        );
        let member = Member::new(self.folder.path(), self.members.len(), &endpoint, &peer);
        self.members.push(member);
        self.members.last_mut().unwrap()
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.members
            .iter()
            .map(|member| member.endpoint.clone())
            .collect()
    }
}

impl Member {
    fn new(folder: &Path, n: usize, endpoint: &str, peer: &str) -> Self {
        let name = format!("m{n}");
        let data = folder.join(&name).display().to_string();
        let arguments = [
            ("name", name.as_str()),
            ("data-dir", &data),
            ("listen-client-urls", endpoint),
            ("advertise-client-urls", endpoint),
            ("listen-peer-urls", peer),
            ("initial-advertise-peer-urls", peer),
            ("log-level", "warn"),
        ];
        let arguments = arguments.map(|(name, value)| format!("--{name}={value}"));
        Self {
            endpoint: endpoint.to_owned(),
            peer: peer.to_owned(),
            arguments: arguments.to_vec(),
            process: None,
            log: folder.join(format!("{name}.log")),
            name,
        }
    }

    /// Whom it finds at its first start.
    pub fn joins(&mut self, cluster: &str, state: &str) {
        self.arguments.push(format!("--initial-cluster={cluster}"));
        self.arguments
            .push(format!("--initial-cluster-state={state}"));
    }

    pub fn start(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log);
        // It ends with the test, however that ends.
        let started = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "etcd"])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn();
        self.process = Some(started.expect("setpriv and etcd, which the set-up installs"));
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.process.as_ref().unwrap().id().cast_signed();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
        }
    }

    /// What `etcdctl` says, of this member.
    pub fn control(&self, arguments: &[&str]) -> String {
        let said = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.endpoint))
            .args(arguments)
            .output()
            .expect("etcdctl, which the set-up installs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            said.status.success(),
            "{arguments:?}: {}",
            text(&said.stderr)
        );
        text(&said.stdout)
    }

    /// Waits until it serves.
    pub fn ready(&self) {
        let begun = Instant::now();
        loop {
            let said = Command::new("etcdctl")
                .env("ETCDCTL_API", "3")
                .arg(format!("--endpoints={}", self.endpoint))
                .args(["--command-timeout=1s", "endpoint", "health"])
                .output()
                .expect("etcdctl, which the set-up installs");
            if said.status.success() {
                return;
            }
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(30), "etcd: {log}");
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}
