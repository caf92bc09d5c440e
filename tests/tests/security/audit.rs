//! The trace that changes leave (P21): nothing is changed without one, and no secret is in it.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dyno_tests::host::Host;
use dyno_tests::{DEADLINE, until};
use serde_json::Value;

use super::rig::{raw, request, status};
use super::tls::{Key, token};

fn folder(host: &Host) -> PathBuf {
    host.path().join("state/audit")
}

/// All that is in the files of the log, but for the zeros behind it.
fn bytes(host: &Host) -> Vec<u8> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder(host))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    let mut bytes = Vec::new();
    for file in files {
        bytes.extend(
            fs::read(file)
                .unwrap()
                .into_iter()
                .filter(|byte| *byte != 0),
        );
    }
    bytes
}

/// Its lines as they are on disk.
fn lines(host: &Host) -> Vec<Value> {
    let bytes = bytes(host);
    let lines = bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// The entries that `dyno audit` tells, with these arguments.
#[track_caller]
fn entries(host: &Host, more: &[&str]) -> Vec<Value> {
    let told = host.ok(&[&["audit", "--json", "--all"], more].concat());
    let lines = told.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The one entry of an operation.
#[track_caller]
fn entry(host: &Host, operation: &str) -> Value {
    let mut found = entries(host, &["--operation", operation]);
    assert_eq!(found.len(), 1, "{operation}: {found:?}");
    found.remove(0)
}

/// A request over the socket, with one more header.
fn ask(host: &Host, method: &str, path: &str, header: &str, body: &str) -> String {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: hostd\r\nConnection: close\r\n{header}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    raw(host, &[head.as_bytes(), body.as_bytes()].concat())
}

/// Every operation of the API's document: method and path.
fn operations(host: &Host) -> Vec<(String, String)> {
    let answer = request(host, "GET", "/v1/openapi.json", "");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let document: Value = serde_json::from_str(body).unwrap();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            operations.push((method.to_uppercase(), path.clone()));
        }
    }
    operations
}

/// One that only looks, of those that are no change.
fn only_looks((method, path): &(String, String)) -> bool {
    let tells_secrets =
        path.ends_with("/archive") || ["/v1/tokens", "/v1/audit"].contains(&&**path);
    method == "GET" && !tells_secrets
}

#[test]
fn each_change_leaves_its_begin_and_its_end_and_a_look_leaves_nothing() {
    let host = Host::start();
    let all = operations(&host);
    let mut changes = 0;
    for (number, operation) in all.iter().enumerate() {
        let (method, path) = operation;
        let looks = only_looks(operation);
        if looks && path == "/v1/events" {
            // It does not end.
            continue;
        }
        let place: Vec<&str> = path
            .split('/')
            .map(|part| {
                if part.starts_with('{') {
                    "nosuch"
                } else {
                    part
                }
            })
            .collect();
        let id = format!("request-{number}");
        let answer = ask(
            &host,
            method,
            &place.join("/"),
            &format!("X-Request-Id: {id}"),
            "{}",
        );
        let answered = status(&answer);
        assert!(answered >= 200, "{operation:?}: {answer}");
        let left: Vec<Value> = lines(&host)
            .into_iter()
            .filter(|line| line["request"] == *id)
            .collect();
        if looks {
            assert!(left.is_empty(), "{operation:?}: {left:?}");
            continue;
        }
        changes += 1;
        let [begin, end] = &left[..] else {
            panic!("{operation:?}: {left:?}");
        };
        assert_eq!(
            (&begin["state"], &end["state"]),
            (&"running".into(), &"done".into())
        );
        assert_eq!(begin["id"], end["id"]);
        assert_eq!(end["status"], answered, "{operation:?}: {end}");
        assert_eq!(
            end["error"].is_null(),
            answered < 400 && end["error"].is_null(),
            "{end}"
        );
        assert_eq!(begin["caller"]["uid"], 0);
        assert_eq!(begin["caller"]["pid"], std::process::id());
    }
    assert!(
        changes > 30 && changes < all.len(),
        "{changes} of {}",
        all.len()
    );
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder(&host)), 0o700);
    assert_eq!(mode(&folder(&host).join("00000001.jsonl")), 0o600);
}

