//! The listener for clients from elsewhere, and what tokens are good for (P20).

mod certificates;
mod clients;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use dyno_tests::host::Host;
use dyno_tests::{DEADLINE, until};

use super::rig::{assert_sane, status};
use super::tls::{Key, Tls, read_until, rest, token};

fn host() -> Host {
    Host::start_with(&["--listen", "127.0.0.1:0"])
}

#[test]
fn without_a_token_that_is_good_nothing_is_answered() {
    let host = host();
    let good = token(&host, "good", "read", &[]);
    let gone = token(&host, "gone", "read,logs,run,secrets,host", &[]);
    host.ok(&["token", "rm", "gone"]);
    let (last, most) = good.secret.split_at(good.secret.len() - 1);
    for wrong in [
        "",
        "x",
        last,
        most,
        &gone.secret,
        &good.secret.to_uppercase(),
    ] {
        for path in ["/v1/dynos", "/v1/version", "/metrics", "/nosuch"] {
            if path != "/v1/dynos" && wrong != gone.secret {
                continue;
            }
            let answer = good.with(wrong).ask("GET", path, "");
            assert_eq!(status(&answer), 401, "{path} with {wrong:?}: {answer}");
            assert!(
                answer.to_lowercase().contains("www-authenticate: bearer"),
                "{answer}"
            );
        }
    }
    // The control.
    let answer = good.ask("GET", "/v1/dynos", "");
    assert!(status(&answer) == 200 && answer.ends_with("[]"), "{answer}");
}

#[test]
fn a_refused_connection_is_closed_and_a_known_one_stays_its_tokens() {
    let host = host();
    let (one, other) = (
        token(&host, "one", "read", &[]),
        token(&host, "other", "read", &[]),
    );
    let ask = |stream: &mut Tls, key: &Key| {
        let request = key.request("GET", "/healthz", "", "Accept: */*");
        stream.write_all(request.as_bytes()).unwrap();
    };
    let mut stream = one.connect().unwrap();
    for _ in 0..2 {
        ask(&mut stream, &one);
        read_until(&mut stream, "ok\n");
    }
    ask(&mut stream, &other);
    // What comes is the refusal, and then the end.
    assert_eq!(status(&rest(&mut stream)), 401);
    let mut stream = one.connect().unwrap();
    ask(&mut stream, &one.with("wrong"));
    assert_eq!(status(&rest(&mut stream)), 401);
}

#[test]
fn only_tls_1_3_with_what_is_pinned_is_spoken() {
    let host = host();
    let key = token(&host, "key", "read", &[]);
    assert!(key.connect_by(&[&rustls::version::TLS12]).is_err());
    let other = Key {
        pin: format!("sha256:{}", "0".repeat(64)),
        ..key.clone()
    };
    assert!(other.connect().is_err());
    let mut plain = TcpStream::connect(key.address).unwrap();
    plain.set_read_timeout(Some(DEADLINE)).unwrap();
    plain
        .write_all(
            key.request("GET", "/v1/dynos", "", "Connection: close")
                .as_bytes(),
        )
        .unwrap();
    let answer = rest(&mut plain);
    assert!(!answer.contains("HTTP"), "{answer}");
    assert_eq!(status(&key.ask("GET", "/v1/dynos", "")), 200);
}

