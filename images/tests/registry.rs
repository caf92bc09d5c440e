//! Pulls from a real registry: Debian's `docker-registry`, filled by `skopeo`.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod rig;

use std::collections::HashSet;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use dyno_images::{
    BlobError, Credentials, Digest, Image, IngestError, LayerId, Phase, Progress, PullError,
    PullOptions, Reference, RegistryError,
};
use rig::{Layout, Rig, Tar, gzip};

/// A `docker-registry` of this test's own.
struct Registry {
    process: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Registry {
    fn start() -> Registry {
        Registry::with("", |_| {})
    }

    /// `more` goes into its configuration, where `DIR` stands for its folder.
    fn with(more: &str, prepare: impl FnOnce(&Path)) -> Registry {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let dir = folder.path().display().to_string();
        let config = format!(
            "version: 0.1\nlog: {{level: info, formatter: json}}\n\
             storage: {{filesystem: {{rootdirectory: {dir}/data}}}}\n{}",
            if more.is_empty() {
                "http: {addr: '127.0.0.1:0'}\n"
            } else {
                more
            }
            .replace("DIR", &dir)
        );
        let path = folder.path().join("config.yml");
        rig::write(&path, config.as_bytes());
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let port = loop {
            let mut line = String::new();
            assert!(
                log.read_line(&mut line).unwrap() > 0,
                "the registry ended early"
            );
            if let Some((_, address)) = line.split_once("listening on 127.0.0.1:") {
                let digits: String = address.chars().take_while(char::is_ascii_digit).collect();
                break digits.parse().unwrap();
            }
        };
        // A full pipe would stop it.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Registry {
            process,
            port,
            folder,
        }
    }

    fn reference(&self, name: &str) -> Reference {
        format!("127.0.0.1:{}/{name}", self.port).parse().unwrap()
    }

