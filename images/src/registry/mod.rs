//! The registry client (OCI distribution spec, pulls only): what is asked for and how failures
//! are met.
//!
//! An own client on hyper rather than a ready crate: resuming blobs, an origin-bound credential,
//! a resolver that never enters libc's NSS and bounds on everything would each have to be built
//! around one, and a pull is four kinds of GET.
//!
//! ```text
//! mod      resolve, document, blob: tries, resumption, bounds
//!  └ http  one GET: redirects, and the answer to a 401
//!     ├ auth     challenges, tokens; a credential never leaves its origin (P10)
//!     └ connect  TCP, TLS by rustls
//!         └ resolver  /etc/hosts, then the name servers of resolv.conf
//! ```

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderValue, RANGE};
use http::{HeaderMap, StatusCode};

use crate::digest::{Digest, DigestError};
use crate::document::{
    DOCKER_LIST, DOCKER_MANIFEST, Descriptor, MAX_DOCUMENT_BYTES, OCI_INDEX, OCI_MANIFEST,
};
use crate::pull::PullOptions;
use crate::reference::Reference;
use crate::store::{BlobWriter, StoreError};

mod auth;
mod connect;
mod http_get;
mod resolver;

pub use auth::Credentials;
use connect::ConnectError;
pub use connect::machine_authorities;
use http_get::{Answer, Http};
pub use resolver::{ResolveError, resolve};

