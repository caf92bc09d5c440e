//! Clients that are slow, silent, or many (P15).

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dyno_tests::host::Host;
use dyno_tests::{DEADLINE, until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::rig::{assert_sane, memory, raw, request, status};

/// So long may an answer take while others are slow. It takes milliseconds.
const PROMPT: Duration = Duration::from_secs(5);
/// What hostd says of each of its deadlines, and as much again for a busy machine.
const HEAD: Duration = Duration::from_secs(10 + 20);
const BODY: Duration = Duration::from_secs(30 + 30);
const PACE: Duration = Duration::from_secs(60 + 60);
/// Places for connections, and those that only the owner gets.
const PLACES: usize = 4096;
const RESERVE: usize = 16;
/// Connections that say nothing.
const IDLE: usize = 10_000;
/// A request whose answer does not end.
const FOLLOW: &[u8] = b"GET /v1/events?follow=true HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn who_sends_or_reads_byte_by_byte_is_cut_off_and_holds_nobody_up() {
    let host = Host::start();
    let over = AtomicBool::new(false);
    let post = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n").into_bytes()
    };
    thread::scope(|scope| {
        let slow = [
            (
                "a head",
                HEAD,
                sender(&host, b"GET /v1/version HTTP/1.1\r\nX: "),
            ),
            ("a JSON body", BODY, sender(&host, &post("/v1/dynos"))),
            (
                "a secret",
                BODY,
                sender(&host, &[b"PUT", &post("/v1/secrets/x")[4..]].concat()),
            ),
            ("an archive", PACE, sender(&host, &post("/v1/images/load"))),
            ("an answer", PACE, reader(&host)),
        ];
        let prober = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            while !over.load(Ordering::Relaxed) {
                let begin = Instant::now();
                let answer = request(&host, "GET", "/v1/dynos", "");
                assert_eq!(status(&answer), 200, "{answer}");
                slowest = slowest.max(begin.elapsed());
                thread::sleep(Duration::from_millis(50));
            }
            slowest
        });
        let lasted = slow.map(|(what, most, client)| (what, most, client.join().unwrap()));
        over.store(true, Ordering::Relaxed);
        let slowest = prober.join().unwrap();
        for (what, most, lasted) in lasted {
            assert!(lasted < most, "{what} lasted {lasted:?}");
        }
        assert!(slowest < PROMPT, "another client waited {slowest:?}");
    });
    assert_sane(&host);
}

/// A client that has said this much and goes on byte by byte, and reads what comes: how
/// long it is let.
fn sender(host: &Host, begin: &[u8]) -> JoinHandle<Duration> {
    byte_by_byte(host, begin, 4096)
}

/// One that has asked for more than fits on the way, and takes a byte at a time.
fn reader(host: &Host) -> JoinHandle<Duration> {
    let ask = "GET /v1/openapi.json HTTP/1.1\r\nHost: h\r\n\r\n";
    // What is on the way may still be read when the other end is gone: a write tells.
    byte_by_byte(host, ask.repeat(50).as_bytes(), 1)
}

