//! `kill -9` of hostd at any moment, while many clients have it do something.
//!
//! Each client has a dyno of its own and believes something about it: which states are
//! possible after what it asked for and was answered. An answer leaves one; no answer
//! leaves the state before and the one asked for. Whenever hostd is back, what there is
//! must be possible.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dyno_tests::host::Host;
use dyno_tests::{DEADLINE, until};
use serde_json::{Value, json};

use crate::rig::{Ends, assert_no_request_fails, assert_nothing_left, processes};

const CLIENTS: u64 = 4;
/// A line each second, for long.
const COUNT: &str = "n=0; while :; do n=$((n+1)); echo $n; sleep 1; done";
const SERVE: &str = "echo page > /tmp/index.html; exec httpd -f -p 80 -h /tmp";

/// In `make soak` the whole, else a sample.
fn in_soak(whole: usize, sample: usize) -> usize {
    match std::env::var_os("DYNO_SOAK") {
        Some(_) => whole,
        None => sample,
    }
}

#[test]
fn hostd_killed_at_any_moment_under_many_clients_keeps_what_it_acknowledged() {
    let mut host = Host::with_busybox();
    let seed = seed();
    for number in 0..3 {
        let name = format!("bystander-{number}");
        host.ok(&["run", "-d", "--name", &name, "busybox", "sh", "-c", COUNT]);
    }
    let before = processes(&host);
    let cycles = in_soak(10_000, 40);
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    // How often hostd was killed.
    let kills = AtomicUsize::new(0);
    let clients: Vec<Client> = std::thread::scope(|scope| {
        let ends = Ends(&over);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| Client::new(&host, seed, number))
            .collect();
        let (over, answered, kills) = (&over, &answered, &kills);
        let clients: Vec<_> = clients
            .into_iter()
            .map(|client| scope.spawn(move || client.act_until(over, answered, kills)))
            .collect();
        let mut random = Random(seed);
        for _ in 0..cycles {
            std::thread::sleep(Duration::from_micros(random.below(200_000)));
            kills.fetch_add(1, Ordering::SeqCst);
            host.kill();
            host.spawn_again();
            let socket = host.socket();
            until("hostd is ready", || {
                // One that found its belief broken says so at once.
                assert!(clients.iter().all(|client| !client.is_finished()));
                assert_eq!(host.last_words(), None);
                matches!(ask(&socket, "GET", "/readyz", &Value::Null), Ok((200, _)))
            });
        }
        drop(ends);
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    let answered = answered.into_inner();
    assert!(
        answered > cycles,
        "only {answered} answers in {cycles} cycles"
    );
    for mut client in clients {
        client.look(&kills);
    }
    let only_bystanders = |host: &Host| {
        let mut all = processes(host);
        all.retain(|name, _| name.starts_with("bystander"));
        all
    };
    assert_eq!(
        only_bystanders(&host),
        before,
        "seed {seed}: one was started again"
    );
    for name in before.keys() {
        assert_counts(&host, name);
    }
    for id in host.ids() {
        host.ok(&["rm", "-f", &id]);
    }
    assert_nothing_left(&host);
}

#[test]
fn many_restarts_of_hostd_fail_no_request_and_lose_no_line() {
    let mut host = Host::with_busybox();
    for number in 0..in_soak(99, 9) {
        let name = format!("counter-{number}");
        host.ok(&["run", "-d", "--name", &name, "busybox", "sh", "-c", COUNT]);
    }
    host.ok(&[
        "run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", SERVE,
    ]);
    let before = processes(&host);
    assert_no_request_fails(&mut host, |host| {
        for _ in 0..in_soak(1000, 10) {
            host.kill();
            host.spawn_again();
            let socket = host.socket();
            until("hostd is ready", || {
                assert_eq!(host.last_words(), None);
                matches!(ask(&socket, "GET", "/readyz", &Value::Null), Ok((200, _)))
            });
        }
    });
    assert_eq!(processes(&host), before, "one was started again");
    for name in before.keys().filter(|name| *name != "web") {
        assert_counts(&host, name);
    }
}

/// No line of one that counts is lost or doubled.
#[track_caller]
fn assert_counts(host: &Host, name: &str) {
    let logs = host.ok(&["logs", name]);
    let lines: Vec<usize> = logs.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(lines, (1..=lines.len()).collect::<Vec<_>>(), "{name}");
}

fn seed() -> u64 {
    let given = std::env::var("DYNO_SEED").ok();
    given.and_then(|seed| seed.parse().ok()).unwrap_or(7)
}

/// What a client's dyno can be.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum State {
    Absent,
    /// Created, or ended.
    Still,
    Running,
}

/// One that asks hostd for something all the time.
struct Client {
    socket: PathBuf,
    /// The folder of what hostd wants.
    records: PathBuf,
    name: String,
    random: Random,
    seed: u64,
    /// What can be, by all that it was told.
    possible: BTreeSet<State>,
    /// What it did, for whoever reads of a failure.
    story: Vec<String>,
}

