//! One GET: follows redirects, answers one 401, and never takes credentials elsewhere.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_RANGE, HOST, LOCATION, RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::RegistryError;
use super::auth::{self, Credentials};
use super::connect::{self, Connector, Origin};
use crate::document::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::pull::PullOptions;

const MAX_REDIRECTS: usize = 5;
const AGENT: &str = concat!("dyno/", env!("CARGO_PKG_VERSION"));

/// GETs from one registry, for one repository.
#[derive(Debug)]
pub(super) struct Http {
    registry: Origin,
    repository: String,
    connector: Connector,
    credentials: Option<Credentials>,
    /// What the registry accepted or last asked for; sent to its origin alone.
    authorization: Mutex<Option<HeaderValue>>,
    patience: Duration,
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    origin: Origin,
    body: Incoming,
    patience: Duration,
    /// Drives the connection for as long as the body is read.
    _connection: Connection,
}

/// Ends the connection with its answer.
#[derive(Debug)]
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The `Accept` header for manifests; without it old registries answer with schema 1.
pub(super) fn accept_manifests() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for kind in [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST] {
        headers.append(ACCEPT, HeaderValue::from_static(kind));
    }
    headers
}

impl Http {
    pub(super) fn new(
        registry: &str,
        repository: &str,
        options: &PullOptions,
    ) -> Result<Http, RegistryError> {
        // Who names an authority wants TLS, on loopback, too.
        let local = connect::is_loopback(registry) && options.authorities.is_none();
        Ok(Http {
            registry: Origin::of_registry(registry, options.plain_http || local),
            repository: repository.to_owned(),
            connector: Connector::new(options.authorities.as_deref())?,
            credentials: options.credentials.clone(),
            authorization: Mutex::new(None),
            patience: options.patience,
        })
    }

    /// GETs `path` of the registry. Any status but 401 and redirects is an answer.
    pub(super) async fn get(
        &self,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Answer, RegistryError> {
        let answer = self.follow(path, &headers).await?;
        // P10: only the registry itself may ask for credentials, not where it redirects to.
        if answer.status != StatusCode::UNAUTHORIZED || answer.origin != self.registry {
            return Ok(answer);
        }
        let challenges: Vec<HeaderValue> = answer
            .headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .cloned()
            .collect();
        drop(answer);
        match self.authorize(&challenges).await? {
            Some(authorization) => {
                self.set_authorization(authorization);
                self.follow(path, &headers).await
            }
            None => Err(RegistryError::Denied {
                what: format!("{}/{}", self.registry.authority(), self.repository),
                status: StatusCode::UNAUTHORIZED,
            }),
        }
    }

    async fn follow(&self, path: &str, headers: &HeaderMap) -> Result<Answer, RegistryError> {
        let (mut origin, mut path) = (self.registry.clone(), path.to_owned());
        for _ in 0..=MAX_REDIRECTS {
            let mut headers = headers.clone();
            // P10: scheme, host and port must all be the registry's.
            if origin == self.registry
                && let Some(authorization) = self.authorization()
            {
                headers.insert(AUTHORIZATION, authorization);
            }
            let answer = self.once(&origin, &path, headers).await?;
            if !is_redirect(answer.status) {
                return Ok(answer);
            }
            let to = answer
                .headers
                .get(LOCATION)
                .and_then(|to| to.to_str().ok())
                .unwrap_or_default();
            (origin, path) = redirected(&origin, to)?;
        }
        Err(RegistryError::Redirect {
            to: format!("{origin}{path}"),
            reason: "too many redirects",
        })
    }

    /// One request on one connection, up to the answer's headers.
    async fn once(
        &self,
        origin: &Origin,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Answer, RegistryError> {
        let broken = |source| RegistryError::Http {
            origin: origin.to_string(),
            source,
        };
        let silent = || RegistryError::Silent {
            origin: origin.to_string(),
            after: self.patience,
        };
        let stream =
            self.connector
                .connect(origin)
                .await
                .map_err(|source| RegistryError::Connect {
                    origin: origin.to_string(),
                    source,
                })?;
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(256 << 10)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let connection = Connection(tokio::spawn(async move {
            // A broken connection shows in the answer's body, where it is handled.
            connection.await.ok();
        }));
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = path
            .parse()
            .ok()
            .filter(|uri: &Uri| uri.path().starts_with('/'))
            .ok_or_else(|| RegistryError::Redirect {
                to: path.chars().take(200).collect(),
                reason: "not a path",
            })?;
        *request.headers_mut() = headers;
        request
            .headers_mut()
            .insert(USER_AGENT, HeaderValue::from_static(AGENT));
        if let Ok(host) = HeaderValue::from_str(&origin.authority()) {
            request.headers_mut().insert(HOST, host);
        }
        let answer = timeout(self.patience, sender.send_request(request)).await;
        let (parts, body) = answer
            .map_err(|_elapsed| silent())?
            .map_err(broken)?
            .into_parts();
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            origin: origin.clone(),
            body,
            patience: self.patience,
            _connection: connection,
        })
    }