/// Where Docker Hub really is.
const DOCKER_HUB: &str = "registry-1.docker.io";
/// First pause between two tries; doubled each time, then jittered.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause, whatever a `Retry-After` says.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Why a registry did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It cannot be reached.
    #[error("cannot connect to {origin}")]
    Connect {
        /// `scheme://host:port`.
        origin: String,
        /// Why not.
        source: ConnectError,
    },
    /// The connection broke or the peer does not speak HTTP.
    #[error("the connection to {origin} failed")]
    Http {
        /// `scheme://host:port`.
        origin: String,
        /// How.
        source: hyper::Error,
    },
    /// Nothing arrived for as long as patience lasts.
    #[error("{origin} has been silent for {} s", after.as_secs_f32())]
    Silent {
        /// `scheme://host:port`.
        origin: String,
        /// The patience.
        after: Duration,
    },
    /// The registry does not know it.
    #[error("{what} is not there; check the name, or log in if it is private")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// Credentials are missing, wrong, or not enough.
    #[error("access to {what} is denied ({status}); log in with an account that may pull it")]
    Denied {
        /// What was asked for.
        what: String,
        /// 401 or 403.
        status: StatusCode,
    },
    /// Another answer than success.
    #[error("the registry answered {status} for {what}: {body}")]
    Status {
        /// What was asked for.
        what: String,
        /// The answer.
        status: StatusCode,
        /// The beginning of its text.
        body: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// It redirects somewhere we do not go.
    #[error("refused a redirect to `{to}`: {reason}")]
    Redirect {
        /// The target.
        to: String,
        /// Why not.
        reason: &'static str,
    },
    /// Its demand for credentials makes no sense or is unsafe.
    #[error("cannot log in to {origin}: {reason}")]
    Challenge {
        /// `scheme://host:port`.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// A manifest that is not the one that was asked for.
    #[error("the manifest has digest {actual}, expected {expected}")]
    Manifest {
        /// From the reference or the registry's own header.
        expected: Digest,
        /// Of the bytes.
        actual: Digest,
    },
    /// The registry announces a digest that is none.
    #[error("the registry announces an unusable digest")]
    AnnouncedDigest(#[from] DigestError),
    /// The connection ended early and could not be resumed in as many tries as there are.
    #[error("{what} broke off at byte {at} of {size}, and {attempts} tries were not enough")]
    Truncated {
        /// What was asked for.
        what: String,
        /// Bytes that came.
        at: u64,
        /// Bytes expected.
        size: u64,
        /// Tries made.
        attempts: u32,
    },
    /// More bytes than announced or allowed.
    #[error("{what} has more than {limit} bytes")]
    TooLong {
        /// What was asked for.
        what: String,
        /// The announced size, or the bound.
        limit: u64,
    },
    /// The trusted certificates cannot be read.
    #[error("cannot read certificates from {path}")]
    Authorities {
        /// The file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One registry and repository, for one pull.
#[derive(Debug)]
pub(crate) struct Client {
    http: Http,
    repository: String,
    attempts: u32,
}

impl Client {
    pub(crate) fn new(
        reference: &Reference,
        options: &PullOptions,
    ) -> Result<Client, RegistryError> {
        let registry = match reference.registry() {
            "docker.io" => DOCKER_HUB,
            other => other,
        };
        Ok(Client {
            http: Http::new(registry, reference.repository(), options)?,
            repository: reference.repository().to_owned(),
            attempts: options.attempts.max(1),
        })
    }

    /// The index or manifest that a reference stands for now.
    pub(crate) async fn resolve(
        &self,
        reference: &Reference,
    ) -> Result<(Descriptor, Bytes), RegistryError> {
        let version = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.to_owned(),
            (None, None) => "latest".to_owned(),
        };
        let what = format!("{reference}");
        let path = format!("/v2/{}/manifests/{version}", self.repository);
        let (headers, bytes) = self.small(&path, &what, MAX_DOCUMENT_BYTES).await?;
        let actual = Digest::of(&bytes);
        let announced = match headers
            .get("docker-content-digest")
            .and_then(|v| v.to_str().ok())
        {
            Some(digest) if digest.starts_with("sha256:") => Some(digest.parse()?),
            _ => None,
        };
        // P9: pinned by the user, or else at least what the registry itself says it is.
        if let Some(expected) = reference
            .digest()
            .copied()
            .or(announced)
            .filter(|d| *d != actual)
        {
            return Err(RegistryError::Manifest { expected, actual });
        }
        let media_type = headers
            .get(CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        Ok((
            Descriptor::new(media_type, actual, bytes.len() as u64),
            bytes,
        ))
    }

    /// A manifest or config by digest; the caller checks it.
    pub(crate) async fn document(&self, wanted: &Descriptor) -> Result<Bytes, RegistryError> {
        let manifests = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];
        let kind = match manifests.contains(&wanted.media_type.as_str()) {
            true => "manifests",
            false => "blobs",
        };
        let path = format!("/v2/{}/{kind}/{}", self.repository, wanted.digest);
        let (_, bytes) = self
            .small(&path, &wanted.digest.to_string(), wanted.size)
            .await?;
        Ok(bytes)
    }

    /// Fetches a layer into `writer`, resuming where a connection broke off. The caller checks
    /// size and digest of the whole.
    pub(crate) async fn blob(
        &self,
        wanted: &Descriptor,
        writer: &mut BlobWriter,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RegistryError> {
        let path = format!("/v2/{}/blobs/{}", self.repository, wanted.digest);
        let mut attempt = 1;
        loop {
            let before = writer.length();
            let error = match self.blob_once(&path, wanted, writer, progress).await {
                Ok(()) if writer.length() == wanted.size => return Ok(()),
                Ok(()) => RegistryError::Truncated {
                    what: wanted.digest.to_string(),
                    at: writer.length(),
                    size: wanted.size,
                    attempts: attempt,
                },
                Err(error) => error,
            };
            // What moves forward is not failing: only tries that brought nothing count.
            if writer.length() > before + (1 << 20) {
                attempt = 0;
            }
            if attempt >= self.attempts || !is_transient(&error) {
                return Err(error);
            }
            tracing::info!(%error, attempt, "trying again");
            tokio::time::sleep(pause(attempt, &error)).await;
            attempt += 1;
        }
    }

    async fn blob_once(
        &self,
        path: &str,
        wanted: &Descriptor,
        writer: &mut BlobWriter,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RegistryError> {
        let what = wanted.digest.to_string();
        let mut headers = HeaderMap::new();
        let at = writer.length();
        if at > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={at}-"))
        {
            headers.insert(RANGE, range);
        }
        let mut answer = self.http.get(path, headers).await?;
        match answer.status {
            StatusCode::PARTIAL_CONTENT if at > 0 && answer.begins_at(at) => {}
            // It ignored the range, or answered another one.
            StatusCode::OK => writer.restart().await?,
            StatusCode::PARTIAL_CONTENT => {
                writer.restart().await?;
                return Ok(());
            }
            _ => return Err(refused(answer, &what).await),
        }
        while let Some(chunk) = answer.chunk().await? {
            // P15: never more than announced, whatever comes.
            if writer.length() + chunk.len() as u64 > wanted.size {
                return Err(RegistryError::TooLong {
                    what,
                    limit: wanted.size,
                });
            }
            writer.write(&chunk).await?;
            progress(writer.length());
        }
        Ok(())
    }

    /// GET of something small, with tries.
    async fn small(
        &self,
        path: &str,
        what: &str,
        limit: u64,
    ) -> Result<(HeaderMap, Bytes), RegistryError> {
        let mut attempt = 1;
        loop {
            let error = match self.small_once(path, what, limit).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if attempt >= self.attempts || !is_transient(&error) {
                return Err(error);
            }
            tracing::info!(%error, attempt, "trying again");
            tokio::time::sleep(pause(attempt, &error)).await;
            attempt += 1;
        }
    }

    async fn small_once(
        &self,
        path: &str,
        what: &str,
        limit: u64,
    ) -> Result<(HeaderMap, Bytes), RegistryError> {
        let mut answer = self.http.get(path, http_get::accept_manifests()).await?;
        if answer.status != StatusCode::OK {
            return Err(refused(answer, what).await);
        }
        let mut bytes = BytesMut::new();
        while let Some(chunk) = answer.chunk().await? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(RegistryError::TooLong {
                    what: what.to_owned(),
                    limit,
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok((answer.headers, bytes.freeze()))
    }
}

/// Turns an answer that is no success into the error that says so.
async fn refused(mut answer: Answer, what: &str) -> RegistryError {
    let (what, status) = (what.to_owned(), answer.status);
    match status {
        StatusCode::NOT_FOUND => RegistryError::NotFound { what },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Denied { what, status },
        _ => {
            let body = match answer.chunk().await {
                Ok(Some(chunk)) => String::from_utf8_lossy(&chunk)
                    .chars()
                    .take(300)
                    .flat_map(char::escape_debug)
                    .collect(),
                _ => String::new(),
            };
            RegistryError::Status {
                what,
                status,
                body,
                retry_after: answer.retry_after(),
            }
        }
    }
}

/// Whether the same request may well succeed a little later.
fn is_transient(error: &RegistryError) -> bool {
    match error {
        RegistryError::Connect { source, .. } => source.is_transient(),
        RegistryError::Http { .. }
        | RegistryError::Silent { .. }
        | RegistryError::Truncated { .. } => true,
        RegistryError::Status { status, .. } => {
            status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
        }
        _ => false,
    }
}

/// Doubles from attempt to attempt; a random half of it, so that many hosts that failed together
/// do not return together.
fn pause(attempt: u32, error: &RegistryError) -> Duration {
    let asked = match error {
        RegistryError::Status { retry_after, .. } => retry_after.unwrap_or_default(),
        _ => Duration::ZERO,
    };
    let longest = FIRST_PAUSE.saturating_mul(1 << attempt.min(10));
    (longest.mul_f64(0.5 + 0.5 * random_fraction()).max(asked)).min(LONGEST_PAUSE)
}

/// Between 0 and 1: std seeds its hash maps from the kernel's random numbers.
fn random_fraction() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let [a, b, ..] = RandomState::new().hash_one(0_u8).to_ne_bytes();
    f64::from(u16::from_ne_bytes([a, b])) / f64::from(u16::MAX)
}
