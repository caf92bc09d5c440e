//! What dynos write arrives elsewhere, whatever becomes of the receiver and of hostd.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use dyno_tests::host::Host;
use dyno_tests::until;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

/// A certificate for 127.0.0.1 and its key, and the authority that it is from: they open
/// nothing.
const RECEIVER: &[u8] = include_bytes!("drains/receiver.pem");
const AUTHORITY: &str = include_str!("drains/authority.pem");

type Said = Arc<Mutex<Vec<String>>>;

/// Splits octet-counted frames, RFC 5425 section 4.3.
fn frames(stream: impl Read, said: &Said) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = Vec::new();
        match stream.read_until(b' ', &mut length) {
            Ok(read) if read > 0 && length.ends_with(b" ") => {}
            _ => return,
        }
        let length = String::from_utf8(length).unwrap();
        let mut message = vec![0; length.trim_end().parse().unwrap()];
        if stream.read_exact(&mut message).is_err() {
            return;
        }
        said.lock()
            .unwrap()
            .push(String::from_utf8(message).unwrap());
    }
}

/// Takes connections, and what is said on each.
fn receive(listener: TcpListener, take: impl Fn(TcpStream, &Said) + Send + Sync + 'static) -> Said {
    let said = Said::default();
    let (to, take) = (said.clone(), Arc::new(take));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (to, take) = (to.clone(), take.clone());
            thread::spawn(move || take(stream.unwrap(), &to));
        }
    });
    said
}

