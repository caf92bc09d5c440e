//! The store in etcd: Debian's, as a process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use dyno_cluster::store::etcd::{Certificate, Config, Etcd, TlsOptions};
use dyno_cluster::store::mirror::follow;
use dyno_cluster::store::{Error, Fresh, Outcome, Transaction};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustix::process::Signal;
use tokio::time::timeout;

use crate::etcd_rig::{Rig, Wish};
use crate::suite::{Any, done, get, promises};

pub async fn open() -> (Any, Rig) {
    let rig = Rig::one();
    (connect(&rig).await, rig)
}

pub async fn connect(rig: &Rig) -> Any {
    let endpoints = rig.endpoints();
    let config = Config {
        endpoints,
        ..Config::default()
    };
    let store: Any = Arc::new(Etcd::connect(config).await.unwrap());
    let begun = Instant::now();
    while let Err(error) = store.status().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "{error}");
    }
    store
}

promises!(open);

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_does_not_answer_is_waited_for_no_longer_than_said() {
    let (store, rig) = open().await;
    let at = done(&store, Transaction::new().create("a", "1")).await;
    rig.members[0].signal(Signal::STOP);
    let begun = Instant::now();
    let (read, written) = tokio::join!(store.get(b"a", Fresh::Latest), async {
        let next = Transaction::new().replace("a", at, "2");
        store.commit(&next).await
    });
    let error = read.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    let error = written.unwrap_err();
    assert!(matches!(error, Error::Uncertain(_)), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(15));
    rig.members[0].signal(Signal::CONT);
    let begun = Instant::now();
    let there = loop {
        match store.get(b"a", Fresh::Latest).await {
            Ok(read) => break read.value.unwrap(),
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}"),
        }
    };
    // It was done or not; sent again it is done once.
    let again = store
        .commit(&Transaction::new().replace("a", at, "2"))
        .await
        .unwrap();
    assert_eq!(
        matches!(again, Outcome::Committed { .. }),
        there.modified == at
    );
    assert_eq!(get(&store, "a").await.unwrap().value, b"2");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_follows_goes_on_after_etcd_was_killed() {
    let (store, mut rig) = open().await;
    let at = done(
        &store,
        Transaction::new().create("k/a", "1").create("k/b", "1"),
    )
    .await;
    let mut seen = follow(Arc::clone(&store), "k/", Duration::from_secs(30));
    let there = |n: usize| move |mirror: &Option<Arc<_>>| mirror_has(mirror.as_deref(), n);
    timeout(Duration::from_secs(10), seen.wait_for(there(2)))
        .await
        .unwrap()
        .unwrap();
    rig.members[0].kill();
    rig.members[0].start();
    rig.members[0].ready();
    let begun = Instant::now();
    let next = Transaction::new()
        .delete("k/a", at)
        .create("k/c", "")
        .create("k/d", "");
    loop {
        match store.commit(&next).await {
            Ok(_) => break,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}"),
        }
    }
    timeout(Duration::from_secs(20), seen.wait_for(there(3)))
        .await
        .unwrap()
        .unwrap();
}

