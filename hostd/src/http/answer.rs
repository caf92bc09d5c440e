//! Answers: errors with their status, and streams of JSON lines.

use std::convert::Infallible;
use std::io;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::openapi::JSON_LINES;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::mpsc;

/// A failed request.
#[derive(Debug)]
pub(super) struct Failure(pub(super) ApiError);

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = self.0.kind;
        let mut response = (status, Json(self.0)).into_response();
        // For the audit log: nobody reads the body again.
        response.extensions_mut().insert(kind);
        if kind == ErrorKind::Unauthorized {
            // How to say who they are (RFC 6750 section 3); no second attempt on this
            // connection.
            let bearer = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, bearer);
            close(&mut response);
        }
        response
    }
}

/// The last answer on its connection.
pub(super) fn close(response: &mut Response) {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
}

/// What handlers return.
pub(super) type Answer<T> = Result<T, Failure>;

/// A stream of lines that are made elsewhere.
pub(super) fn bytes_stream(from: mpsc::Receiver<io::Result<Bytes>>) -> Response {
    let chunks = stream::unfold(from, |mut from| async move {
        from.recv().await.map(|chunk| (chunk, from))
    });
    streamed(Body::from_stream(chunks))
}

/// A stream of values, one per line.
pub(super) fn lines<T: Serialize + Send + 'static>(from: mpsc::Receiver<T>) -> Response {
    let lines = stream::unfold(from, |mut from| async move {
        let value = from.recv().await?;
        Some((Ok::<_, Infallible>(line(&value)), from))
    });
    streamed(Body::from_stream(lines))
}

fn line<T: Serialize>(value: &T) -> Bytes {
    match serde_json::to_vec(value) {
        Ok(mut line) => {
            line.push(b'\n');
            line.into()
        }
        Err(error) => {
            tracing::error!(%error, "a value cannot be written as JSON");
            Bytes::new()
        }
    }
}

fn streamed(body: Body) -> Response {
    ([(header::CONTENT_TYPE, JSON_LINES)], body).into_response()
}