fn receive_tls(listener: TcpListener) -> Said {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = CertificateDer::from_pem_slice(RECEIVER).unwrap();
    let key = PrivateKeyDer::from_pem_slice(RECEIVER).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    receive(listener, move |stream, said| {
        let connection = ServerConnection::new(config.clone()).unwrap();
        frames(StreamOwned::new(connection, stream), said);
    })
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn drain(host: &Host, name: &str) -> Value {
    let all: Value = serde_json::from_str(&host.ok(&["drain", "ls", "--json"])).unwrap();
    let found = all
        .as_array()
        .unwrap()
        .iter()
        .find(|drain| drain["name"] == name);
    found.cloned().unwrap_or(Value::Null)
}

fn count(host: &Host, name: &str, field: &str) -> u64 {
    drain(host, name)["status"][field].as_u64().unwrap()
}

fn texts(said: &Said) -> Vec<String> {
    let said = said.lock().unwrap();
    let text = |message: &String| message.split_once("\"] ").unwrap().1.to_owned();
    said.iter().map(text).collect()
}

#[test]
fn lines_arrive_by_tls_and_a_wrong_certificate_is_refused() {
    let host = Host::with_busybox();
    let (listener, address) = listen();
    let ca = host.path().join("ca.pem");
    let mut file = fs::File::create(&ca).unwrap();
    file.write_all(AUTHORITY.as_bytes()).unwrap();
    let url = format!("syslog+tls://{address}");
    host.ok(&["run", "--name", "early", "busybox", "echo", "too early"]);
    host.ok(&[
        "drain",
        "add",
        "--name",
        "all",
        "--ca",
        ca.to_str().unwrap(),
        &url,
    ]);
    host.ok(&["drain", "add", "--name", "stranger", &url]);
    let other = format!("syslog+tls://localhost:{}", address.port());
    host.ok(&[
        "drain",
        "add",
        "--name",
        "misnamed",
        "--ca",
        ca.to_str().unwrap(),
        &other,
    ]);
    let said = receive_tls(listener);
    for name in ["stranger", "misnamed"] {
        until("the certificate is refused", || {
            let error = drain(&host, name)["status"]["error"].clone();
            error
                .as_str()
                .is_some_and(|error| error.contains("certificate"))
        });
        assert_eq!(drain(&host, name)["status"]["connected"], false);
        host.ok(&["drain", "rm", name]);
    }
    let fail = |arguments: &[&str]| host.fails(arguments).0;
    assert!(fail(&["drain", "add", "--name", "all", &url]).contains("all already"));
    assert!(fail(&["drain", "add", "syslog://x"]).contains("syslog+tls://"));
    fail(&[
        "run", "-d", "--name", "no", "--drain", "nowhere", "busybox", "sleep", "9",
    ]);
    assert!(
        !host.ok(&["ps", "-a"]).contains(" no "),
        "it was not left behind"
    );

    // It is gone, and its log with it, before anybody can have looked.
    let script = "echo 'a \"b\\ ]c'; echo d >&2";
    host.ok(&[
        "run", "--rm", "--name", "short", "busybox", "sh", "-c", script,
    ]);
    until("both lines have arrived", || {
        said.lock().unwrap().len() >= 2
    });
    let mut messages = said.lock().unwrap().clone();
    messages.sort();
    let stdout = &messages[1];
    let fields: Vec<&str> = stdout.splitn(7, ' ').collect();
    assert_eq!(
        (fields[0], fields[3], fields[5]),
        ("<30>1", "short", "stdout"),
        "{stdout}"
    );
    assert_eq!(fields[1].len(), "2026-11-22T15:00:00.123456Z".len());
    let data = format!("[dyno@32473 name=\"short\" id=\"{}\"] ", fields[4]);
    assert_eq!(fields[6], format!("{data}a \"b\\ ]c"));
    assert!(messages[0].starts_with("<27>1 ") && messages[0].ends_with("] d"));
    assert_eq!(
        messages.len(),
        2,
        "what was before is not sent: {messages:?}"
    );
    until("it counts as arrived", || count(&host, "all", "sent") == 2);
    host.ok(&["drain", "rm", "all"]);
    assert_eq!(host.ok(&["drain", "ls", "-q"]), "");
    assert!(!host.path().join("state/drains/all").exists());
}

#[test]
fn each_line_arrives_at_least_once_whoever_was_away() {
    let mut host = Host::with_busybox();
    let (listener, address) = listen();
    drop(listener);
    let url = format!("syslog+tcp://{address}");
    let work =
        "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo line $i; sleep 0.05; done; sleep 1000";
    host.ok(&[
        "run", "-d", "--name", "web", "--drain", &url, "busybox", "sh", "-c", work,
    ]);
    let name = host.ok(&["drain", "ls", "-q"]);
    until("nobody answers", || count(&host, &name, "failures") > 0);
    // One that goes away again after a few lines.
    let first = TcpListener::bind(address).unwrap();
    let (stream, _) = first.accept().unwrap();
    drop(first);
    let mut begin = vec![0; 300];
    (&stream).read_exact(&mut begin).unwrap();
    drop(stream);
    host.kill_and_restart();
    let again = receive(TcpListener::bind(address).unwrap(), |stream, said| {
        frames(stream, said)
    });
    until("all lines have arrived", || {
        let all: BTreeSet<String> = texts(&again).into_iter().collect();
        (1..=60).all(|line| all.contains(&format!("line {line}")))
    });
    assert_eq!(drain(&host, &name)["dyno_name"], "web");
    assert_eq!(count(&host, &name, "dropped"), 0);
    assert_eq!(count(&host, &name, "missed_files"), 0);
    // What has arrived does not come again with the next hostd.
    until("all count as arrived", || count(&host, &name, "sent") >= 60);
    let progress = host.path().join(format!("state/drains/{name}/state.json"));
    until("that is on the disk", || {
        let text = fs::read_to_string(&progress).unwrap_or_default();
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        value["sent"].as_u64() >= Some(60)
    });
    let before = texts(&again).len();
    host.kill_and_restart();
    until("it is connected again", || {
        drain(&host, &name)["status"]["connected"] == true
    });
    host.ok(&["rm", "-f", "web"]);
    until("the drain goes with its dyno", || {
        host.ok(&["drain", "ls", "-q"]).is_empty()
    });
    assert_eq!(texts(&again).len(), before);
}

#[test]
fn a_slow_receiver_holds_up_nobody_and_what_is_dropped_is_counted() {
    const LINES: usize = 250_000;
    let host = Host::with_busybox();
    let (listener, address) = listen();
    let reads = Arc::new(AtomicBool::new(false));
    let may = reads.clone();
    let said = receive(listener, move |stream, said| {
        until("it may read", || may.load(Ordering::Relaxed));
        frames(stream, said);
    });
    let url = format!("syslog+tcp://{address}");
    host.ok(&["drain", "add", "--name", "slow", &url]);
    let work = format!("yes {} | head -n {LINES}", "x".repeat(100));
    let begin = Instant::now();
    host.ok(&["run", "-d", "--name", "flood", "busybox", "sh", "-c", &work]);
    host.ok(&["wait", "flood"]);
    let took = begin.elapsed();
    until("something is dropped", || {
        count(&host, "slow", "dropped") > 0
    });
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = memory
        .unwrap()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .unwrap();
    assert!(kib < 64 << 10, "{kib} KiB");
    reads.store(true, Ordering::Relaxed);
    until("the rest has arrived", || {
        let arrived = said.lock().unwrap().len() as u64;
        arrived + count(&host, "slow", "dropped") >= LINES as u64
    });
    let arrived = said.lock().unwrap().len() as u64;
    assert_eq!(arrived + count(&host, "slow", "dropped"), LINES as u64);
    assert_eq!(count(&host, "slow", "missed_files"), 0);
    let page = host_metrics(&host);
    let dropped = format!(
        "dyno_drain_dropped_entries_total{{drain=\"slow\"}} {}\n",
        count(&host, "slow", "dropped")
    );
    assert!(page.contains(&dropped), "{dropped}");
    assert!(took < Duration::from_secs(30), "{took:?}");
}

fn host_metrics(host: &Host) -> String {
    let stream = std::os::unix::net::UnixStream::connect(host.socket()).unwrap();
    dyno_tests::host::http_get_on(stream, "/metrics", "Accept: */*").unwrap()
}

/// Answers each POST with the next of these statuses, then with 204.
fn receive_posts(listener: TcpListener, statuses: &'static [u16]) -> Said {
    let statuses = Mutex::new(statuses.iter());
    receive(listener, move |stream, said| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        loop {
            let (mut length, mut kind, mut request) = (0, String::new(), String::new());
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                if request.is_empty() {
                    request = line.clone();
                }
                match line.trim_end().to_ascii_lowercase().split_once(": ") {
                    Some(("content-length", value)) => length = value.parse().unwrap(),
                    Some(("content-type", value)) => kind = value.to_owned(),
                    _ => {}
                }
                if line == "\r\n" {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            assert!(
                request.starts_with("POST /in?token=1 HTTP/1.1"),
                "{request}"
            );
            assert_eq!(kind, "application/x-ndjson");
            let status = statuses.lock().unwrap().next().copied().unwrap_or(204);
            if status == 204 {
                let body = String::from_utf8(body).unwrap();
                said.lock().unwrap().extend(body.lines().map(str::to_owned));
            }
            write!(&stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    })
}

#[test]
fn posts_are_tried_again_or_counted_as_refused() {
    let host = Host::with_busybox();
    let (listener, address) = listen();
    // The first entry is refused for good, the second for now.
    let said = receive_posts(listener, &[400, 503, 503]);
    let url = format!("http://{address}/in?token=1");
    host.ok(&["drain", "add", "--name", "web", &url]);
    host.ok(&["run", "--name", "a", "busybox", "echo", "refused"]);
    until("it is refused", || count(&host, "web", "dropped") == 1);
    assert!(said.lock().unwrap().is_empty());
    host.ok(&["run", "--name", "b", "busybox", "echo", "taken"]);
    until("it has arrived", || count(&host, "web", "sent") == 1);
    let said = said.lock().unwrap().clone();
    assert_eq!(said.len(), 1, "{said:?}");
    let entry: Value = serde_json::from_str(&said[0]).unwrap();
    assert_eq!(
        (&entry["dyno"], &entry["line"]),
        (&Value::from("b"), &Value::from("taken"))
    );
    assert_eq!(
        (&entry["stream"], &entry["partial"]),
        (&Value::from("stdout"), &Value::from(false))
    );
    let status = drain(&host, "web")["status"].clone();
    assert_eq!(
        (&status["connected"], status["failures"].as_u64()),
        (&Value::from(true), Some(3))
    );
    assert_eq!(status["error"], Value::Null);
    // P15: and no more of them than that.
    for _ in 1..32 {
        host.ok(&["drain", "add", &url]);
    }
    assert!(host.fails(&["drain", "add", &url]).0.contains("32 drains"));
}
