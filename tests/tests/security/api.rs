//! The API's socket and what comes through it (P14, P15).

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};

use dyno_tests::host::Host;

use super::rig::{assert_sane, raw, request, status};

#[test]
fn the_socket_and_what_hostd_keeps_are_not_for_everybody() {
    let host = Host::with_busybox();
    host.ok(&[
        "run", "-d", "--name", "one", "-e", "SECRET=x", "busybox", "sleep", "1000",
    ]);
    let mode = fs::metadata(host.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let dyno = host.ids().remove(0);
    for folder in ["state", &format!("run/dynos/{dyno}/config.json")] {
        let mode = fs::metadata(host.path().join(folder)).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{folder} is open to others: {mode:o}");
    }
    let open: Vec<_> = walk(&host.path().join("run"))
        .into_iter()
        .filter(|(path, mode)| path.ends_with(".sock") && mode & 0o007 != 0)
        .collect();
    assert!(open.is_empty(), "sockets for everybody: {open:?}");
    let names = fs::read_to_string("/proc/thread-self/net/unix").unwrap();
    assert!(!names.contains(" @"), "an abstract socket: {names}");
}

/// Files below a folder and their modes, as far as folders are open to others.
fn walk(folder: &Path) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        if meta.is_dir() {
            if meta.mode() & 0o001 != 0 {
                found.extend(walk(&entry.path()));
            }
        } else {
            found.insert(entry.path().display().to_string(), meta.mode());
        }
    }
    found
}

