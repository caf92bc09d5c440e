//! One call: connect, send, and take the answer apart.

use std::sync::PoisonError;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::body::RequestBody;
use super::path;
use super::stream::Stream;
use super::{Client, Download, Error, Lines, READY, Way};
use crate::error::ApiError;

/// The largest JSON document that a client reads (P15).
const ANSWER_MAX: usize = 64 << 20;

/// The most of a body that is not of the contract which an error repeats.
const EXCERPT_MAX: usize = 512;

/// The protocol that attach and exec upgrade to.
const UPGRADE: HeaderValue = HeaderValue::from_static(crate::openapi::FRAMES);

/// One request before it is sent.
pub(super) struct Call {
    method: Method,
    path: String,
    body: RequestBody,
    upgrade: bool,
}

impl Call {
    /// A call without a body. `path` is encoded already.
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            body: RequestBody::Empty,
            upgrade: false,
        }
    }

    /// The same with these parameters.
    ///
    /// # Errors
    /// [`Error::Encode`] where a parameter has no JSON form.
    pub(super) fn query(mut self, parameters: &impl Serialize) -> Result<Self, Error> {
        let query = path::query(parameters).map_err(|source| Error::Encode {
            operation: self.operation(),
            source,
        })?;
        self.path.push_str(&query);
        Ok(self)
    }

    /// The same with a JSON body.
    ///
    /// # Errors
    /// [`Error::Encode`] where the value has no JSON form.
    pub(super) fn json(mut self, value: &impl Serialize) -> Result<Self, Error> {
        let json = serde_json::to_vec(value).map_err(|source| Error::Encode {
            operation: self.operation(),
            source,
        })?;
        self.body = RequestBody::Json(Bytes::from(json));
        Ok(self)
    }

    /// The same with a body.
    pub(super) fn body(mut self, body: RequestBody) -> Self {
        self.body = body;
        self
    }

    /// The same, asking for an upgrade to frames.
    pub(super) fn upgrade(mut self) -> Self {
        self.upgrade = true;
        self
    }

    fn operation(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn into_request(self, by: Option<&HeaderValue>) -> Result<Request<RequestBody>, Error> {
        let operation = self.operation();
        // HTTP/1.1 wants a host (RFC 9112 section 3.2); a unix socket has none, and hostd
        // is the only one behind whatever else it is reached by.
        let mut request = Request::builder()
            .method(self.method)
            .uri(self.path)
            .header(header::HOST, HeaderValue::from_static("hostd"));
        if matches!(self.body, RequestBody::Json(_)) {
            let json = HeaderValue::from_static("application/json");
            request = request.header(header::CONTENT_TYPE, json);
        }
        if let Some(by) = by {
            request = request.header(header::AUTHORIZATION, by);
        }
        if self.upgrade {
            let upgrade = HeaderValue::from_static("upgrade");
            request = request
                .header(header::CONNECTION, upgrade)
                .header(header::UPGRADE, UPGRADE);
        }
        request
            .body(self.body)
            .map_err(|source| Error::Request { operation, source })
    }
}

/// An answer whose status was a success, or a switch of protocols.
pub(super) struct Answer {
    pub(super) operation: String,
    pub(super) response: Response<Incoming>,
}

impl Client {
    pub(super) async fn connect(&self) -> Result<Stream, Error> {
        Ok(match &self.way {
            Way::Socket(socket) => {
                let connected = UnixStream::connect(socket).await;
                Box::new(connected.map_err(|source| Error::Connect {
                    socket: socket.clone(),
                    source,
                })?)
            }
            Way::Bridge(bridge) => Box::new(bridge.connect().await?),
            Way::Tls(tls) => Box::new(tls.connect().await?),
        })
    }

    /// Sends the call and waits for the head of its answer.
    pub(super) async fn send(&self, call: Call) -> Result<Answer, Error> {
        let operation = call.operation();
        let by = match &self.way {
            Way::Tls(tls) => tls.authorization.as_ref(),
            Way::Socket(_) | Way::Bridge(_) => None,
        };
        let request = call.into_request(by)?;
        let ready = self
            .ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let stream = match ready {
            Some((since, stream)) if since.elapsed() < READY => stream,
            _ => self.connect().await?,
        };
        let broken = |source| match &self.way {
            Way::Tls(tls) => tls.broken(&operation, source),
            Way::Socket(_) | Way::Bridge(_) => Error::Http {
                operation: operation.clone(),
                source,
            },
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // What goes wrong on the connection is reported by the call as well.
        drop(tokio::spawn(async move {
            connection.with_upgrades().await.ok()
        }));
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let answer = Answer {
            operation,
            response,
        };
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            Ok(answer)
        } else {
            Err(answer.into_refusal().await)
        }
    }

    /// A call whose answer is one JSON document.
    pub(super) async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        let answer = self.send(call).await?;
        let operation = answer.operation.clone();
        let body = answer.into_bytes().await?;
        serde_json::from_slice(&body).map_err(|source| Error::Decode { operation, source })
    }

    /// A call whose answer has no body.
    pub(super) async fn done(&self, call: Call) -> Result<(), Error> {
        self.send(call).await?.into_bytes().await.map(drop)
    }

    /// A call whose answer is a stream of JSON lines.
    pub(super) async fn lines<T>(&self, call: Call) -> Result<Lines<T>, Error> {
        let answer = self.send(call).await?;
        Ok(Lines::new(answer.operation, answer.response.into_body()))
    }

    /// A call whose answer is a stream of bytes.
    pub(super) async fn download(&self, call: Call) -> Result<Download, Error> {
        let answer = self.send(call).await?;
        Ok(Download::new(answer.operation, answer.response.into_body()))
    }
}

impl Answer {
    /// The whole body.
    async fn into_bytes(self) -> Result<Bytes, Error> {
        let operation = self.operation;
        match Limited::new(self.response.into_body(), ANSWER_MAX)
            .collect()
            .await
        {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(Error::TooLong {
                operation,
                limit: ANSWER_MAX,
            }),
            Err(error) => match error.downcast::<hyper::Error>() {
                Ok(source) => Err(Error::Http {
                    operation,
                    source: *source,
                }),
                Err(other) => Err(Error::Stream(std::io::Error::other(other))),
            },
        }
    }

    /// The error that an answer without success carries.
    async fn into_refusal(self) -> Error {
        let operation = self.operation.clone();
        let status = self.response.status().as_u16();
        let body = match self.into_bytes().await {
            Ok(body) => body,
            Err(error) => return error,
        };
        match serde_json::from_slice::<ApiError>(&body) {
            Ok(refusal) => Error::Api(refusal),
            Err(_) => Error::Status {
                operation,
                status,
                body: excerpt(&body),
            },
        }
    }
}

/// The beginning of a body as text.
fn excerpt(body: &[u8]) -> String {
    let end = body.len().min(EXCERPT_MAX);
    String::from_utf8_lossy(&body[..end]).trim_end().to_owned()
}