fn mirror_has(mirror: Option<&dyno_cluster::store::mirror::Mirror>, count: usize) -> bool {
    mirror.is_some_and(|mirror| mirror.len() == count)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_without_space_says_so_and_is_written_again_afterwards() {
    let rig = Rig::new(&Wish {
        members: 1,
        arguments: vec!["--quota-backend-bytes=4194304".into()],
        ..Wish::default()
    });
    let store = connect(&rig).await;
    let mut at = done(&store, Transaction::new().create("k", "")).await;
    let full = loop {
        let next = Transaction::new().replace("k", at, vec![0; 200_000]);
        match store.commit(&next).await {
            Ok(Outcome::Committed { revision }) => at = revision,
            Ok(conflict @ Outcome::Conflict { .. }) => panic!("{conflict:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::Full(_)), "{full}");
    let alarms = store.status().await.unwrap().alarms;
    assert!(
        alarms.iter().any(|alarm| alarm.contains("no space")),
        "{alarms:?}"
    );
    store.compact(at).await.unwrap();
    rig.members[0].control(&["defrag"]);
    rig.members[0].control(&["alarm", "disarm"]);
    done(&store, Transaction::new().replace("k", at, "small")).await;
    assert_eq!(store.status().await.unwrap().alarms, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_one_may_be_killed_and_nothing_acknowledged_is_lost() {
    let mut rig = Rig::new(&Wish {
        members: 3,
        ..Wish::default()
    });
    let store = connect(&rig).await;
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let begun = Instant::now();
        let mut written = 0;
        while written < 20 {
            let key = format!("k/{round}/{written:02}");
            match store
                .commit(&Transaction::new().create(key.clone(), ""))
                .await
            {
                // One whose answer did not come may have been done.
                Ok(_) => {
                    acknowledged.push(key.into_bytes());
                    written += 1;
                }
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(40), "{error}"),
            }
            if written == 5 && rig.members[round].is_up() {
                rig.members[round].kill();
            }
        }
        rig.members[round].start();
        rig.members[round].ready();
    }
    let list = store.list(b"k/", Fresh::Latest).await.unwrap();
    let there: Vec<Vec<u8>> = list.value.into_iter().map(|entry| entry.key).collect();
    assert_eq!(there, acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_speaks_tls_with_whom_it_trusts_and_says_who_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority(folder.path());
    let rig = Rig::new(&Wish {
        members: 1,
        tls: Some(folder.path()),
        ..Wish::default()
    });
    let trusting = |pem: &str| TlsOptions::new().ca_certificate(Certificate::from_pem(pem));
    let config = |user: Option<(&str, &str)>, tls: TlsOptions| Config {
        endpoints: rig.endpoints(),
        tls: Some(tls),
        user: user.map(|(name, password)| (name.to_owned(), password.to_owned())),
    };
    let store = Etcd::connect(config(None, trusting(&authority)))
        .await
        .unwrap();
    let store: Any = Arc::new(store);
    done_at_last(&store, &Transaction::new().create("a", "1")).await;

    let other = authority_of(&KeyPair::generate().unwrap()).0;
    let stranger = Etcd::connect(config(None, trusting(&other))).await.unwrap();
    let refused = dyno_cluster::store::Store::get(&stranger, b"a", Fresh::Latest).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");

    let certificate = folder.path().join("ca.pem").display().to_string();
    let control = |arguments: &[&str]| {
        let trust = format!("--cacert={certificate}");
        rig.members[0].control(&[&[trust.as_str()], arguments].concat())
    };
    control(&["user", "add", "root:secret"]);
    control(&["user", "grant-role", "root", "root"]);
    control(&["user", "add", "host1:word"]);
    control(&["role", "add", "host1"]);
    control(&[
        "role",
        "grant-permission",
        "host1",
        "readwrite",
        "--prefix=true",
        "hosts/1/",
    ]);
    control(&["user", "grant-role", "host1", "host1"]);
    control(&["auth", "enable"]);

    let nobody = Etcd::connect(config(None, trusting(&authority)))
        .await
        .unwrap();
    let refused = dyno_cluster::store::Store::get(&nobody, b"a", Fresh::Latest).await;
    assert!(
        matches!(refused, Err(Error::Denied(_) | Error::Invalid(_))),
        "{refused:?}"
    );
    let wrong = Etcd::connect(config(Some(("host1", "guess")), trusting(&authority))).await;
    assert!(matches!(wrong, Err(Error::Denied(_))), "{wrong:?}");
    let host = Etcd::connect(config(Some(("host1", "word")), trusting(&authority)))
        .await
        .unwrap();
    let host: Any = Arc::new(host);
    done(&host, Transaction::new().create("hosts/1/state", "")).await;
    for other in ["hosts/2/state", "a"] {
        let refused = host.commit(&Transaction::new().create(other, "")).await;
        assert!(matches!(refused, Err(Error::Denied(_))), "{refused:?}");
    }
    let refused = host.list(b"hosts/", Fresh::Latest).await;
    assert!(matches!(refused, Err(Error::Denied(_))), "{refused:?}");
}

async fn done_at_last(store: &Any, transaction: &Transaction) {
    let begun = Instant::now();
    while let Err(error) = store.commit(transaction).await {
        assert!(begun.elapsed() < Duration::from_secs(30), "{error}");
    }
}

fn authority_of(key: &KeyPair) -> (String, CertificateParams) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(key).unwrap();
    (pem("CERTIFICATE", certificate.der()), params)
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|l| str::from_utf8(l).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

/// Makes an authority, and a certificate for 127.0.0.1, in this folder.
fn authority(folder: &std::path::Path) -> String {
    let key = KeyPair::generate().unwrap();
    let (trusted, params) = authority_of(&key);
    let issuer = Issuer::new(params, key);
    let server_key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let server = server.signed_by(&server_key, &issuer).unwrap();
    for (name, text) in [
        ("ca.pem", trusted.clone()),
        ("server.pem", pem("CERTIFICATE", server.der())),
        (
            "server.key",
            pem("PRIVATE KEY", &server_key.serialize_der()),
        ),
    ] {
        let mut file = std::fs::File::create(folder.join(name)).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    }
    trusted
}