#[test]
fn what_is_done_is_told_with_whom_it_was_done_to_and_streams_end_when_they_end() {
    let host = Host::start();
    host.ok(&["run", "-d", "--name", "web", "host", "sleep", "1000"]);
    let id = host.inspect("web")["id"].clone();
    let create = entry(&host, "dyno.create");
    assert_eq!((&create["target"], &create["dyno"]), (&"web".into(), &id));
    assert_eq!(
        (&create["state"], &create["status"]),
        (&"done".into(), &201.into())
    );
    assert!(create["took_us"].as_u64().unwrap() > 0);
    let mut exec = host.dyno(&["exec", "-i", "web", "cat"]);
    let mut exec = exec
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    exec.stdin.as_mut().unwrap().write_all(b"here\n").unwrap();
    let mut said = [0; 5];
    exec.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    let running = entry(&host, "dyno.exec");
    assert_eq!(
        (&running["state"], &running["dyno"]),
        (&"running".into(), &id)
    );
    drop(exec.stdin.take());
    exec.wait().unwrap();
    until("the stream's end is known", || {
        entry(&host, "dyno.exec")["state"] == "done"
    });
    assert_eq!(entry(&host, "dyno.exec")["status"], 101);
    // What fails after its answer has begun has failed.
    host.fails(&["pull", "127.0.0.1:1/nosuch"]);
    let pull = entry(&host, "image.pull");
    assert_eq!(
        (&pull["status"], &pull["error"]),
        (&200.into(), &"upstream".into())
    );
    assert_eq!(pull["target"], "127.0.0.1:1/nosuch:latest");
    let table = host.ok(&["audit", "-n", "2", "--operation", "dyno"]);
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 3, "{table}");
    assert!(
        rows[2].contains("dyno.exec") && rows[2].contains("web"),
        "{table}"
    );
}