fn byte_by_byte(host: &Host, begin: &[u8], taken: usize) -> JoinHandle<Duration> {
    let mut stream = UnixStream::connect(host.socket()).unwrap();
    stream.write_all(begin).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut taken = vec![0; taken];
    let mut step = move || {
        let written = stream.write(b" ");
        let read = stream.read(&mut taken);
        let goes_on = |result: io::Result<usize>| match result {
            Ok(bytes) => bytes > 0,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        goes_on(written) && goes_on(read)
    };
    thread::spawn(move || {
        let begin = Instant::now();
        while step() && begin.elapsed() < 2 * PACE {
            thread::sleep(Duration::from_millis(200));
        }
        begin.elapsed()
    })
}

#[test]
fn slow_and_idle_clients_hold_nobody_up() {
    let host = Host::start();
    let mut slow: Vec<UnixStream> = (0..200)
        .map(|_| UnixStream::connect(host.socket()).unwrap())
        .collect();
    for (number, stream) in slow.iter_mut().enumerate() {
        // A third each says nothing, half a head, and a head without its body.
        let words: &[u8] = match number % 3 {
            0 => b"",
            1 => b"GET /v1/ver",
            _ => b"POST /v1/dynos HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{",
        };
        stream.write_all(words).unwrap();
    }
    let begin = Instant::now();
    let answer = request(&host, "GET", "/v1/version", "");
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(begin.elapsed() < PROMPT, "{:?}", begin.elapsed());
    // Who has not said what they want in time is put out.
    let half = &mut slow[1];
    half.set_read_timeout(Some(HEAD)).unwrap();
    let mut rest = Vec::new();
    half.read_to_end(&mut rest).unwrap();
    assert!(begin.elapsed() < HEAD);
    assert_sane(&host);
}

#[test]
fn ten_thousand_idle_connections_lock_nobody_out() {
    allow_descriptors(IDLE + 500);
    let host = Host::start();
    let (memory_before, descriptors_before) = (memory(&host), descriptors(&host));
    let mut slowest = Duration::ZERO;
    let mut idle = Vec::new();
    for number in 1..=IDLE {
        idle.push(UnixStream::connect(host.socket()).unwrap());
        // Whoever asks gets in while they come, and when all are there.
        if number % 500 == 0 {
            let begin = Instant::now();
            let answer = request(&host, "GET", "/v1/version", "");
            assert_eq!(status(&answer), 200, "after {number}: {answer}");
            slowest = slowest.max(begin.elapsed());
        }
    }
    let more = descriptors(&host).saturating_sub(descriptors_before);
    assert!(more <= PLACES, "{more} descriptors more");
    let more = memory(&host).saturating_sub(memory_before);
    assert!(more < 128 << 20, "{more} bytes more");
    assert!(slowest < PROMPT, "another client waited {slowest:?}");
    drop(idle);
    until("hostd lets go of them", || {
        descriptors(&host) <= descriptors_before + 8
    });
    assert_sane(&host);
}

#[test]
fn connections_at_work_are_counted_and_the_owner_keeps_a_reserve() {
    allow_descriptors(2 * PLACES);
    let host = Host::start_with(&["--group", "daemon"]);
    let socket = host.socket();
    let (others, refused) = thread::spawn(move || {
        become_member();
        let others: Vec<_> = (0..PLACES - RESERVE)
            .map(|_| asked(&socket, FOLLOW))
            .collect();
        // Each has its answer, and so works.
        for stream in &others {
            (&*stream).read_exact(&mut [0; 12]).unwrap();
        }
        let mut refused = String::new();
        let mut last = asked(&socket, FOLLOW);
        last.read_to_string(&mut refused).ok();
        (others, refused)
    })
    .join()
    .unwrap();
    assert_eq!(status(&refused), 503, "{refused}");
    assert!(refused.contains("is at work"), "{refused}");
    // Root has places left.
    let answer = request(&host, "GET", "/v1/version", "");
    assert_eq!(status(&answer), 200, "{answer}");
    let reserve = answered(&host, FOLLOW, RESERVE, "200");
    let answer = raw(&host, FOLLOW);
    assert_eq!(status(&answer), 503, "{answer}");
    drop((others, reserve));
    until("places are free again", || {
        status(&request(&host, "GET", "/v1/version", "")) == 200
    });
    assert_sane(&host);
}

#[test]
fn what_is_attached_counts_and_keeps_its_place() {
    // Of which half are for connections.
    allow_descriptors(400);
    let host = Host::with_busybox();
    allow_descriptors(2000);
    host.ok(&["run", "-d", "--name", "one", "busybox", "sleep", "1000"]);
    let attach = b"POST /v1/dynos/one/attach HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\n\
        Upgrade: dyno-frames\r\nContent-Length: 2\r\n\r\n{}";
    let mut attached = answered(&host, attach, 40, "101");
    // Those that say nothing make room, and what is attached does not.
    let idle: Vec<_> = (0..400)
        .map(|_| UnixStream::connect(host.socket()).unwrap())
        .collect();
    let following = answered(&host, FOLLOW, 200 - 40, "200");
    let answer = raw(&host, FOLLOW);
    assert_eq!(status(&answer), 503, "{answer}");
    drop((idle, following));
    until("there are places again", || {
        host.run(&["kill", "one"]).status.success()
    });
    for stream in &mut attached {
        // Frames, to their end.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(!rest.is_empty());
    }
    assert_sane(&host);
}

/// So many connections that have asked for this and begun to have an answer.
fn answered(host: &Host, request: &[u8], count: usize, status: &str) -> Vec<UnixStream> {
    let streams: Vec<_> = (0..count).map(|_| asked(&host.socket(), request)).collect();
    for stream in &streams {
        let mut begin = [0; 12];
        (&*stream).read_exact(&mut begin).unwrap();
        assert!(
            begin.ends_with(status.as_bytes()),
            "{}",
            begin.escape_ascii()
        );
    }
    streams
}

/// A connection that has sent this, and waits for at most [`DEADLINE`].
fn asked(socket: &Path, request: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request).unwrap();
    stream
}

/// From now on this thread is no root, but a member of the group `daemon`.
fn become_member() {
    let (user, group) = (Uid::from_raw(65534), Gid::from_raw(1));
    set_thread_groups(&[]).unwrap();
    set_thread_res_gid(group, group, group).unwrap();
    set_thread_res_uid(user, user, user).unwrap();
}

fn descriptors(host: &Host) -> usize {
    let folder = format!("/proc/{}/fd", host.pid());
    fs::read_dir(folder).unwrap().count()
}

/// For this test, and for the hostd that it starts from now on.
#[track_caller]
fn allow_descriptors(count: usize) {
    let count = count as u64;
    let maximum = getrlimit(Resource::Nofile).maximum;
    assert!(
        maximum.is_none_or(|most| most >= count),
        "the test needs {count} descriptors: `ulimit -Hn`"
    );
    let limit = Rlimit {
        current: Some(count),
        maximum,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
}