    /// The `Authorization` that answers a challenge; `None` if we have nothing better than what
    /// was just refused.
    async fn authorize(
        &self,
        challenges: &[HeaderValue],
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let challenge = auth::Challenge::choose(challenges, &self.registry)?;
        match challenge {
            auth::Challenge::Basic => Ok(self.credentials.as_ref().map(Credentials::basic)),
            auth::Challenge::Bearer(token) => {
                let (origin, path) = token.request(&self.registry, &self.repository)?;
                let mut headers = HeaderMap::new();
                if let Some(credentials) = &self.credentials {
                    headers.insert(AUTHORIZATION, credentials.basic());
                }
                // Not followed anywhere: a token endpoint answers itself.
                let answer = self.once(&origin, &path, headers).await?;
                auth::read_token(answer, &self.registry).await
            }
        }
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.authorization
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    fn set_authorization(&self, value: HeaderValue) {
        *self
            .authorization
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(value);
    }
}

impl Answer {
    /// The next piece of the body.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let frame = timeout(self.patience, self.body.frame()).await;
            let frame = frame.map_err(|_elapsed| RegistryError::Silent {
                origin: self.origin.to_string(),
                after: self.patience,
            })?;
            match frame {
                None => return Ok(None),
                Some(Err(source)) => {
                    return Err(RegistryError::Http {
                        origin: self.origin.to_string(),
                        source,
                    });
                }
                Some(Ok(frame)) => {
                    // Trailers say nothing here.
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Whether a 206 really begins where it was asked to.
    pub(super) fn begins_at(&self, at: u64) -> bool {
        let range = self
            .headers
            .get(CONTENT_RANGE)
            .and_then(|range| range.to_str().ok());
        range.is_some_and(|range| range.starts_with(&format!("bytes {at}-")))
    }

    /// Seconds only; a date would need the peer's clock.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
        Some(Duration::from_secs(seconds))
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a `Location` leads from `from`.
fn redirected(from: &Origin, to: &str) -> Result<(Origin, String), RegistryError> {
    let refuse = |reason| RegistryError::Redirect {
        to: to.chars().take(200).collect(),
        reason,
    };
    let uri: Uri = to.parse().ok().ok_or_else(|| refuse("not an address"))?;
    let path = uri
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    match uri.authority() {
        // "/path" stays; "path" without a slash does not occur.
        None if path.starts_with('/') => Ok((from.clone(), path)),
        None => Err(refuse("not an address")),
        Some(_) => {
            let origin = Origin::of_uri(&uri).ok_or_else(|| refuse("not http or https"))?;
            // P10: no fall-back to http.
            match from.is_https() && !origin.is_https() {
                true => Err(refuse("from https to http")),
                false => Ok((origin, path)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // P10
    #[test]
    fn redirects_stay_https_and_are_addresses() {
        let from = Origin::of_registry("example.com", false);
        let at = |to| redirected(&from, to).map(|(origin, path)| format!("{origin}{path}"));
        assert_eq!(at("/x?y=1").unwrap(), "https://example.com:443/x?y=1");
        assert_eq!(
            at("https://cdn.example.com/b").unwrap(),
            "https://cdn.example.com:443/b"
        );
        for to in [
            "http://cdn.example.com/b",
            "ftp://x/",
            "",
            "file:///etc/passwd",
            "https://",
        ] {
            assert!(at(to).is_err(), "{to}");
        }
    }
}
