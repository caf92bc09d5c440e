//! Certificates of clients: which are let in, and that they end as tokens do (P20).

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use dyno_tests::host::Host;
use dyno_tests::until;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;

use super::clients::{forge, openssl};
use super::host;
use crate::rig::status;
use crate::tls::{Key, Tls, read_until, rest, token};

/// Shows a certificate with a key, whether they belong together or not.
#[derive(Debug, Clone)]
struct Shown(Arc<CertifiedKey>);

impl Shown {
    fn of(certificate: &Path, key: &Path) -> Self {
        let certificate = CertificateDer::from_pem_file(certificate).unwrap();
        let key = any_ecdsa_type(&PrivateKeyDer::from_pem_file(key).unwrap()).unwrap();
        Self(Arc::new(CertifiedKey::new(vec![certificate], key)))
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A certificate that the host has made, and its key.
#[track_caller]
fn certificate(host: &Host, name: &str, scopes: &str, more: &[&str]) -> Shown {
    let file = host.path().join(name).with_extension("pem");
    let path = file.to_string_lossy().into_owned();
    let arguments = ["token", "create", "--scope", scopes, "--cert", &path, name];
    host.ok(&[&arguments, more].concat());
    Shown::of(&file, &file)
}

fn connect(key: &Key, shown: &Shown) -> std::io::Result<Tls> {
    key.connect_with(&[&TLS13], Some(Arc::new(shown.clone())))
}

/// A request without any token; what comes back.
fn ask(key: &Key, shown: &Shown, method: &str, path: &str) -> String {
    let Ok(mut stream) = connect(key, shown) else {
        return String::new();
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: hostd\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    // Who is refused may be closed to by now.
    stream.write_all(request.as_bytes()).ok();
    rest(&mut stream)
}

#[test]
fn a_certificate_has_the_scopes_of_its_token_and_no_other() {
    let host = host();
    let key = token(&host, "key", "read", &[]);
    let reader = certificate(&host, "reader", "read", &[]);
    let answer = ask(&key, &reader, "GET", "/v1/dynos");
    assert_eq!(status(&answer), 200, "{answer}");
    for (method, path) in [("GET", "/v1/tokens"), ("POST", "/v1/certificates")] {
        let answer = ask(&key, &reader, method, path);
        assert_eq!(status(&answer), 403, "{answer}");
        assert!(answer.contains("`host`"), "{answer}");
    }
    // One that is shown with a secret is as good as the secret.
    let mut both = connect(&key, &reader).unwrap();
    let request = key
        .with("wrong")
        .request("GET", "/v1/dynos", "", "Connection: close");
    both.write_all(request.as_bytes()).unwrap();
    assert_eq!(status(&rest(&mut both)), 401);
}

#[test]
fn no_certificate_is_made_that_is_stronger_than_its_makers_token() {
    let host = host();
    let key = token(&host, "key", "read,host", &["--expires", "1h"]);
    openssl(
        host.path(),
        &[
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
            "k",
        ],
    );
    openssl(host.path(), &["ec", "-in", "k", "-pubout", "-out", "k.pub"]);
    let public = fs::read_to_string(host.path().join("k.pub")).unwrap();
    let make = |token: &str, public: &str| {
        let body = format!(r#"{{"token": {token}, "public_key": {public:?}}}"#);
        key.ask("POST", "/v1/certificates", &body)
    };
    for token in [
        r#"{"name": "a", "scopes": ["read", "run"], "expires_in": 60}"#,
        r#"{"name": "a", "scopes": ["read"]}"#,
        r#"{"name": "a", "scopes": ["read"], "expires_in": 7200}"#,
    ] {
        let answer = make(token, &public);
        assert_eq!(status(&answer), 403, "{token}: {answer}");
    }
    let fine = r#"{"name": "a", "scopes": ["read"], "expires_in": 60}"#;
    for wrong in [
        "",
        "x",
        &public.replace("PUBLIC", "PRIVATE"),
        &public.replace("MFk", "MFo"),
    ] {
        let answer = make(fine, wrong);
        assert_eq!(status(&answer), 400, "{wrong}: {answer}");
    }
    let answer = make(fine, &public);
    assert_eq!(status(&answer), 201, "{answer}");
    assert!(answer.contains("BEGIN CERTIFICATE"), "{answer}");
}

#[test]
fn what_the_authority_has_not_signed_for_a_client_is_refused() {
    let host = host();
    let key = token(&host, "key", "read", &[]);
    let good = certificate(&host, "good", "read", &[]);
    let folder = host.path().join("forged");
    fs::create_dir(&folder).unwrap();
    let shown =
        |certificate: &str, key: &str| Shown::of(&folder.join(certificate), &folder.join(key));
    // Signed by a thief of the authority's key: for a server, and until years ago.
    forge(&host, &folder, "server", "serverAuth", 2099);
    forge(&host, &folder, "old", "clientAuth", 2021);
    let mut own = vec![
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-nodes",
        "-subj",
        "/CN=dyno host",
    ];
    own.extend(["-pkeyopt", "ec_paramgen_curve:P-256", "-days", "2"]);
    own.extend(["-addext", "extendedKeyUsage=clientAuth"]);
    own.extend(["-keyout", "own.key", "-out", "own.pem"]);
    openssl(&folder, &own);
    // Stolen, without its key.
    let stolen = Shown::of(&host.path().join("good.pem"), &folder.join("own.key"));
    for (what, shown) in [
        ("a server's", shown("server.pem", "server.key")),
        ("an old one", shown("old.pem", "old.key")),
        ("another authority's", shown("own.pem", "own.key")),
        ("a stolen one", stolen),
    ] {
        let answer = ask(&key, &shown, "GET", "/v1/dynos");
        assert!(!answer.contains("HTTP"), "{what}: {answer}");
    }
    // One that it has signed and that no record knows: TLS lets it in, and that is all.
    forge(&host, &folder, "unknown", "clientAuth", 2099);
    let unknown = shown("unknown.pem", "unknown.key");
    assert_eq!(status(&ask(&key, &unknown, "GET", "/v1/dynos")), 401);
    // The control.
    assert_eq!(status(&ask(&key, &good, "GET", "/v1/dynos")), 200);
}

#[test]
fn a_certificate_ends_with_its_token_and_what_goes_on_over_it() {
    let mut host = host();
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
    let key = token(&host, "key", "read", &[]);
    let (gone, ending) = (
        certificate(&host, "gone", "read,logs", &[]),
        certificate(&host, "ending", "read,logs", &["--expires", "8s"]),
    );
    let follow = |shown: &Shown| {
        let mut stream = connect(&key, shown).unwrap();
        let request = "GET /v1/dynos/one/logs?follow=true HTTP/1.1\r\nHost: hostd\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        read_until(&mut stream, "here");
        stream
    };
    let (mut first, mut second) = (follow(&gone), follow(&ending));
    host.ok(&["token", "rm", "gone"]);
    rest(&mut first);
    assert_eq!(status(&ask(&key, &gone, "GET", "/v1/dynos")), 401);
    rest(&mut second);
    // A certificate ends with a whole second, and TLS does not let it in any more then.
    until("TLS lets it in no more", || {
        !ask(&key, &ending, "GET", "/v1/dynos").contains("HTTP")
    });
    // A certificate that was taken away is none after a restart either; others are.
    let kept = certificate(&host, "kept", "read", &[]);
    host.kill_and_restart();
    let key = token(&host, "again", "read", &[]);
    assert_eq!(status(&ask(&key, &gone, "GET", "/v1/dynos")), 401);
    assert_eq!(status(&ask(&key, &kept, "GET", "/v1/dynos")), 200);
}
