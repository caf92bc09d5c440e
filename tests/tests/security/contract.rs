//! hostd and its OpenAPI document agree: schemathesis makes requests of the one, sends them
//! to the other, and compares the answers with what the document says.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use dyno_tests::host::Host;
use dyno_tests::random::seed;

use super::rig::{assert_sane, request, status};

/// What is compared: no answer 5xx, statuses, content types and bodies as documented, and
/// what a path has no method for.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_schema_conformance,unsupported_method,lines_conform,failures_are_told";

#[test]
fn whatever_is_asked_is_answered_as_the_document_says() {
    let host = Host::with_busybox();
    let address = forward(host.socket());
    ask(&host, address, "anything.toml", &[]);
    assert_sane(&host);
}

#[test]
fn what_there_is_answers_as_the_document_says() {
    let host = Host::with_busybox();
    let quick = ["--stop-grace", "1s"];
    let trap = [
        "busybox",
        "sh",
        "-c",
        "trap exit TERM; echo here; while :; do sleep 1; done",
    ];
    host.ok(&[
        &["run", "-d", "--name", "one", "-v", "data:/data"],
        &quick[..],
        &trap,
    ]
    .concat());
    host.ok(&["run", "-d", "--name", "ended", "busybox", "true"]);
    host.until_phase("ended", "exited");
    let set = request(&host, "PUT", "/v1/secrets/password", "x");
    assert_eq!(status(&set), 200, "{set}");
    let snapshots = "/v1/volumes/data/snapshots";
    let taken = request(
        &host,
        "POST",
        snapshots,
        r#"{"name": "first", "live": true}"#,
    );
    assert_eq!(status(&taken), 201, "{taken}");
    let address = forward(host.socket());
    ask(
        &host,
        address,
        "existing.toml",
        &["--include-path-regex", r"\{"],
    );
    for name in ["one", "ended"] {
        host.inspect(name);
    }
    assert_sane(&host);
}

/// Has schemathesis ask a bounded number of questions, many more in `make soak`.
fn ask(host: &Host, address: SocketAddr, config: &str, more: &[&str]) {
    let soak = std::env::var_os("DYNO_SOAK").is_some();
    let examples = if soak { "500" } else { "20" };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/security/contract");
    let program = program();
    assert!(
        program.is_file(),
        "{} is missing: `cargo xtask setup test` installs it",
        program.display()
    );
    let seed = seed();
    let output = Command::new(program)
        .arg("--config-file")
        .arg(folder.join(config))
        .args(["run", "--no-color", "--workers", "1", "--warnings", "off"])
        .args(["--phases", "coverage,fuzzing", "--max-examples", examples])
        .args(["--checks", CHECKS, "--seed", &seed.to_string()])
        .args(more)
        .arg(format!("http://{address}/v1/openapi.json"))
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", &folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // What it keeps, it keeps here.
        .current_dir(host.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "DYNO_SEED={seed}: {told}");
    // Otherwise nothing was asked.
    let asked = told.split_whitespace().collect::<Vec<_>>();
    let at = asked.iter().position(|word| *word == "generated,");
    let count = at.and_then(|at| asked[at - 1].parse::<u32>().ok());
    assert!(count.is_some_and(|count| count > 200), "{told}");
}

/// Where `cargo xtask setup test` puts it.
fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/schemathesis/bin/st")
}

/// An address in the test's own network that leads to hostd's socket: schemathesis speaks
/// TCP alone.
fn forward(socket: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, hostd) = (client.unwrap(), UnixStream::connect(&socket).unwrap());
            thread::spawn(move || join(&client, &hostd));
        }
    });
    address
}

/// Copies both ways until hostd has said all.
fn join(client: &TcpStream, hostd: &UnixStream) {
    thread::scope(|scope| {
        scope.spawn(|| {
            io::copy(&mut &*client, &mut &*hostd).ok();
            hostd.shutdown(Shutdown::Write).ok();
        });
        io::copy(&mut &*hostd, &mut &*client).ok();
        client.shutdown(Shutdown::Both).ok();
    });
}
