//! Many requests that are wrong in every way there is (P15): each has an end, none is
//! hostd's fault, and hostd is afterwards as it was.

mod requests;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dyno_tests::DEADLINE;
use dyno_tests::host::Host;
use dyno_tests::random::{Random, seed};
use serde_json::Value;

use self::requests::{Contract, DYNO};
use super::rig::{assert_sane, memory, request, status};

/// Requests of `make test`; `make soak` sends fifty times as many.
const REQUESTS: u64 = 20_000;
/// Clients at the same time.
const CLIENTS: u64 = 16;
/// So long a client waits for an answer before it says that nothing more comes.
const PATIENCE: Duration = Duration::from_millis(40);

#[test]
fn malformed_requests_are_refused_and_leave_hostd_as_it_was() {
    let host = Host::with_busybox();
    let spec = format!(r#"{{"image": "busybox", "name": "{DYNO}"}}"#);
    assert_eq!(status(&request(&host, "POST", "/v1/dynos", &spec)), 201);
    let document = request(&host, "GET", "/v1/openapi.json", "");
    let (_, document) = document.split_once("\r\n\r\n").unwrap();
    let contract = Contract::of(serde_json::from_str(document).unwrap());
    let soak = std::env::var_os("DYNO_SOAK").is_some();
    let count = if soak { REQUESTS * 50 } else { REQUESTS };
    let spec = || {
        let mut spec = host.inspect(DYNO)["spec"].clone();
        // Which may be changed, and are.
        for changed in ["limits", "ulimits"] {
            spec[changed].take();
        }
        spec
    };
    let before = spec();
    // What hostd keeps for as long as it lives is there after the first of them.
    let first = send(&host, &contract, 0..count / 10);
    let early = memory(&host);
    let rest = send(&host, &contract, count / 10..count);
    let grown = memory(&host).saturating_sub(early);
    let answers = Answers {
        refused: first.refused + rest.refused,
        accepted: first.accepted + rest.accepted,
        none: first.none + rest.none,
    };
    assert!(grown < 64 << 20, "{grown} bytes more after {answers:?}");
    // Otherwise the requests are not what they are meant to be.
    assert!(answers.refused > count / 2, "{answers:?}");
    assert!(answers.accepted > count / 100, "{answers:?}");
    assert_eq!(spec(), before);
    assert_eq!(host.ids().len(), 1);
    host.ok(&["run", "--rm", "busybox", "true"]);
    assert_sane(&host);
}

#[derive(Debug, Default)]
struct Answers {
    refused: u64,
    accepted: u64,
    none: u64,
}

/// Sends the requests with these numbers.
fn send(host: &Host, contract: &Contract, numbers: std::ops::Range<u64>) -> Answers {
    let (refused, accepted, none) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let next = AtomicU64::new(numbers.start);
    let socket = host.socket();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        return;
                    }
                    let seed = seed();
                    let bytes = contract.spoilt(&mut Random::of(seed, number));
                    let what = || {
                        let shown = &bytes[..bytes.len().min(2000)];
                        format!(
                            "DYNO_SEED={seed}, request {number}: {}",
                            shown.escape_ascii()
                        )
                    };
                    let answer = answer(&socket, &bytes);
                    let answer = answer.unwrap_or_else(|why| panic!("{why}: {}", what()));
                    let counter = match status(&answer) {
                        0 if answer.is_empty() => &none,
                        101..400 => &accepted,
                        400..500 => &refused,
                        _ if is_excused(&bytes, &answer) => &refused,
                        _ => panic!("{answer}: {}", what()),
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    Answers {
        refused: refused.into_inner(),
        accepted: accepted.into_inner(),
        none: none.into_inner(),
    }
}

/// What this machine cannot do is no failure of hostd's, nor is that it keeps so many
/// tokens, drains, secrets and snapshots and no more.
fn is_excused(request: &[u8], answer: &str) -> bool {
    const KEPT: &[&[u8]] = &[
        b"POST /v1/tokens",
        b"POST /v1/drains",
        b"PUT /v1/secrets",
        b"POST /v1/volumes",
    ];
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
    let body: Option<Value> = body.and_then(|body| serde_json::from_str(body).ok());
    let kind = body.as_ref().and_then(|body| body["kind"].as_str());
    match (status(answer), kind) {
        (501, Some("unsupported")) => true,
        (503, Some("exhausted")) => KEPT.iter().any(|kept| request.starts_with(kept)),
        _ => false,
    }
}

/// The beginning of what comes back, or nothing where the connection is closed: which of
/// the two, there is an end.
fn answer(socket: &Path, request: &[u8]) -> Result<String, String> {
    let mut stream = UnixStream::connect(socket).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    // A server that has seen enough closes before all was written.
    stream.write_all(request).ok();
    let begin = Instant::now();
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while begin.elapsed() < DEADLINE {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(last(&answer)),
            Ok(read) => answer.extend(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // An answer may go on for ever, as with `follow`.
                let begun = last(&answer);
                if !begun.is_empty() {
                    return Ok(begun);
                }
                stream.shutdown(Shutdown::Write).ok();
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(last(&answer)),
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(format!("no end within {DEADLINE:?}"))
}

/// An answer without what came before it because of `Expect` (RFC 9110 section 10.1.1).
fn last(answer: &[u8]) -> String {
    let answer = String::from_utf8_lossy(answer);
    let interim = "HTTP/1.1 100 Continue\r\n\r\n";
    answer.trim_start_matches(interim).to_owned()
}