#[test]
fn another_user_is_refused_even_where_the_socket_lets_them() {
    let host = Host::start();
    let ask = |user: &str| -> Output {
        Command::new("setpriv")
            .args([
                &format!("--reuid={user}"),
                &format!("--regid={user}"),
                "--clear-groups",
            ])
            .args(["curl", "-s", "-m", "10", "--unix-socket"])
            .arg(host.socket())
            .arg("http://hostd/v1/dynos")
            .output()
            .unwrap()
    };
    // 7: cannot connect. The mode of the socket is the first barrier.
    assert_eq!(ask("65534").status.code(), Some(7));
    for path in [host.path().join("run"), host.socket()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let stranger = ask("65534");
    assert!(
        !stranger.status.success() && stranger.stdout.is_empty(),
        "{stranger:?}"
    );
    // hostd closes at once: whether curl calls that a failed connection is a
    // matter of luck. That hostd itself refused is in its log.
    let log = fs::read_to_string(host.path().join("hostd.log")).unwrap();
    assert!(log.contains("a user who may not was closed"), "{log}");
    // The control.
    assert_eq!(ask("0").stdout, b"[]");
}

#[test]
fn ids_and_references_are_no_paths() {
    let host = Host::with_busybox();
    let before = files(&host.path().join("state"));
    for path in [
        "/v1/dynos/..",
        "/v1/dynos/../images",
        "/v1/dynos/..%2f..%2f..%2fetc%2fpasswd",
        "/v1/dynos/%2e%2e",
        "/v1/dynos/.",
        "/v1/dynos/%00",
        "/v1/dynos/a%00b",
        "/v1/dynos/%ff%fe",
        "/v1/dynos/..%2fimages/logs",
        "/v1/dynos/%2fetc/logs",
        "/v1/images/../../host.json",
        "/v1/images/..%2f..%2fhost.json",
        "/v1/images/%2fetc%2fpasswd",
        "/v1/images/%00",
        "/v1/images/sha256:..%2f..%2fhost.json",
        "/v1//dynos",
        "//etc/passwd",
        "/../etc/passwd",
    ] {
        for method in ["GET", "DELETE", "POST"] {
            let answer = request(&host, method, path, "");
            assert!(
                (400..500).contains(&status(&answer)),
                "{method} {path}: {answer}"
            );
            assert!(!answer.contains("root:x:0"), "{method} {path}: {answer}");
        }
    }
    for body in [
        r#"{"image": "../../etc"}"#,
        r#"{"image": "busybox", "name": "../x"}"#,
        r#"{"image": "busybox", "name": "x/../y"}"#,
        r#"{"image": "busybox", "hostname": "x\ny"}"#,
        r#"{"image": "busybox", "mounts": [{"volume": {"name": "../x", "target": "/x"}}]}"#,
        r#"{"image": "busybox", "mounts": [{"kind": "volume", "name": "../x", "target": "/x"}]}"#,
        r#"{"image": "busybox", "workdir": "a/../../b"}"#,
    ] {
        let answer = request(&host, "POST", "/v1/dynos", body);
        assert!((400..500).contains(&status(&answer)), "{body}: {answer}");
    }
    assert_eq!(files(&host.path().join("state")), before);
    assert_sane(&host);
}

/// What is in a state folder, without its images: hostd tidies those by
/// itself, and `find` stops where a folder that it is in goes away.
fn files(folder: &Path) -> Vec<String> {
    let mut find = Command::new("find");
    find.arg(folder)
        .args(["-name", "images", "-prune", "-o", "-print"]);
    let output = find.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut names: Vec<_> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_not_in_the_contract_is_refused() {
    let host = Host::with_busybox();
    for (method, path, body) in [
        ("GET", "/v1/dynos?nosuch=1", ""),
        ("GET", "/v1/events?since=yesterday", ""),
        ("POST", "/v1/dynos?force=1", r#"{"image": "busybox"}"#),
        (
            "POST",
            "/v1/dynos",
            r#"{"image": "busybox", "privileged": true}"#,
        ),
        (
            "POST",
            "/v1/dynos",
            r#"{"image": "busybox", "security": {"seccomp": "off"}}"#,
        ),
        (
            "POST",
            "/v1/dynos",
            r#"{"image": "busybox", "image": "host"}"#,
        ),
        ("POST", "/v1/dynos", r#"{"image": "busybox"} {}"#),
        ("POST", "/v1/dynos", r#"{"image": 1e999}"#),
        ("POST", "/v1/dynos", "[]"),
        ("POST", "/v1/dynos", "\u{feff}{}"),
        ("PATCH", "/v1/dynos", "{}"),
        ("TRACE", "/v1/dynos", ""),
        ("GET", "/v2/dynos", ""),
        ("GET", "/", ""),
    ] {
        let answer = request(&host, method, path, body);
        assert!(
            (400..500).contains(&status(&answer)),
            "{method} {path} {body}: {answer}"
        );
    }
    assert!(host.ids().is_empty());
    assert_sane(&host);
}

#[test]
fn a_body_is_bounded_in_size_and_depth() {
    let host = Host::start();
    let large = format!(r#"{{"image": "{}"}}"#, "x".repeat(5 << 20));
    let deep = "[".repeat(1 << 20);
    let many = format!(
        r#"{{"image": "x", "env": {{{}"z": ""}}}}"#,
        entries(100_000)
    );
    for body in [large, deep, many] {
        let answer = request(&host, "POST", "/v1/dynos", &body);
        assert!(
            (400..500).contains(&status(&answer)),
            "{}",
            &answer[..answer.len().min(200)]
        );
        assert!(answer.len() < 64 << 10, "a long answer");
    }
    // Without a length, too, it ends somewhere.
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, " ".repeat(1 << 20));
    let head = "POST /v1/dynos HTTP/1.1\r\nHost: hostd\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = raw(
        &host,
        &[head.as_bytes(), chunk.repeat(8).as_bytes()].concat(),
    );
    assert!(answer.is_empty() || status(&answer) == 400, "{answer}");
    assert_sane(&host);
}

/// RFC 9110 section 15.5.6.
#[test]
fn a_method_that_a_path_does_not_have_is_answered_with_those_that_it_has() {
    let host = Host::start();
    for (method, path, allowed) in [
        ("DELETE", "/v1/dynos", "GET, POST, HEAD"),
        ("GET", "/v1/dynos/nosuch/stop", "POST"),
        ("BREW", "/v1/volumes/data", "GET, PATCH, DELETE, HEAD"),
    ] {
        let answer = request(&host, method, path, "");
        assert_eq!(status(&answer), 405, "{method} {path}: {answer}");
        let allow = answer.lines().find_map(|line| line.strip_prefix("allow: "));
        assert_eq!(allow, Some(allowed), "{method} {path}: {answer}");
        assert!(answer.contains(r#""kind":"not_found""#), "{answer}");
    }
    let answer = request(&host, "DELETE", "/v1/nosuch", "");
    assert_eq!(status(&answer), 404, "{answer}");
    assert!(!answer.contains("allow:"), "{answer}");
    assert_sane(&host);
}

#[test]
fn a_refusal_reaches_who_is_still_sending() {
    let host = Host::start();
    for (path, wanted) in [
        ("/v1/dynos/nosuch/archive?path=/", 404),
        ("/v1/nosuch", 404),
        ("/v1/secrets/x?nosuch=1", 400),
    ] {
        let mut stream = UnixStream::connect(host.socket()).unwrap();
        // More than fits on the way.
        let body = vec![0; 8 << 20];
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let sent = stream.write_all(&body);
        assert!(sent.is_ok(), "{path}: {sent:?}");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(status(&answer), wanted, "{path}: {answer}");
    }
    assert_sane(&host);
}

fn entries(count: usize) -> String {
    (0..count)
        .map(|number| format!(r#""v{number}": "","#))
        .collect()
}

#[test]
fn malformed_http_ends_its_own_connection_only() {
    let host = Host::start();
    let header = format!(
        "GET /v1/version HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    let headers: String = (0..1000)
        .map(|number| format!("X{number}: y\r\n"))
        .collect();
    let headers = format!("GET /v1/version HTTP/1.1\r\n{headers}\r\n");
    let line = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20));
    for request in [
        header.as_bytes(),
        headers.as_bytes(),
        line.as_bytes(),
        b"",
        b"\r\n\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/version HTTP/9.9\r\n\r\n",
        b"GET /v1/version\r\n\r\n",
        b"POST /v1/dynos HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/dynos HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551616\r\n\r\n",
        b"POST /v1/dynos HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\n{}",
        b"POST /v1/dynos HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"POST /v1/dynos/x/attach HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET http://169.254.169.254/ HTTP/1.1\r\nHost: h\r\n\r\n",
    ] {
        let answer = raw(&host, request);
        let shown = request[..request.len().min(60)].escape_ascii();
        assert!(answer.is_empty() || (400..506).contains(&status(&answer)), "{shown}: {answer}");
        assert_sane(&host);
    }
}