#[test]
fn a_follower_is_told_of_what_ends() {
    let host = Host::start();
    let mut follow = host.dyno(&["audit", "-f", "-n", "0", "--json", "--operation", "volume"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    until("somebody follows", || {
        let reads = entries(&host, &["--operation", "audit.list"]);
        reads.iter().any(|read| read["state"] == "running")
    });
    for number in 0..20 {
        host.ok(&["volume", "create", &format!("v{number}")]);
    }
    let mut told = BufReader::new(follow.stdout.take().unwrap()).lines();
    for number in 0..20 {
        let entry: Value = serde_json::from_str(&told.next().unwrap().unwrap()).unwrap();
        assert_eq!(entry["target"], format!("v{number}"));
        assert_eq!(entry["state"], "done");
    }
    follow.kill().unwrap();
    follow.wait().unwrap();
}

#[test]
fn no_secret_is_ever_in_it() {
    const CANARY: &str = "CANARY-1f0e9d8c";
    let host = Host::start_with(&["--listen", "127.0.0.1:0"]);
    let key = token(&host, "key", "read,logs,run,secrets,host", &[]);
    let value = host.path().join("value");
    dyno_tests::write_file(&value, CANARY);
    let value = value.to_str().unwrap();
    host.ok(&["secret", "set", "--file", value, "db"]);
    let variable = format!("PASSWORD={CANARY}");
    let label = format!("note={CANARY}");
    host.ok(&[
        "run",
        "-d",
        "--name",
        "one",
        "-e",
        &variable,
        "--label",
        &label,
        "--secret",
        "db",
        "host",
        "sh",
        "-c",
        &format!("echo {CANARY}; exec sleep 1000"),
    ]);
    host.ok(&["exec", "one", "sh", "-c", &format!("true {CANARY}")]);
    host.ok(&["exec", "-e", &variable, "one", "true"]);
    host.ok(&["cp", value, &format!("one:/tmp/{CANARY}")]);
    let back = host.path().join("back");
    host.ok(&["cp", &format!("one:/tmp/{CANARY}"), back.to_str().unwrap()]);
    host.run(&["drain", "add", &format!("https://u:{CANARY}@127.0.0.1:1/")]);
    let credentials = format!(
        r#"{{"reference": "127.0.0.1:1/x", "credentials": {{"username": "u", "password": "{CANARY}"}}}}"#
    );
    request(&host, "POST", "/v1/images/pull", &credentials);
    let given = format!(r#"{{"reference": "https://u:{CANARY}@r.example/x"}}"#);
    request(&host, "POST", "/v1/images/pull", &given);
    for (method, path) in [
        ("POST", format!("/v1/dynos?start={CANARY}")),
        ("POST", format!("/v1/dynos/a%20{CANARY}/start")),
        (
            "POST",
            format!("/v1/dynos/{}{CANARY}/start", "x".repeat(80)),
        ),
        ("DELETE", format!("/v1/images/u:{CANARY}@r.example/x")),
        ("PUT", format!("/v1/secrets/db%0a{CANARY}")),
        (
            "POST",
            format!("/v1/images/load?reference=u:{CANARY}@r.example/x"),
        ),
    ] {
        let header = format!("X-Request-Id: {CANARY} x\r\nCookie: {CANARY}");
        ask(&host, method, &path, &header, &format!("{{\"{CANARY}\""));
    }
    key.ask("POST", "/v1/dynos/one/pause", "");
    key.ask("POST", &format!("/v1/dynos/one/resume?{}", key.secret), "");
    key.with(CANARY).ask("POST", "/v1/dynos/one/pause", "");
    let text = String::from_utf8(bytes(&host)).unwrap();
    assert!(!text.contains(CANARY), "{text}");
    assert!(!text.contains(&key.secret), "{text}");
    // The control: that they were done is there.
    for operation in [
        "secret.set",
        "dyno.exec",
        "dyno.write_files",
        "dyno.read_files",
        "drain.add",
    ] {
        assert!(text.contains(operation), "no {operation} in {text}");
    }
    assert!(
        text.contains(r#""by":"token""#) && text.contains(r#""name":"key""#),
        "{text}"
    );
}

#[test]
fn what_a_killed_hostd_had_begun_is_not_known_and_ids_rise() {
    let mut host = Host::start();
    host.ok(&["volume", "create", "before"]);
    host.arm("create.recorded");
    let answer = ask(
        &host,
        "POST",
        "/v1/dynos",
        "X-Request-Id: cut-off",
        r#"{"name": "one", "image": "host", "command": ["true"]}"#,
    );
    assert_eq!(status(&answer), 0, "{answer}");
    host.until_killed_at("create.recorded");
    host.spawn_again();
    host.until_it_answers();
    host.ok(&["volume", "create", "after"]);
    let cut = entry(&host, "dyno.create");
    assert_eq!(
        (&cut["state"], &cut["request"]),
        (&"unknown".into(), &"cut-off".into())
    );
    assert!(cut["status"].is_null());
    let told = entries(&host, &["--operation", "volume"]);
    let ids: Vec<u64> = told
        .iter()
        .map(|entry| entry["id"].as_u64().unwrap())
        .collect();
    let cut = cut["id"].as_u64().unwrap();
    assert!(ids[0] < cut && cut < ids[1], "{ids:?} {cut}");
    assert_eq!(entries(&host, &["--operation", "hostd.start"]).len(), 2);
}

#[test]
fn a_torn_line_is_cut_off_and_told() {
    let mut host = Host::start();
    host.ok(&["volume", "create", "one"]);
    host.kill();
    let path = folder(&host).join("00000001.jsonl");
    let end = bytes(&host).len() as u64;
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    // A part of a line, and behind it a page whose neighbour was lost.
    file.write_all_at(br#"{"v":1,"id":9"#, end).unwrap();
    file.write_all_at(b"left\n", end + 5000).unwrap();
    host.spawn_again();
    host.until_it_answers();
    host.ok(&["volume", "create", "two"]);
    let cut = entry(&host, "audit.cut");
    assert_eq!(cut["target"], "5005 bytes");
    let volumes = entries(&host, &["--operation", "volume"]);
    let names: Vec<&Value> = volumes.iter().map(|entry| &entry["target"]).collect();
    assert_eq!(names, ["one", "two"]);
    let log = fs::read_to_string(host.path().join("hostd.log")).unwrap();
    assert!(log.contains("torn"), "{log}");
    // Every line can be read.
    lines(&host);
}

/// A file system on the log's folder, as long as it is wanted.
struct Mounted(PathBuf);

impl Mounted {
    fn new(path: PathBuf, size: &str) -> Self {
        let options = format!("size={size},mode=700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "audit"]);
        assert!(mount.arg(&path).status().unwrap().success());
        Self(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // hostd has files there still.
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[test]
fn a_full_disk_refuses_changes_but_what_frees_it_and_goes_on_by_itself() {
    let mut host = Host::start();
    host.ok(&["run", "-d", "--name", "web", "host", "sleep", "1000"]);
    host.ok(&["run", "-d", "--name", "other", "host", "sleep", "1000"]);
    host.kill();
    let mounted = Mounted::new(folder(&host), "512k");
    host.spawn_again();
    host.until_it_answers();
    let ballast = mounted.0.join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    // As much as there is room for.
    while file.write_all(&[1; 4096]).is_ok() {}
    let refused = || status(&request(&host, "POST", "/v1/dynos/web/resume", "")) == 503;
    let mut done = 0;
    until("changes are refused", || {
        done += 1;
        refused()
    });
    assert!(done > 50, "{done}");
    let (error, code) = host.fails(&["run", "--rm", "host", "true"]);
    assert_eq!(code, 125, "{error}");
    assert!(error.contains("audit log cannot be written"), "{error}");
    let (error, code) = host.fails(&["volume", "create", "new"]);
    assert!(code == 6 && error.contains("audit log"), "{error}");
    // Nobody goes in unseen.
    host.fails(&["exec", "other", "true"]);
    let doctor = host.run(&["doctor"]);
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("audit log"), "{doctor}");
    assert!(doctor.contains("changes are refused"), "{doctor}");
    // What looks, frees and ends goes on, and there is room for its trace.
    host.ok(&["ps"]);
    host.ok(&["stop", "-t", "0", "web"]);
    host.ok(&["kill", "other"]);
    host.ok(&["rm", "-f", "web"]);
    let removed = entries(&host, &["--operation", "dyno.remove"]);
    assert_eq!(removed.len(), 1, "{removed:?}");
    assert_eq!(removed[0]["target"], "web");
    fs::remove_file(&ballast).unwrap();
    drop(file);
    until("changes are made again", || {
        host.run(&["volume", "create", "new"]).status.success()
    });
    let metrics = request(&host, "GET", "/metrics", "");
    let count = metrics
        .lines()
        .find_map(|line| line.strip_prefix("dyno_audit_refused_operations_total "));
    assert!(count.unwrap().parse::<u64>().unwrap() >= 4, "{metrics}");
}

/// One connection that is used again and again.
struct Client(BufReader<UnixStream>);

impl Client {
    fn new(host: &Host) -> Self {
        let stream = UnixStream::connect(host.socket()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(BufReader::new(stream))
    }

    /// Asks for a change of a dyno that is not there.
    fn change(&mut self, id: &str) {
        let request = format!(
            "DELETE /v1/dynos/nosuch HTTP/1.1\r\nHost: hostd\r\nX-Request-Id: {id}\r\n\r\n"
        );
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0);
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
        }
        self.0.read_exact(&mut vec![0; length]).unwrap();
    }
}

/// So many clients ask for so many changes each, all at once: `CLIENT-NUMBER`.
fn flood(host: &Host, clients: usize, each: usize) {
    std::thread::scope(|scope| {
        for client in 0..clients {
            scope.spawn(move || {
                let mut connection = Client::new(host);
                for number in 0..each {
                    connection.change(&format!("{client}-{number}"));
                }
            });
        }
    });
}

#[test]
fn of_many_clients_at_once_no_line_is_lost_or_doubled_and_each_keeps_its_order() {
    const CLIENTS: usize = 8;
    const EACH: usize = 150;
    let host = Host::start();
    flood(&host, CLIENTS, EACH);
    let mut states: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut last = [(0, 0); CLIENTS];
    for line in lines(&host) {
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        let Some((client, number)) =
            text("request")
                .split_once('-')
                .and_then(|(client, number)| {
                    Some((client.parse::<usize>().ok()?, number.parse::<usize>().ok()?))
                })
        else {
            continue;
        };
        if client >= CLIENTS {
            continue;
        }
        states
            .entry(text("request"))
            .or_default()
            .push(text("state"));
        let next = (number, line["id"].as_u64().unwrap());
        assert!(next >= last[client], "{line}");
        last[client] = next;
    }
    assert_eq!(states.len(), CLIENTS * EACH);
    assert!(states.values().all(|states| states == &["running", "done"]));
    let told = entries(&host, &["--operation", "dyno.remove"]);
    assert_eq!(told.len(), CLIENTS * EACH);
}

#[test]
fn it_takes_no_more_than_its_size_and_keeps_the_newest() {
    let mut host = Host::start_with(&["--audit-size", "1"]);
    let size = |host: &Host| -> u64 {
        let files = fs::read_dir(folder(host)).unwrap();
        files
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum()
    };
    for round in 0..6 {
        flood(&host, 4, 150);
        assert!(size(&host) <= 1 << 20, "{} after {round}", size(&host));
        if round == 3 {
            host.kill_and_restart();
        }
    }
    assert!(!folder(&host).join("00000001.jsonl").exists());
    let told = entries(&host, &["--operation", "dyno.remove"]);
    assert!(told.len() > 1000 && told.len() < 3600, "{}", told.len());
    let ids: Vec<u64> = told
        .iter()
        .map(|entry| entry["id"].as_u64().unwrap())
        .collect();
    assert!(ids.iter().max().unwrap() >= &3600);
}

#[test]
fn who_is_not_known_or_may_not_fills_nothing() {
    let host = Host::start_with(&["--listen", "127.0.0.1:0"]);
    let key = token(&host, "key", "read", &[]);
    let before = lines(&host).len();
    for _ in 0..5 {
        let answer = key.with("wrong").ask("POST", "/v1/dynos", "{}");
        assert_eq!(status(&answer), 401);
    }
    assert_eq!(lines(&host).len(), before);
    let metrics = request(&host, "GET", "/metrics", "");
    assert!(
        metrics.contains("dyno_api_unauthorized_requests_total 5"),
        "{metrics}"
    );
    for _ in 0..100 {
        assert_eq!(status(&key.ask("POST", "/v1/dynos/web/stop", "")), 403);
    }
    let refused: Vec<Value> = lines(&host).drain(before..).collect();
    // A minute may have turned meanwhile.
    assert!((60..100).contains(&refused.len()), "{}", refused.len());
    let first = &refused[0];
    assert_eq!(
        (&first["status"], &first["error"]),
        (&403.into(), &"forbidden".into())
    );
    assert_eq!(
        (&first["operation"], &first["target"]),
        (&"dyno.stop".into(), &"web".into())
    );
    assert_eq!(
        (&first["caller"]["name"], &first["state"]),
        (&"key".into(), &"done".into())
    );
}

#[test]
fn a_sane_request_id_comes_back_and_any_other_is_replaced() {
    let host = Host::start_with(&["--listen", "127.0.0.1:0"]);
    let key = token(&host, "key", "read", &[]);
    let of = |answer: &str| {
        let head = answer.split_once("\r\n\r\n").unwrap().0.to_lowercase();
        let line = head
            .lines()
            .find_map(|line| line.strip_prefix("x-request-id: "));
        line.unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    let asked = |header: &str, path: &str| of(&ask(&host, "GET", path, header, ""));
    assert_eq!(asked("X-Request-Id: a-1.B_2", "/v1/version"), "a-1.b_2");
    let mut made = std::collections::BTreeSet::new();
    let long = format!("X-Request-Id: {}", "x".repeat(65));
    for hostile in [
        "Accept: */*",
        "X-Request-Id: ",
        "X-Request-Id: a b",
        "X-Request-Id: a\"b",
        "X-Request-Id: \u{e9}",
        "X-Request-Id: a\r\nX-Request-Id: b",
        &long,
    ] {
        for path in ["/v1/version", "/nosuch"] {
            let id = asked(hostile, path);
            let plain = id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            assert!(plain && id.len() < 40 && id.len() > 4, "{hostile}: {id}");
            assert!(made.insert(id), "{hostile}");
        }
    }
    // Of a refusal, too.
    of(&key.ask("POST", "/v1/dynos", ""));
    of(&key.with("wrong").ask("GET", "/v1/version", ""));
}

#[test]
fn only_the_scope_of_the_host_reads_it() {
    let host = Host::start_with(&["--listen", "127.0.0.1:0"]);
    let read = |key: &Key| key.ask("GET", "/v1/audit", "");
    let weak = token(&host, "weak", "read,logs,run,secrets", &[]);
    let answer = read(&weak);
    assert_eq!(status(&answer), 403);
    assert!(!answer.contains("hostd.start"), "{answer}");
    let strong = token(&host, "strong", "host", &[]);
    let answer = read(&strong);
    assert_eq!(status(&answer), 200);
    assert!(answer.contains("token.create"), "{answer}");
    // Who has read it is in it.
    let reads = entries(&host, &["--operation", "audit.list", "--caller", "strong"]);
    assert_eq!(reads.len(), 1);
    let answer = strong.ask("GET", "/v1/audit?limit=10001", "");
    assert_eq!(status(&answer), 400, "{answer}");
}