impl Client {
    fn new(host: &Host, seed: u64, number: u64) -> Self {
        Self {
            socket: host.socket(),
            records: host.path().join("state/dynos"),
            name: format!("client-{number}"),
            random: Random(seed ^ (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            seed,
            possible: [State::Absent].into(),
            story: Vec::new(),
        }
    }

    fn act_until(mut self, over: &AtomicBool, answered: &AtomicUsize, kills: &AtomicUsize) -> Self {
        while !over.load(Ordering::Relaxed) {
            if self.act() {
                answered.fetch_add(1, Ordering::Relaxed);
            } else {
                self.look(kills);
            }
        }
        self
    }

    /// Asks for something; whether there was an answer.
    fn act(&mut self) -> bool {
        let dyno = format!("/v1/dynos/{}", self.name);
        let spec = json!({
            "name": self.name, "image": "busybox", "command": ["sleep", "100000"],
            "net": "none", "stop_grace_ms": 0, "stop_signal": "SIGKILL",
        });
        let nothing = Value::Null;
        let (method, path, body, wanted) = match self.random.below(6) {
            0 => ("POST", "/v1/dynos".into(), &spec, State::Still),
            1 => ("POST", "/v1/dynos?start=true".into(), &spec, State::Running),
            2 => ("POST", format!("{dyno}/start"), &nothing, State::Running),
            3 => ("POST", format!("{dyno}/stop"), &nothing, State::Still),
            4 => ("DELETE", dyno, &nothing, State::Absent),
            _ => (
                "DELETE",
                format!("{dyno}?force=true"),
                &nothing,
                State::Absent,
            ),
        };
        let answer = ask(&self.socket, method, &path, body);
        let told = answer
            .as_ref()
            .map(|(code, dyno)| (code, &dyno["status"]["phase"]));
        let line = format!("{method} {path}: {told:?}, of {:?}", self.possible);
        self.story.push(line);
        match answer {
            Ok((200..300, _)) => {
                self.possible = [wanted].into();
                true
            }
            // It says that nothing was done.
            Ok((400..500, _)) => true,
            Ok(_) | Err(_) => {
                self.possible.insert(wanted);
                // A creation may have come to its first half only.
                if wanted == State::Running && self.possible.contains(&State::Absent) {
                    self.possible.insert(State::Still);
                }
                false
            }
        }
    }

    /// Compares what there is with what can be, once hostd is back and has recovered.
    fn look(&mut self, kills: &AtomicUsize) {
        let path = format!("/v1/dynos/{}", self.name);
        let begin = Instant::now();
        let found = loop {
            let get = |path: &str| ask(&self.socket, "GET", path, &Value::Null);
            let killed = kills.load(Ordering::SeqCst);
            let is_ready = matches!(get("/readyz"), Ok((200, _)));
            let answer = get(&path);
            let settled = match &answer {
                Ok((404, _)) => Some(State::Absent),
                Ok((200, dyno)) => settled(dyno, &self.records),
                _ => None,
            };
            let is_same = killed == kills.load(Ordering::SeqCst);
            if let Some(state) = settled.filter(|_| is_ready && is_same) {
                break state;
            }
            let last = answer.map(|(code, dyno)| (code, dyno["status"].clone()));
            assert!(begin.elapsed() < DEADLINE, "{}: {last:?}", self.told());
            std::thread::sleep(Duration::from_millis(2));
        };
        assert!(self.possible.contains(&found), "{found:?}: {}", self.told());
        self.possible = [found].into();
        self.story.clear();
    }

    fn told(&self) -> String {
        format!(
            "seed {}, {}: only {:?} is possible after\n{}",
            self.seed,
            self.name,
            self.possible,
            self.story.join("\n")
        )
    }
}

/// What a dyno is, unless that is not what hostd wants of it, and so about to change.
fn settled(dyno: &Value, records: &Path) -> Option<State> {
    let record = records.join(dyno["id"].as_str()?).join("dyno.json");
    let record: Value = serde_json::from_slice(&std::fs::read(record).ok()?).ok()?;
    let phase = dyno["status"]["phase"].as_str()?;
    match (phase, record["wanted"].as_str()?) {
        ("running", "running") => Some(State::Running),
        ("created", "created") | ("created" | "exited", "stopped") => Some(State::Still),
        // Nobody but hostd is killed.
        ("lost" | "failed", _) => panic!("{dyno}"),
        _ => None,
    }
}

/// One request on a connection of its own: status and body of its answer.
fn ask(socket: &Path, method: &str, path: &str, body: &Value) -> io::Result<(u16, Value)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: hostd\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = BufReader::new(stream);
    let (mut line, mut status, mut length) = (String::new(), None, None);
    while answer.read_line(&mut line)? > 2 {
        let (name, value) = line.split_once(' ').unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "http/1.1" => status = value.get(..3).and_then(|code| code.parse().ok()),
            "content-length:" => length = value.trim().parse().ok(),
            _ => {}
        }
        line.clear();
    }
    // Cut short before its end it is no answer.
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut body = vec![0; length.unwrap_or(0)];
    answer.read_exact(&mut body)?;
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Ok((status.ok_or(io::ErrorKind::InvalidData)?, body))
}

/// xorshift64: any sequence will do, as long as it can be had again.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