    fn push(&self, layout: &Layout, name: &str, more: &[&str]) {
        let from = format!("oci:{}:{name}", layout.path().display());
        let to = format!("docker://{}", self.reference(name));
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"])
            .args(more)
            .args([from, to])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// The file in which it keeps a blob.
    fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let blobs = self
            .folder
            .path()
            .join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(&hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn layers() -> Vec<(Vec<u8>, Vec<u8>)> {
    let tars = [
        Tar::default().dir("etc").file("etc/name", "bottom").end(),
        Tar::default()
            .file("big", &"0123456789".repeat(100_000))
            .end(),
        Tar::default().file("etc/name", "top").end(),
    ];
    tars.map(|tar| (gzip(&tar), tar)).to_vec()
}

fn ids(layers: &[(Vec<u8>, Vec<u8>)]) -> Vec<LayerId> {
    layers
        .iter()
        .rev()
        .map(|(_, tar)| LayerId(Digest::of(tar)))
        .collect()
}

async fn pull(rig: &Rig, reference: &Reference, options: &PullOptions) -> Result<Image, PullError> {
    rig.store.pull(reference, options, |_| {}).await
}

/// Why the registry did not give it.
#[track_caller]
fn refused(result: Result<Image, PullError>) -> RegistryError {
    match result {
        Err(PullError::Failed { source, .. }) => match *source {
            IngestError::Registry(error) => error,
            other => panic!("{other}"),
        },
        other => panic!("{other:?}"),
    }
}

fn quick() -> PullOptions {
    PullOptions {
        attempts: 2,
        ..PullOptions::default()
    }
}

#[tokio::test]
async fn what_skopeo_pushed_is_pulled_in_either_format() {
    let registry = Registry::start();
    let layers = layers();
    let mut layout = Layout::new();
    layout.image("oci:1", &layers);
    layout.image("docker:1", &layers);
    registry.push(&layout, "oci:1", &["--format", "oci"]);
    registry.push(&layout, "docker:1", &["--format", "v2s2"]);
    for name in ["oci:1", "docker:1"] {
        let rig = Rig::new();
        let image = pull(&rig, &registry.reference(name), &quick())
            .await
            .unwrap();
        assert_eq!(image.layers, ids(&layers), "{name}");
        let top = image.layer_dirs()[0].join("etc/name");
        assert_eq!(fs::read_to_string(top).unwrap(), "top");
        assert_eq!(image.config.cmd, ["/bin/serve"]);
        // By digest, without the tag, it is the same image.
        let repository = name.split(':').next().unwrap();
        let pinned = registry.reference(&format!("{repository}@{}", image.digest));
        let again = pull(&rig, &pinned, &quick()).await.unwrap();
        assert_eq!((again.digest, again.layers), (image.digest, image.layers));
        rig.assert_tidy();
    }
}

#[tokio::test]
async fn only_what_is_missing_is_fetched() {
    let registry = Registry::start();
    let mut layout = Layout::new();
    layout.image("app:1", &layers()[..2]);
    layout.image("app:2", &layers());
    registry.push(&layout, "app:1", &[]);
    registry.push(&layout, "app:2", &[]);
    let rig = Rig::new();
    let fetched = async |name: &str| {
        let fetched = Mutex::new(HashSet::new());
        let watch = |progress: Progress| {
            if progress.phase == Phase::Fetching {
                fetched.lock().unwrap().insert(progress.layer);
            }
        };
        rig.store
            .pull(&registry.reference(name), &quick(), watch)
            .await
            .unwrap();
        fetched.into_inner().unwrap().len()
    };
    assert_eq!(
        (
            fetched("app:1").await,
            fetched("app:2").await,
            fetched("app:2").await
        ),
        (2, 1, 0)
    );
}

#[tokio::test]
async fn a_moved_tag_is_noticed() {
    let registry = Registry::start();
    let rig = Rig::new();
    let name = registry.reference("app:1");
    let mut digests = HashSet::new();
    for n in 1..=2 {
        let mut layout = Layout::new();
        layout.image("app:1", &layers()[..n]);
        registry.push(&layout, "app:1", &[]);
        let image = pull(&rig, &name, &quick()).await.unwrap();
        assert_eq!(image.layers, ids(&layers()[..n]));
        digests.insert(image.digest);
    }
    assert_eq!(digests.len(), 2);
    assert_eq!(rig.store.list().unwrap().len(), 1);
    assert_eq!(
        rig.store.collect(&HashSet::new()).unwrap().blobs,
        2,
        "old manifest and config"
    );
}

#[tokio::test]
async fn unknown_names_and_tags_are_not_found() {
    let registry = Registry::start();
    let mut layout = Layout::new();
    layout.image("app:1", &layers());
    registry.push(&layout, "app:1", &[]);
    let rig = Rig::new();
    let unknown = Digest::of(b"unknown");
    for name in ["app:2", "other:1", &format!("app@{unknown}")] {
        let error = refused(pull(&rig, &registry.reference(name), &quick()).await);
        assert!(
            matches!(error, RegistryError::NotFound { .. }),
            "{name}: {error}"
        );
    }
    assert!(matches!(
        pull(&rig, &Reference::host(), &quick()).await,
        Err(PullError::BuiltIn)
    ));
}

#[tokio::test]
async fn a_password_is_needed_and_suffices() {
    // bcrypt of "secret"
    let line = "ann:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
    let config =
        "http: {addr: '127.0.0.1:0'}\nauth: {htpasswd: {realm: test, path: DIR/htpasswd}}\n";
    let registry = Registry::with(config, |dir| {
        rig::write(&dir.join("htpasswd"), line.as_bytes())
    });
    let mut layout = Layout::new();
    layout.image("app:1", &layers());
    registry.push(&layout, "app:1", &["--dest-creds", "ann:secret"]);
    let rig = Rig::new();
    let name = registry.reference("app:1");
    let with = |password: &str| {
        let credentials = Credentials {
            user: "ann".to_owned(),
            password: password.to_owned(),
        };
        PullOptions {
            credentials: Some(credentials),
            ..quick()
        }
    };
    for options in [quick(), with("wrong")] {
        let error = refused(pull(&rig, &name, &options).await);
        assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
    }
    assert_eq!(rig.count("blobs/sha256"), 0);
    let image = pull(&rig, &name, &with("secret")).await.unwrap();
    assert_eq!(image.layers, ids(&layers()));
}

#[tokio::test]
async fn https_needs_a_certificate_that_is_trusted() {
    let config =
        "http: {addr: '127.0.0.1:0', tls: {certificate: DIR/cert.pem, key: DIR/key.pem}}\n";
    let registry = Registry::with(config, |dir| {
        let output = Command::new("openssl")
            .current_dir(dir)
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
            ])
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-keyout", "key.pem", "-out", "cert.pem"])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    });
    let mut layout = Layout::new();
    layout.image("app:1", &layers());
    registry.push(&layout, "app:1", &[]);
    let rig = Rig::new();
    let name = registry.reference("app:1");
    let trusting = |authorities: &str| PullOptions {
        authorities: Some(authorities.into()),
        ..quick()
    };
    let own = registry.folder.path().join("cert.pem");
    let image = pull(&rig, &name, &trusting(own.to_str().unwrap()))
        .await
        .unwrap();
    assert_eq!(image.layers, ids(&layers()));

    // P10: any other authority, and it is refused; never tried again over http.
    let stranger = Path::new("/etc/ssl/certs/ca-certificates.crt");
    let error = refused(pull(&rig, &name, &trusting(stranger.to_str().unwrap())).await);
    assert!(matches!(error, RegistryError::Connect { .. }), "{error}");
    let cause = error
        .source()
        .and_then(Error::source)
        .map(ToString::to_string)
        .unwrap_or_default();
    assert!(cause.contains("certificate"), "{cause}");
}

#[tokio::test]
async fn a_layer_damaged_at_the_registry_is_not_used() {
    let registry = Registry::start();
    let mut layout = Layout::new();
    layout.image("app:1", &layers());
    registry.push(&layout, "app:1", &[]);
    let victim = Digest::of(&layers()[1].0);
    let path = registry.blob(&victim);
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[100] ^= 4;
    rig::write(&path, &bad);
    let rig = Rig::new();
    let name = registry.reference("app:1");
    let Err(PullError::Failed { source, .. }) = pull(&rig, &name, &quick()).await else {
        panic!("a damaged layer was accepted")
    };
    let IngestError::Blob(BlobError::Digest { expected, actual }) = *source else {
        panic!("{source}")
    };
    assert_eq!((expected, actual), (victim, Digest::of(&bad)));
    assert!(!rig.blob(&victim).exists() && rig.store.list().unwrap().is_empty());
    rig.assert_tidy();
    rig::write(&path, &good);
    pull(&rig, &name, &quick()).await.unwrap();
}

#[tokio::test]
async fn a_blob_damaged_in_the_store_is_pulled_again() {
    let registry = Registry::start();
    let mut layout = Layout::new();
    layout.image("app:1", &layers());
    registry.push(&layout, "app:1", &[]);
    let rig = Rig::new();
    let name = registry.reference("app:1");
    let image = pull(&rig, &name, &quick()).await.unwrap();
    let layer = Digest::of(&layers()[1].0);
    for digest in [layer, image.id, image.digest] {
        let path = rig.blob(&digest);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[20] ^= 1;
        rig::write(&path, &bad);
        pull(&rig, &name, &quick()).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), good, "{digest}");
    }
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_named() {
    let registry = Registry::start();
    let name = registry.reference("app:1");
    drop(registry);
    let error = refused(pull(&Rig::new(), &name, &quick()).await);
    let RegistryError::Connect { origin, source } = &error else {
        panic!("{error}")
    };
    assert!(
        name.registry().len() > 10 && origin.ends_with(name.registry()),
        "{origin}"
    );
    assert!(source.to_string().contains("does not answer"), "{source}");
}
