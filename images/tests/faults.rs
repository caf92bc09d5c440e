//! Pulls from a registry that misbehaves, on loopback, byte by byte as the test wants it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod rig;

use std::time::{Duration, Instant};

use dyno_images::{
    BlobError, Credentials, Digest, DocumentError, Image, IngestError, PullError, PullOptions,
    Reference, RegistryError,
};
use rig::server::{Fixture, Reply, Request, Server, reply};
use rig::{OCI_INDEX, OCI_MANIFEST, Rig};
use serde_json::json;

fn options() -> PullOptions {
    PullOptions {
        attempts: 3,
        patience: Duration::from_secs(2),
        ..PullOptions::default()
    }
}

async fn pull(server: &Server, options: &PullOptions) -> (Rig, Result<Image, IngestError>) {
    let rig = Rig::new();
    let result = rig.store.pull(&server.reference(), options, |_| {}).await;
    let result = result.map_err(|error| match error {
        PullError::Failed { source, .. } => *source,
        PullError::BuiltIn => panic!("{error}"),
    });
    rig.assert_tidy();
    if result.is_err() {
        assert!(rig.store.list().unwrap().is_empty());
        assert_eq!(rig.count("layers"), 0);
    }
    (rig, result)
}

#[track_caller]
fn registry_error(result: Result<Image, IngestError>) -> RegistryError {
    match result {
        Err(IngestError::Registry(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_download_that_breaks_off_is_resumed_where_it_stopped() {
    let fixture = Fixture::new();
    let (parts, half) = (fixture.clone(), fixture.layer.len() / 2);
    let server = Server::start(move |request, before| match before {
        0 if request.path == parts.layer_path() => parts.truncated(half),
        _ => parts.serve(request),
    })
    .await;
    let (rig, result) = pull(&server, &options()).await;
    result.unwrap();
    let asked = server.requests(&fixture.layer_path());
    assert_eq!(asked.len(), 2);
    let range = asked[1].headers.get("range").unwrap();
    let at: usize = range
        .trim_start_matches("bytes=")
        .trim_end_matches('-')
        .parse()
        .unwrap();
    assert!(at > 0 && at <= half, "{range}");
    let stored = std::fs::read(rig.blob(&Digest::of(&fixture.layer))).unwrap();
    assert!(stored == fixture.layer);
}

#[tokio::test]
async fn a_server_that_cannot_resume_is_asked_for_the_whole() {
    let fixture = Fixture::new();
    let parts = fixture.clone();
    let server = Server::start(move |request, before| match before {
        _ if request.path != parts.layer_path() => parts.serve(request),
        0 => parts.truncated(100_000),
        // Another range than asked for, then no range at all.
        1 => reply(
            "206 Partial Content",
            &[("content-range", "bytes 7-9/10")],
            b"xyz",
        ),
        _ => reply("200 OK", &[], &parts.layer),
    })
    .await;
    let (_, result) = pull(&server, &options()).await;
    result.unwrap();
}

#[tokio::test]
async fn tries_are_bounded_and_the_error_says_how_far_it_came() {
    let fixture = Fixture::new();
    let parts = fixture.clone();
    let server = Server::start(move |request, _| match request.path == parts.layer_path() {
        true => reply(
            "206 Partial Content",
            &[("content-range", "bytes 0-0/1")],
            b"",
        ),
        false => parts.serve(request),
    })
    .await;
    let (_, result) = pull(&server, &options()).await;
    let error = registry_error(result);
    assert!(
        matches!(
            error,
            RegistryError::Truncated {
                at: 0,
                attempts: 3,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(server.requests(&fixture.layer_path()).len(), 3);
}

#[tokio::test]
async fn wrong_content_is_refused_and_both_digests_are_named() {
    let fixture = Fixture::new();
    let parts = fixture.clone();
    let mut wrong = fixture.layer.clone();
    wrong[50] ^= 1;
    let served = wrong.clone();
    let server = Server::start(move |request, _| match request.path == parts.layer_path() {
        true => reply("200 OK", &[], &served),
        false => parts.serve(request),
    })
    .await;
    let (rig, result) = pull(&server, &options()).await;
    let error = result.unwrap_err();
    assert!(
        matches!(error, IngestError::Blob(BlobError::Digest { .. })),
        "{error}"
    );
    for digest in [Digest::of(&fixture.layer), Digest::of(&wrong)] {
        assert!(error.to_string().contains(&digest.to_string()), "{error}");
        assert!(!rig.blob(&digest).exists());
    }
}

#[tokio::test]
async fn more_than_announced_is_cut_off() {
    let fixture = Fixture::new();
    let parts = fixture.clone();
    let server = Server::start(move |request, _| match request.path == parts.layer_path() {
        true => reply("200 OK", &[], &[&parts.layer[..], b"more"].concat()),
        false => parts.serve(request),
    })
    .await;
    let error = registry_error(pull(&server, &options()).await.1);
    assert!(matches!(error, RegistryError::TooLong { .. }), "{error}");
    // P15: a manifest without end.
    let server = Server::start(|_, _| {
        reply(
            "200 OK",
            &[("content-type", OCI_MANIFEST)],
            &vec![b' '; (4 << 20) + 1],
        )
    })
    .await;
    let error = registry_error(pull(&server, &options()).await.1);
    assert!(
        matches!(
            error,
            RegistryError::TooLong {
                limit: 4_194_304,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_as_late_as_it_wants() {
    let fixture = Fixture::new();
    let server = Server::start(move |request, before| match before {
        0 => reply("429 Too Many Requests", &[("retry-after", "1")], b""),
        1 => reply("503 Service Unavailable", &[], b""),
        _ => fixture.serve(request),
    })
    .await;
    let start = Instant::now();
    let (_, result) = pull(&server, &options()).await;
    result.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));

    let server = Server::start(|_, _| reply("500 Oops", &[], b"the disk \x1b[31m is full")).await;
    let error = registry_error(pull(&server, &options()).await.1);
    let RegistryError::Status { body, .. } = &error else {
        panic!("{error}")
    };
    assert!(body.contains("is full") && !body.contains('\x1b'), "{body}");
    assert_eq!(server.requests("").len(), 3);
    // What will not change is not tried again.
    let server = Server::start(|_, _| reply("400 Bad Request", &[], b"")).await;
    registry_error(pull(&server, &options()).await.1);
    assert_eq!(server.requests("").len(), 1);
}

#[tokio::test]
async fn silence_ends_with_the_patience() {
    let options = PullOptions {
        attempts: 1,
        patience: Duration::from_millis(300),
        ..options()
    };
    let fixture = Fixture::new();
    let head = Server::start(|_, _| Reply {
        bytes: Vec::new(),
        hang: true,
    })
    .await;
    let parts = fixture.clone();
    let body = Server::start(move |request, _| match request.path == parts.layer_path() {
        true => Reply {
            hang: true,
            ..parts.truncated(1000)
        },
        false => parts.serve(request),
    })
    .await;
    for server in [head, body] {
        let start = Instant::now();
        let error = registry_error(pull(&server, &options).await.1);
        assert!(matches!(error, RegistryError::Silent { .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn garbage_instead_of_http_is_an_error() {
    let server = Server::start(|_, _| Reply {
        bytes: b"SSH-2.0-OpenSSH\r\n\r\n".to_vec(),
        hang: false,
    })
    .await;
    let error = registry_error(pull(&server, &options()).await.1);
    assert!(matches!(error, RegistryError::Http { .. }), "{error}");
}

fn ann() -> PullOptions {
    let credentials = Credentials {
        user: "ann".to_owned(),
        password: "secret".to_owned(),
    };
    PullOptions {
        credentials: Some(credentials),
        ..options()
    }
}

// P10
#[tokio::test]
async fn a_redirect_takes_the_content_but_no_credentials_elsewhere() {
    let fixture = Fixture::new();
    let parts = fixture.clone();
    let elsewhere = Server::start(move |request, _| match request.path.strip_prefix("/cdn") {
        Some(path) => parts.serve(&Request {
            path: path.to_owned(),
            ..request.clone()
        }),
        None => reply("404 Not Found", &[], b""),
    })
    .await;
    let (parts, port) = (fixture.clone(), elsewhere.port);
    let registry = Server::start(move |request, _| {
        if !request.headers.contains_key("authorization") {
            return reply(
                "401 Unauthorized",
                &[("www-authenticate", "Basic realm=\"x\"")],
                b"",
            );
        }
        match request.path == parts.layer_path() {
            true => {
                let to = format!("http://127.0.0.1:{port}/cdn{}", request.path);
                reply("307 Temporary Redirect", &[("location", &to)], b"")
            }
            false => parts.serve(request),
        }
    })
    .await;
    pull(&registry, &ann()).await.1.unwrap();
    let (here, there) = (registry.requests(""), elsewhere.requests(""));
    assert!(
        there.len() == 1 && !there[0].headers.contains_key("authorization"),
        "{there:?}"
    );
    // Positive control: the registry itself got it each time but the first.
    let with = here
        .iter()
        .filter(|request| request.headers.contains_key("authorization"));
    assert_eq!(with.count(), here.len() - 1);
}

// P10: a challenge that comes from where a redirect led is not answered.
#[tokio::test]
async fn a_redirect_target_cannot_ask_for_the_password() {
    let fixture = Fixture::new();
    let thief = Server::start(|_, _| {
        reply(
            "401 Unauthorized",
            &[("www-authenticate", "Basic realm=\"x\"")],
            b"",
        )
    })
    .await;
    let port = thief.port;
    let registry = Server::start(
        move |request, _| match request.path == fixture.layer_path() {
            true => {
                let to = format!("http://127.0.0.1:{port}/blob");
                reply("302 Found", &[("location", &to)], b"")
            }
            false => fixture.serve(request),
        },
    )
    .await;
    let error = registry_error(pull(&registry, &ann()).await.1);
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
    assert!(
        thief
            .requests("")
            .iter()
            .all(|request| !request.headers.contains_key("authorization"))
    );
}

#[tokio::test]
async fn redirects_end() {
    let server = Server::start(|request, _| {
        reply(
            "302 Found",
            &[("location", &format!("{}x", request.path))],
            b"",
        )
    })
    .await;
    let error = registry_error(pull(&server, &options()).await.1);
    assert!(matches!(error, RegistryError::Redirect { .. }), "{error}");
    assert!(server.requests("").len() < 10);
}

#[tokio::test]
async fn a_token_is_fetched_with_the_password_and_used_instead_of_it() {
    let fixture = Fixture::new();
    let tokens = Server::start(|request, _| {
        let basic = request.headers.get("authorization").map(String::as_str);
        match basic == Some("Basic YW5uOnNlY3JldA==") {
            true => reply("200 OK", &[], br#"{"token":"T0ken","expires_in":60}"#),
            false => reply("401 Unauthorized", &[], b""),
        }
    })
    .await;
    let challenge = format!(
        "Bearer realm=\"http://127.0.0.1:{}/token\",service=\"reg\",scope=\"repository:app:push\"",
        tokens.port
    );
    let registry = Server::start(move |request, _| {
        match request.headers.get("authorization").map(String::as_str) {
            Some("Bearer T0ken") => fixture.serve(request),
            _ => reply("401 Unauthorized", &[("www-authenticate", &challenge)], b""),
        }
    })
    .await;
    pull(&registry, &ann()).await.1.unwrap();
    let asked = tokens.requests("/token");
    assert_eq!(asked.len(), 1, "the token serves for everything");
    assert_eq!(
        asked[0].path,
        "/token?service=reg&scope=repository:app:pull"
    );
    let sent: Vec<_> = registry
        .requests("")
        .into_iter()
        .filter_map(|r| r.headers.get("authorization").cloned())
        .collect();
    assert!(
        !sent.is_empty() && sent.iter().all(|value| value == "Bearer T0ken"),
        "{sent:?}"
    );

    let error = registry_error(pull(&registry, &options()).await.1);
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
}

// P9
#[tokio::test]
async fn documents_that_lie_are_refused() {
    let fixture = Fixture::new();
    let serve = |manifest: serde_json::Value, announced: &'static str| {
        let fixture = Fixture {
            manifest: manifest.to_string().into_bytes(),
            ..fixture.clone()
        };
        Server::start(
            move |request, _| match request.path.contains("/manifests/") {
                true => reply("200 OK", &[("content-type", announced)], &fixture.manifest),
                false => fixture.serve(request),
            },
        )
    };
    let honest = fixture.manifest_json();
    pull(&serve(honest.clone(), OCI_MANIFEST).await, &options())
        .await
        .1
        .unwrap();

    let result = pull(&serve(honest.clone(), OCI_INDEX).await, &options())
        .await
        .1;
    assert!(
        matches!(
            result,
            Err(IngestError::Document(DocumentError::MediaType { .. }))
        ),
        "{result:?}"
    );
    let mut both = honest.clone();
    both["manifests"] = json!([]);
    let result = pull(&serve(both, OCI_MANIFEST).await, &options()).await.1;
    assert!(
        matches!(result, Err(IngestError::Document(DocumentError::Ambiguous))),
        "{result:?}"
    );
    let mut path = honest.clone();
    path["layers"][0]["digest"] = json!("sha256:../../../../../../etc/passwd");
    let result = pull(&serve(path, OCI_MANIFEST).await, &options()).await.1;
    assert!(
        matches!(
            result,
            Err(IngestError::Document(DocumentError::Parse { .. }))
        ),
        "{result:?}"
    );
    let mut huge = honest.clone();
    huge["config"]["size"] = json!(1_u64 << 40);
    let result = pull(&serve(huge, OCI_MANIFEST).await, &options()).await.1;
    assert!(
        matches!(
            result,
            Err(IngestError::Document(DocumentError::TooLarge { .. }))
        ),
        "{result:?}"
    );
    let page = serve(json!("<html>"), "text/html").await;
    assert!(matches!(
        pull(&page, &options()).await.1,
        Err(IngestError::Document(_))
    ));
    let mut loop_forever = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []});
    let own = Digest::of(b"not itself");
    loop_forever["manifests"] = json!([{"mediaType": OCI_INDEX, "digest": own, "size": 10}]);
    let result = pull(&serve(loop_forever, OCI_INDEX).await, &options())
        .await
        .1;
    assert!(result.is_err());
}

#[tokio::test]
async fn a_pinned_digest_is_held_to() {
    let fixture = Fixture::new();
    let served = fixture.clone();
    let server = Server::start(move |request, _| served.serve(request)).await;
    let rig = Rig::new();
    let pinned = |digest: Digest| -> Reference {
        format!("127.0.0.1:{}/app@{digest}", server.port)
            .parse()
            .unwrap()
    };
    let right = Digest::of(&fixture.manifest);
    let image = rig
        .store
        .pull(&pinned(right), &options(), |_| {})
        .await
        .unwrap();
    assert_eq!(image.digest, right);
    let wrong = Digest::of(b"another");
    let Err(PullError::Failed { source, .. }) =
        rig.store.pull(&pinned(wrong), &options(), |_| {}).await
    else {
        panic!("another manifest than the pinned one was accepted")
    };
    let IngestError::Registry(RegistryError::Manifest { expected, actual }) = *source else {
        panic!("{source}")
    };
    assert_eq!((expected, actual), (wrong, right));
}
