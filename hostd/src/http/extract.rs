//! What a request carries, parsed strictly and within bounds (P15).

use std::error::Error;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use dyno_api::error::{ApiError, ErrorKind};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::answer::Failure;
use crate::durable::chain;

/// The largest JSON body.
const MAX_BODY: usize = 4 << 20;
/// How long a client may take to send it.
const BODY_TIME: Duration = Duration::from_secs(30);

fn invalid(message: String) -> Failure {
    Failure(ApiError::new(ErrorKind::Invalid, message))
}

/// The parameters after the `?`; unknown ones are refused by their types.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => {
                let reason = error.source().map_or_else(|| error.body_text(), chain);
                Err(invalid(format!(
                    "the parameters are not what is asked for: {reason}"
                )))
            }
        }
    }
}

/// No parameter at all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// A JSON body.
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let body = read(request, MAX_BODY).await?;
        // A body that may be left out is an object without fields.
        let body = if body.is_empty() {
            Bytes::from_static(b"{}")
        } else {
            body
        };
        serde_json::from_slice(&body)
            .map(Self)
            .map_err(|error| invalid(format!("the body is not what is asked for: {error}")))
    }
}

/// A whole body of at most so many bytes.
pub(super) async fn read(request: Request, most: usize) -> Result<Bytes, Failure> {
    let limited = Limited::new(request.into_body(), most);
    match tokio::time::timeout(BODY_TIME, limited.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(invalid(format!("the body is larger than {most} bytes")))
        }
        Ok(Err(error)) => Err(invalid(format!("the body broke off: {error}"))),
        Err(_) => Err(invalid(format!(
            "the body did not arrive within {} s",
            BODY_TIME.as_secs()
        ))),
    }
}