#[test]
fn what_clients_trust_outlives_hostd() {
    let mut host = host();
    let key = token(&host, "key", "read", &[]);
    host.kill_and_restart();
    let again = token(&host, "again", "read", &[]);
    assert_eq!(again.pin, key.pin);
    // The port is another one: none was asked for.
    assert_eq!(
        status(&again.with(&key.secret).ask("GET", "/v1/dynos", "")),
        200
    );
    let key_file = host.path().join("remote.key");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(key_file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn who_does_not_get_on_with_it_is_closed() {
    let host = host();
    let key = token(&host, "key", "read", &[]);
    let begin = Instant::now();
    let mut silent = TcpStream::connect(key.address).unwrap();
    silent.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut half = key.connect().unwrap();
    half.write_all(b"GET /v1/dynos HTTP/1.1\r\nAuthorization: Bea")
        .unwrap();
    assert_eq!(rest(&mut silent), "");
    rest(&mut half);
    assert!(begin.elapsed() < Duration::from_secs(30));
    assert_sane(&host);
}

#[test]
fn who_says_nothing_takes_no_place_from_the_socket_and_few_from_others() {
    let host = host();
    let key = token(&host, "key", "read", &[]);
    let silent: Vec<_> = (0..64)
        .map(|_| TcpStream::connect(key.address).unwrap())
        .collect();
    // Most of them are closed at once.
    let closed = silent.iter().filter(|stream| {
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        matches!((&mut &**stream).read(&mut [0]), Ok(0))
    });
    assert!(closed.count() >= 64 - 16);
    host.ok(&["ps"]);
    drop(silent);
    until("there is a place again", || key.connect().is_ok());
}

#[test]
fn one_token_leaves_connections_to_others() {
    let host = host();
    let (greedy, other) = (
        token(&host, "greedy", "read", &[]),
        token(&host, "other", "read", &[]),
    );
    let follow = "/v1/events?follow=true";
    let all: Vec<_> = (0..256)
        .map(|_| {
            let mut stream = greedy.send("GET", follow, "").unwrap();
            // It is known only once it is answered.
            stream.read_exact(&mut [0; 12]).unwrap();
            stream
        })
        .collect();
    let answer = greedy.ask("GET", follow, "");
    assert_eq!(status(&answer), 503, "{answer}");
    assert!(answer.contains("256 connections"), "{answer}");
    // That was no failure to say who it is.
    assert_eq!(status(&other.ask("GET", "/v1/dynos", "")), 200);
    drop(all);
    until("its connections are free again", || {
        status(&greedy.ask("GET", "/v1/dynos", "")) == 200
    });
    assert_sane(&host);
}

#[test]
fn who_fails_too_often_is_closed_to() {
    let host = host();
    let key = token(&host, "key", "read", &[]);
    let wrong = key.with("wrong");
    for _ in 0..10 {
        assert_eq!(status(&wrong.ask("GET", "/v1/dynos", "")), 401);
    }
    assert!(wrong.connect().is_err());
    assert!(key.connect().is_err());
    host.ok(&["ps"]);
}

/// Streams of every kind, open, each with a token of its own scopes.
fn streams(host: &Host, key: &Key) -> Vec<(&'static str, Tls)> {
    host.ok(&[
        "run",
        "-d",
        "--name",
        "one",
        "host",
        "sh",
        "-c",
        "echo here; exec sleep 1000",
    ]);
    host.until_phase("one", "running");
    let mut open = Vec::new();
    for path in [
        "/v1/events?follow=true&since=0",
        "/v1/dynos/one/logs?follow=true",
        "/v1/dynos/one/stats?stream=true",
    ] {
        let mut stream = key.send("GET", path, "").unwrap();
        read_until(&mut stream, "{");
        open.push((path, stream));
    }
    let upgrade = "Connection: upgrade\r\nUpgrade: dyno-frames";
    let exec = r#"{"command": ["sh", "-c", "echo inside; cat"], "stdin": true}"#;
    for (path, body) in [("/v1/dynos/one/exec", exec), ("/v1/dynos/one/attach", "{}")] {
        let mut stream = key.connect().unwrap();
        stream
            .write_all(key.request("POST", path, body, upgrade).as_bytes())
            .unwrap();
        read_until(&mut stream, "101 ");
        open.push((path, stream));
    }
    let mut waits = key.send("GET", "/v1/dynos/one/wait", "").unwrap();
    waits.flush().unwrap();
    open.push(("wait", waits));
    open
}

#[track_caller]
fn all_end(streams: Vec<(&'static str, Tls)>, begin: Instant, within: Duration) {
    for (path, mut stream) in streams {
        rest(&mut stream);
        assert!(
            begin.elapsed() < within,
            "{path} after {:?}",
            begin.elapsed()
        );
    }
}

#[test]
fn streams_end_when_their_token_is_taken_away() {
    let host = host();
    let key = token(&host, "key", "read,logs,run", &[]);
    let other = token(&host, "other", "logs", &[]);
    let open = streams(&host, &key);
    let mut kept = other
        .send("GET", "/v1/dynos/one/logs?follow=true", "")
        .unwrap();
    read_until(&mut kept, "here");
    host.ok(&["token", "rm", "key"]);
    all_end(open, Instant::now(), Duration::from_secs(10));
    // What was not asked for is not cut.
    host.ok(&["stop", "-t", "0", "one"]);
    assert!(rest(&mut kept).ends_with("0\r\n\r\n"));
}

#[test]
fn streams_end_when_their_token_expires() {
    let host = host();
    let key = token(&host, "key", "read,logs,run", &["--expires", "8s"]);
    let begin = Instant::now();
    let open = streams(&host, &key);
    all_end(open, begin, Duration::from_secs(30));
    assert!(
        begin.elapsed() > Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(status(&key.ask("GET", "/v1/dynos", "")), 401);
}

#[test]
fn each_scope_is_needed_and_none_gives_another() {
    let host = host();
    host.ok(&["run", "-d", "--name", "one", "host", "sleep", "1000"]);
    let operations = [
        ("read", "GET", "/v1/dynos", ""),
        ("logs", "GET", "/v1/dynos/one/logs", ""),
        ("run", "POST", "/v1/dynos/one/pause", ""),
        ("secrets", "PUT", "/v1/secrets/db", "x"),
        ("host", "GET", "/v1/tokens", ""),
    ];
    let scopes = operations.map(|(scope, ..)| scope);
    for (scope, method, path, body) in operations {
        let others: Vec<_> = scopes
            .iter()
            .copied()
            .filter(|other| *other != scope)
            .collect();
        let without = token(&host, &format!("without-{scope}"), &others.join(","), &[]);
        let answer = without.ask(method, path, body);
        assert_eq!(status(&answer), 403, "{scope}: {answer}");
        assert!(answer.contains(&format!("`{scope}`")), "{answer}");
        let with = token(&host, &format!("with-{scope}"), scope, &[]);
        let answer = with.ask(method, path, body);
        assert_eq!(status(&answer), 200, "{scope}: {answer}");
    }
}

#[test]
fn what_is_as_good_as_root_needs_the_scope_that_is() {
    let host = host();
    let weak = token(&host, "weak", "read,logs,run,secrets", &[]);
    let strong = token(&host, "strong", "read,run,host", &[]);
    let folder = host.path().join("shared");
    fs::create_dir(&folder).unwrap();
    let specs = [
        format!(
            r#""mounts": [{{"type": "bind", "source": {folder:?}, "target": "/x", "read_only": true}}]"#
        ),
        r#""net": "host""#.to_owned(),
        r#""devices": [{"source": "/dev/null"}]"#.to_owned(),
        r#""security": {"cap_add": ["NET_RAW"]}"#.to_owned(),
        r#""security": {"allow_new_privileges": true}"#.to_owned(),
    ];
    for (number, spec) in specs.iter().enumerate() {
        let body = format!(
            r#"{{"image": "host", "command": ["sleep", "1000"], "name": "n{number}", {spec}}}"#
        );
        let answer = weak.ask("POST", "/v1/dynos?start=true", &body);
        assert_eq!(status(&answer), 403, "{spec}: {answer}");
        assert!(answer.contains("`host`"), "{answer}");
        let answer = strong.ask("POST", "/v1/dynos?start=true", &body);
        assert_eq!(status(&answer), 201, "{spec}: {answer}");
    }
    // Neither does one get into those that others have made.
    let upgrade = "Connection: upgrade\r\nUpgrade: dyno-frames";
    for (method, path, body) in [
        ("POST", "/v1/dynos/n0/exec", r#"{"command": ["true"]}"#),
        ("POST", "/v1/dynos/n0/attach", "{}"),
        ("GET", "/v1/dynos/n0/archive?path=/x", ""),
        ("PUT", "/v1/dynos/n0/archive?path=/tmp", ""),
    ] {
        let mut stream = weak.connect().unwrap();
        let request = weak.request(method, path, body, upgrade);
        stream.write_all(request.as_bytes()).unwrap();
        let answer = read_until(&mut stream, "\r\n\r\n");
        assert_eq!(status(&answer), 403, "{method} {path}: {answer}");
    }
    // Nor has one run in them what one may not run there.
    let hook = r#"{"name": "hooked", "backup": {"before": ["touch", "/x/here"]}}"#;
    let later = r#"{"backup": {"after": ["touch", "/x/here"]}}"#;
    let empty = r#"{"name": "data"}"#;
    assert_eq!(status(&weak.ask("POST", "/v1/volumes", empty)), 201);
    for (method, path, body) in [
        ("POST", "/v1/volumes", hook),
        ("PATCH", "/v1/volumes/data", later),
    ] {
        let answer = weak.ask(method, path, body);
        assert_eq!(status(&answer), 403, "{method} {path}: {answer}");
        assert!(answer.contains("`host`"), "{answer}");
    }
    // The control: an ordinary one is theirs.
    let plain = r#"{"image": "host", "command": ["sleep", "1000"], "name": "plain"}"#;
    assert_eq!(
        status(&weak.ask("POST", "/v1/dynos?start=true", plain)),
        201
    );
}

#[test]
fn secrets_are_told_to_nobody_who_may_only_run() {
    let host = host();
    let file = host.path().join("value");
    dyno_tests::write_file(&file, "hush");
    host.ok(&["secret", "set", "db", "--file", &file.to_string_lossy()]);
    host.ok(&[
        "run", "-d", "--name", "db", "--secret", "db", "host", "sleep", "1000",
    ]);
    let weak = token(&host, "weak", "read,logs,run,host", &[]);
    let body =
        r#"{"image": "host", "command": ["cat", "/run/secrets/db"], "secrets": [{"name": "db"}]}"#;
    let variable = r#"{"image": "host", "command": ["env"], "secret_env": {"PASSWORD": "db"}}"#;
    for (method, path, body) in [
        ("POST", "/v1/dynos?start=true", body),
        ("POST", "/v1/dynos?start=true", variable),
        ("GET", "/v1/dynos/db/archive?path=/run/secrets/db", ""),
    ] {
        let answer = weak.ask(method, path, body);
        assert_eq!(status(&answer), 403, "{method} {path}: {answer}");
        assert!(answer.contains("`secrets`"), "{answer}");
    }
    let later = r#"{"backup": {"after": ["cat", "/run/secrets/db"]}}"#;
    host.ok(&["volume", "create", "data"]);
    let answer = weak.ask("PATCH", "/v1/volumes/data", later);
    assert!(answer.contains("`secrets`"), "{answer}");
    let both = token(&host, "both", "run,secrets,host", &[]);
    assert_eq!(status(&both.ask("PATCH", "/v1/volumes/data", later)), 200);
    let strong = token(&host, "strong", "run,secrets", &[]);
    assert_eq!(
        status(&strong.ask("POST", "/v1/dynos?start=true", body)),
        201
    );
}

#[test]
fn no_token_makes_a_stronger_one() {
    let host = host();
    let key = token(&host, "key", "read,host", &["--expires", "1h"]);
    let make = |body: &str| key.ask("POST", "/v1/tokens", body);
    for body in [
        r#"{"name": "a", "scopes": ["read", "run"], "expires_in": 60}"#,
        r#"{"name": "a", "scopes": ["read"]}"#,
        r#"{"name": "a", "scopes": ["read"], "expires_in": 7200}"#,
    ] {
        let answer = make(body);
        assert_eq!(status(&answer), 403, "{body}: {answer}");
    }
    for body in [
        r#"{"name": "a", "scopes": []}"#,
        r#"{"name": "a", "scopes": ["root"]}"#,
        r#"{"name": "../a", "scopes": ["read"]}"#,
        r#"{"name": "a", "scopes": ["read"], "expires_in": 0}"#,
    ] {
        let answer = make(body);
        assert_eq!(status(&answer), 400, "{body}: {answer}");
    }
    let answer = make(r#"{"name": "a", "scopes": ["read"], "expires_in": 60}"#);
    assert_eq!(status(&answer), 201, "{answer}");
    assert_eq!(host.ok(&["token", "ls", "-q"]), "a\nkey");
}

#[test]
fn a_secret_is_in_no_file_and_no_list() {
    let mut host = host();
    let key = token(&host, "key", "read,host", &[]);
    assert_eq!(status(&key.ask("GET", "/v1/tokens", "")), 200);
    assert_eq!(status(&key.ask("GET", "/v1/nosuch", "")), 404);
    assert_eq!(status(&key.ask("POST", "/v1/tokens", "{")), 400);
    let list = host.ok(&["token", "ls", "--json"]);
    assert!(!list.contains(&key.secret[5..]), "{list}");
    host.kill_and_restart();
    let found = files_with(host.path(), &key.secret[5..]);
    assert!(found.is_empty(), "{found:?}");
    // The control: what is looked for would be found.
    dyno_tests::write_file(&host.path().join("control"), &key.secret);
    assert_eq!(files_with(host.path(), &key.secret[5..]).len(), 1);
}

/// Files below a folder that have this text in them.
pub(crate) fn files_with(folder: &Path, text: &str) -> Vec<String> {
    let mut grep = std::process::Command::new("grep");
    let output = grep
        .args(["-rlaF", "--devices=skip", "--", text])
        .arg(folder)
        .output();
    String::from_utf8(output.unwrap().stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}
