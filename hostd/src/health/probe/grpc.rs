//! The gRPC health checking protocol: one `grpc.health.v1.Health/Check`, and what
//! it answers (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).
//!
//! HTTP/2 on a connection of its own, its windows and its table of headers kept
//! small. What is read is bounded (P15).

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use dyno_api::health::GrpcProbe;
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use super::printable;
use crate::durable::chain;

/// Bytes of an answer: its one field takes two, after a prefix of five.
const MOST_BODY: usize = 4096;
/// Bytes of headers and trailers, each.
const MOST_HEAD: u32 = 16 * 1024;
/// Bytes that are on the way at most: the smallest that HTTP/2 begins with.
const WINDOW: u32 = 65_535;
/// A flag and four bytes of length before each message.
const PREFIX: usize = 5;

/// `grpc-status` of a service that the server does not know, and of a method that
/// it does not have.
const NOT_FOUND: &str = "5";
const UNIMPLEMENTED: &str = "12";

/// Asks, and takes `SERVING` for an answer. `address` is the host that is asked for
/// where the check names none.
pub(super) async fn ask<S>(stream: S, probe: &GrpcProbe, address: SocketAddr) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| format!("HTTP/2: {}", chain(&error));
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(MOST_HEAD)
        .max_concurrent_reset_streams(1)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let asked = async {
        let request = request(probe, address).map_err(|error| format!("HTTP/2: {error}"))?;
        let answer = sender.send_request(request).await.map_err(failed)?;
        judge(answer).await
    };
    // The connection is worked off beside the question, and goes with it.
    tokio::select! {
        biased;
        judged = asked => judged,
        Err(error) = connection => Err(failed(error)),
    }
}

fn request(probe: &GrpcProbe, address: SocketAddr) -> http::Result<Request<Full<Bytes>>> {
    let scheme = if probe.tls { "https" } else { "http" };
    let address = address.to_string();
    let authority = probe.host.as_ref().unwrap_or(&address);
    Request::post(format!(
        "{scheme}://{authority}/grpc.health.v1.Health/Check"
    ))
    .header(CONTENT_TYPE, "application/grpc")
    .header(TE, "trailers")
    .header(USER_AGENT, "dyno-check")
    .body(Full::new(question(
        probe.service.as_deref().unwrap_or_default(),
    )))
}

/// A `HealthCheckRequest` with its prefix: field 1 is the service, a string.
fn question(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        loop {
            let [low, ..] = length.to_le_bytes();
            length >>= 7;
            if length == 0 {
                message.push(low & 0x7f);
                break;
            }
            message.push(low | 0x80);
        }
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.extend_from_slice(&[0]);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(&message);
    framed.freeze()
}

async fn judge(answer: http::Response<Incoming>) -> Result<(), String> {
    let (head, mut body) = answer.into_parts();
    if !head.status.is_success() {
        return Err(format!("status {}: this is no gRPC", head.status.as_u16()));
    }
    // An answer without a message has its trailers at its head.
    refused(&head.headers)?;
    let mut message = Vec::new();
    let mut status = head.headers.contains_key("grpc-status");
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("HTTP/2: {}", chain(&error)))?;
        match frame.into_data() {
            Ok(data) if message.len() + data.len() > MOST_BODY => {
                return Err(format!("more than {MOST_BODY} bytes are no answer"));
            }
            Ok(data) => message.extend_from_slice(&data),
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    refused(&trailers)?;
                    status |= trailers.contains_key("grpc-status");
                }
            }
        }
    }
    if !status {
        return Err("an answer without grpc-status: this is no gRPC".to_owned());
    }
    match serving_status(&message) {
        Some(1) => Ok(()),
        Some(0) => Err("the service says UNKNOWN".to_owned()),
        Some(2) => Err("the service says NOT_SERVING".to_owned()),
        Some(3) => Err("the service says SERVICE_UNKNOWN".to_owned()),
        Some(other) => Err(format!("the service says {other}, which is no status")),
        None => Err("the answer is no HealthCheckResponse".to_owned()),
    }
}

/// Why the call failed, where these trailers say that it did.
fn refused(trailers: &HeaderMap) -> Result<(), String> {
    let text = |name| {
        let value: &http::HeaderValue = trailers.get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()))
    };
    let Some(status) = text("grpc-status").filter(|status| status != "0") else {
        return Ok(());
    };
    let means = match status.as_ref() {
        NOT_FOUND => " (the server knows no such service)",
        UNIMPLEMENTED => " (the server has no grpc.health.v1.Health)",
        _ => "",
    };
    let status = printable(&status, 16);
    Err(match text("grpc-message") {
        Some(said) => format!(
            "gRPC status {status}{means}: {}",
            printable(&said, super::QUOTED)
        ),
        None => format!("gRPC status {status}{means}"),
    })
}

/// Field 1 of a `HealthCheckResponse`, an enumeration; 0 where it is left out. None
/// where this is no such message. Unknown fields are passed over.
fn serving_status(framed: &[u8]) -> Option<u64> {
    let (prefix, mut message) = framed.split_at_checked(PREFIX)?;
    let (&compressed, length) = prefix.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    if compressed != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        match key & 7 {
            0 => {
                let value = varint(&mut message)?;
                if key >> 3 == 1 {
                    status = value;
                }
            }
            1 => skip(&mut message, 8)?,
            2 => {
                let length = varint(&mut message)?;
                skip(&mut message, length)?;
            }
            5 => skip(&mut message, 4)?,
            _ => return None,
        }
    }
    Some(status)
}

