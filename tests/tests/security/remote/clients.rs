//! `dyno` as the client: it believes one host alone, and tells its token to nobody else.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use dyno_tests::host::Host;
use dyno_tests::{programs, until, write_file};

use super::{files_with, host};
use crate::tls::{Key, token};

/// `dyno` on the other side of the network, for this address.
fn dyno(host: &Host, key: &Key, address: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(programs().join("dyno"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("XDG_CONFIG_HOME", host.path().join("config"))
        .env("DYNO_HOST", format!("https://{address}"))
        .env("DYNO_CA", &key.pin)
        .env("DYNO_TOKEN", &key.secret)
        .stdin(Stdio::null())
        .args(arguments);
    command
}

/// A server of openssl's, until it is dropped.
struct Server {
    openssl: Child,
    address: String,
    seen: PathBuf,
}

impl Server {
    /// With this certificate and key, and whatever else it is told.
    fn start(folder: &Path, name: &str, options: &[&str]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let seen = folder.join(format!("{name}.seen"));
        let output = fs::File::create(&seen).unwrap();
        let openssl = Command::new("openssl")
            .current_dir(folder)
            .args(["s_server", "-accept", &address, "-quiet"])
            .args([
                "-cert",
                &format!("{name}.pem"),
                "-key",
                &format!("{name}.key"),
            ])
            .args(["-cert_chain", "ca.pem"])
            .args(options)
            // Its end is the server's.
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("openssl listens", || {
            std::net::TcpStream::connect(&address).is_ok()
        });
        Self {
            openssl,
            address,
            seen,
        }
    }

    /// What it has read of its clients.
    fn seen(&self) -> String {
        fs::read_to_string(&self.seen).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.openssl.kill().unwrap();
        self.openssl.wait().unwrap();
    }
}

pub(super) fn openssl(folder: &Path, arguments: &[&str]) {
    let mut openssl = Command::new("openssl");
    let output = openssl.current_dir(folder).args(arguments).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// What `openssl ca` has to be told.
const AUTHORITY: &str = "[ca]\ndefault_ca = d\n[d]\nnew_certs_dir = .\ndatabase = index\n\
                         rand_serial = yes\ndefault_md = sha256\npolicy = p\n\
                         unique_subject = no\n[p]\ncommonName = supplied\n";

/// Has the host's own authority, whose key a thief has, sign a key of theirs for this
/// purpose, until the end of this year.
pub(super) fn forge(host: &Host, folder: &Path, name: &str, purpose: &str, year: u16) {
    let file = |suffix: &str| format!("{name}.{suffix}");
    let extensions =
        format!("subjectAltName = DNS:localhost, IP:127.0.0.1\nextendedKeyUsage = {purpose}\n");
    write_file(&folder.join("extensions"), &extensions);
    write_file(&folder.join("ca.cnf"), AUTHORITY);
    write_file(&folder.join("index"), "");
    let certificate = host.path().join("state/remote/ca.pem");
    fs::copy(certificate, folder.join("ca.pem")).unwrap();
    let mut request = vec![
        "req",
        "-new",
        "-subj",
        "/CN=hostd",
        "-nodes",
        "-newkey",
        "ec",
    ];
    request.extend(["-pkeyopt", "ec_paramgen_curve:P-256"]);
    let (key, csr, pem) = (file("key"), file("csr"), file("pem"));
    request.extend(["-keyout", &key, "-out", &csr]);
    openssl(folder, &request);
    let authority = host.path().join("remote.key");
    let (authority, end) = (authority.to_string_lossy(), format!("{year}1231000000Z"));
    let mut sign = vec!["ca", "-batch", "-notext", "-config", "ca.cnf", "-in", &csr];
    sign.extend(["-cert", "ca.pem", "-keyfile", &authority, "-out", &pem]);
    sign.extend(["-extfile", "extensions", "-startdate", "20200101000000Z"]);
    sign.extend(["-enddate", &end]);
    openssl(folder, &sign);
}

#[track_caller]
fn refuses(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(9), "{said}");
    assert!(said.contains(why), "{said}");
}

#[test]
fn a_host_that_is_another_is_told_nothing() {
    let host = host();
    let key = token(&host, "key", "read", &[]);
    let folder = host.path().join("forged");
    fs::create_dir(&folder).unwrap();
    let server = "serverAuth";
    forge(&host, &folder, "good", server, 2099);
    let ask = |address: &str, key: &Key| dyno(&host, key, address, &["ps"]).output().unwrap();

    // The control: what the authority has signed is believed, and told the token.
    let good = Server::start(&folder, "good", &["-tls1_3"]);
    let mut believed = dyno(&host, &key, &good.address, &["ps"]).spawn().unwrap();
    until("the token is told", || good.seen().contains(&key.secret));
    believed.kill().unwrap();
    believed.wait().unwrap();

    let other = Key {
        pin: format!("sha256:{}", "0".repeat(64)),
        ..key.clone()
    };
    refuses(&ask(&key.address.to_string(), &other), "is not signed by");
    let another = Server::start(&folder, "good", &["-tls1_3"]);
    refuses(&ask(&another.address, &other), "is not signed by");
    assert_eq!(another.seen(), "");

    // The right authority in the chain, and somebody else's signature.
    openssl(
        &folder,
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=hostd",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-days",
            "2",
            "-keyout",
            "own.key",
            "-out",
            "own.pem",
        ],
    );
    let own = Server::start(&folder, "own", &["-tls1_3"]);
    refuses(&ask(&own.address, &key), "is not signed by");
    assert_eq!(own.seen(), "");

    // Its signature on what is for clients.
    forge(&host, &folder, "client", "clientAuth", 2099);
    let client = Server::start(&folder, "client", &["-tls1_3"]);
    refuses(&ask(&client.address, &key), "is not signed by");
    assert_eq!(client.seen(), "");

    forge(&host, &folder, "old", server, 2021);
    let old = Server::start(&folder, "old", &["-tls1_3"]);
    refuses(&ask(&old.address, &key), "compare the clocks");
    assert_eq!(old.seen(), "");
}

#[test]
fn no_older_tls_is_spoken() {
    let host = host();
    let key = token(&host, "key", "read", &[]);
    let folder = host.path().join("forged");
    fs::create_dir(&folder).unwrap();
    forge(&host, &folder, "good", "serverAuth", 2099);
    let older = Server::start(&folder, "good", &["-tls1_2"]);
    let output = dyno(&host, &key, &older.address, &["ps"]).output().unwrap();
    refuses(&output, "does not speak TLS 1.3");
    assert_eq!(older.seen(), "");
}

#[test]
fn a_token_is_in_no_argument_no_list_and_no_log() {
    let host = host();
    let key = token(&host, "key", "read,logs,run", &[]);
    let address = key.address.to_string();
    let url = format!("https://{address}");
    let run = |arguments: &[&str]| {
        let output = dyno(&host, &key, &address, arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains(&key.secret[5..]), "{arguments:?}: {text}");
    };
    run(&["ctx", "add", "box", &url, "--ca", &key.pin]);
    run(&["ctx", "ls"]);
    run(&["ctx", "ls", "--json"]);
    run(&[
        "--ctx", "box", "run", "-d", "--name", "one", "host", "sleep", "1000",
    ]);
    run(&["--ctx", "box", "inspect", "one"]);

    let mut events = Command::new(programs().join("dyno"));
    let mut events = events
        .env("XDG_CONFIG_HOME", host.path().join("config"))
        .args(["--ctx", "box", "events", "--since", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = events.stdout.take().unwrap();
    crate::tls::read_until(&mut stdout, "one");
    let of = |file: &str| fs::read(format!("/proc/{}/{file}", events.id())).unwrap();
    for file in ["cmdline", "environ"] {
        let shown = String::from_utf8_lossy(&of(file)).into_owned();
        assert!(!shown.contains(&key.secret[5..]), "{file}: {shown}");
    }
    events.kill().unwrap();
    events.wait().unwrap();

    // One file has it, and it is nobody else's.
    let kept = host.path().join("config/dyno/tokens/box");
    assert_eq!(
        files_with(host.path(), &key.secret[5..]),
        [kept.to_string_lossy()]
    );
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&kept), 0o600);
    assert_eq!(mode(kept.parent().unwrap()), 0o700);
    // An option for it there is none.
    for word in ["--token", "--secret"] {
        let wrong = ["ctx", "add", "x", &url, "--ca", &key.pin, word, &key.secret];
        let output = dyno(&host, &key, &address, &wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}

#[test]
fn a_token_goes_to_no_host_but_its_own() {
    let host = host();
    let key = token(&host, "key", "read", &[]);
    let folder = host.path().join("forged");
    fs::create_dir(&folder).unwrap();
    forge(&host, &folder, "good", "serverAuth", 2099);
    let server = Server::start(&folder, "good", &["-tls1_3"]);
    let address = key.address.to_string();
    let url = format!("https://{}", server.address);
    let of_context = "dyno_context";
    let mut add = dyno(&host, &key, &address, &["ctx", "add", "box", &url]);
    assert!(
        add.env("DYNO_TOKEN", of_context)
            .status()
            .unwrap()
            .success()
    );
    // The variable is for --host and DYNO_HOST.
    let mut ps = dyno(&host, &key, &address, &["--ctx", "box", "ps"])
        .spawn()
        .unwrap();
    until("a token is told", || server.seen().contains("Bearer"));
    ps.kill().unwrap();
    ps.wait().unwrap();
    let seen = server.seen();
    assert!(
        seen.contains(of_context) && !seen.contains(&key.secret),
        "{seen}"
    );
}

#[test]
fn a_certificate_that_is_refused_is_told() {
    let host = host();
    let key = token(&host, "key", "read", &[]);
    let folder = host.path().join("forged");
    fs::create_dir(&folder).unwrap();
    forge(&host, &folder, "old", "clientAuth", 2021);
    let both = ["old.pem", "old.key"].map(|name| fs::read_to_string(folder.join(name)).unwrap());
    let file = folder.join("both.pem");
    write_file(&file, &both.concat());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    // The host says so after TLS stands for us: it is heard whatever comes first.
    for _ in 0..10 {
        let mut ps = dyno(&host, &key, &key.address.to_string(), &["ps"]);
        let output = ps.env_remove("DYNO_TOKEN").env("DYNO_CERT", &file).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(10), "{said}");
        assert!(said.contains("refuses the certificate"), "{said}");
    }
}