/// Seven bits a byte, the lowest first; ten bytes at most
/// (<https://protobuf.dev/programming-guides/encoding/#varints>).
fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for place in 0..10 {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn skip(message: &mut &[u8], bytes: u64) -> Option<()> {
    *message = message.get(usize::try_from(bytes).ok()?..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{HeaderMap, HeaderValue, Response};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use hyper::server::conn::http2 as server;
    use hyper::service::service_fn;
    use proptest::prelude::*;

    use super::*;

    const ADDRESS: ([u8; 4], u16) = ([10, 0, 0, 2], 50051);

    /// What a check says of a server that answers this way, and what it was asked.
    async fn asked(
        service: Option<&str>,
        message: &'static [u8],
        trailers: &'static [(&'static str, &'static str)],
    ) -> (Result<(), String>, String, Bytes) {
        let (ours, theirs) = tokio::io::duplex(4096);
        let (heard, hear) = tokio::sync::mpsc::channel(1);
        let serve = service_fn(move |request: Request<Incoming>| {
            let heard = heard.clone();
            async move {
                let path = request.uri().to_string();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                heard.send((path, body)).await.unwrap();
                let mut map = HeaderMap::new();
                for &(name, value) in trailers {
                    map.insert(name, HeaderValue::from_static(value));
                }
                let frames = [
                    Frame::data(Bytes::from_static(message)),
                    Frame::trailers(map),
                ];
                let frames = frames.map(Ok::<_, Infallible>);
                let body = StreamBody::new(futures_util::stream::iter(frames));
                Ok::<_, Infallible>(Response::new(body))
            }
        });
        tokio::spawn(
            server::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(theirs), serve),
        );
        let probe = GrpcProbe {
            port: ADDRESS.1,
            service: service.map(str::to_owned),
            ..GrpcProbe::default()
        };
        let judged = ask(ours, &probe, ADDRESS.into()).await;
        let (path, question) = { hear }.recv().await.unwrap();
        (judged, path, question)
    }

    const FINE: &[(&str, &str)] = &[("grpc-status", "0")];

    #[tokio::test]
    async fn a_server_is_asked_for_its_health_or_that_of_a_service() {
        let (judged, path, question) = asked(None, b"\0\0\0\0\x02\x08\x01", FINE).await;
        assert_eq!(judged, Ok(()));
        assert_eq!(path, "http://10.0.0.2:50051/grpc.health.v1.Health/Check");
        assert_eq!(question, &b"\0\0\0\0\0"[..]);
        let (judged, _, question) = asked(Some("shop"), b"\0\0\0\0\x02\x08\x01", FINE).await;
        assert_eq!(judged, Ok(()));
        assert_eq!(question, &b"\0\0\0\0\x06\x0a\x04shop"[..]);
    }

    #[tokio::test]
    async fn whatever_is_not_serving_fails_and_says_so() {
        let says = async |message, trailers| asked(None, message, trailers).await.0.unwrap_err();
        let not_serving = says(b"\0\0\0\0\x02\x08\x02", FINE).await;
        assert_eq!(not_serving, "the service says NOT_SERVING");
        assert_eq!(says(b"\0\0\0\0\0", FINE).await, "the service says UNKNOWN");
        let unknown = &[("grpc-status", "5"), ("grpc-message", "shop?\t")];
        let unknown = says(b"", unknown).await;
        assert_eq!(
            unknown,
            "gRPC status 5 (the server knows no such service): shop?"
        );
        let late = says(b"\0\0\0\0\x02\x08\x01", &[("grpc-status", "14")]).await;
        assert_eq!(late, "gRPC status 14");
        let none = says(b"\0\0\0\0\x02\x08\x01", &[]).await;
        assert_eq!(none, "an answer without grpc-status: this is no gRPC");
        let long = says(&[0; MOST_BODY + 1], FINE).await;
        assert!(long.starts_with("more than 4096 bytes"), "{long}");
    }

    // A server of HTTP/1, and one that hangs up.
    #[tokio::test]
    async fn whoever_speaks_no_http_2_fails() {
        use tokio::io::AsyncWriteExt;
        for answer in [&b"HTTP/1.1 200 OK\r\n\r\n"[..], b""] {
            let (ours, mut theirs) = tokio::io::duplex(4096);
            theirs.write_all(answer).await.unwrap();
            theirs.shutdown().await.unwrap();
            let judged = ask(ours, &GrpcProbe::default(), ADDRESS.into()).await;
            let reason = judged.unwrap_err();
            assert!(reason.starts_with("HTTP/2: "), "{reason}");
        }
    }

    #[test]
    fn a_long_name_has_a_length_of_two_bytes() {
        let question = question(&"a".repeat(200));
        assert_eq!(&question[..8], b"\0\0\0\0\xcb\x0a\xc8\x01");
        assert_eq!(question.len(), 5 + 203);
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(mut bytes: Vec<u8>, framed: bool) {
            if framed {
                let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
                bytes.splice(..0, std::iter::once(0).chain(length));
            }
            serving_status(&bytes);
        }

        #[test]
        fn the_last_status_counts_and_other_fields_do_not(status in 0_u64..128, other: Vec<u8>) {
            let mut message = vec![0x08, 0, 0x12, u8::try_from(other.len() & 0x7f).unwrap()];
            message.extend(&other[..other.len() & 0x7f]);
            message.extend([0x08, u8::try_from(status).unwrap()]);
            let length = u32::try_from(message.len()).unwrap().to_be_bytes();
            let framed: Vec<u8> = std::iter::once(0).chain(length).chain(message).collect();
            prop_assert_eq!(serving_status(&framed), Some(status));
        }
    }
}
