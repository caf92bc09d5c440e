//! One GET and as much of its answer as the check needs.
//!
//! Not a client for the web: HTTP/1.1 on a connection of its own, no
//! redirects, no compression, no trailers. What is read is bounded (P15).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use dyno_api::health::HttpProbe;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::{QUOTED, printable};

/// Bytes of status line and headers.
const MOST_HEAD: usize = 16 * 1024;
/// Bytes of a body that are looked at, chunk sizes included.
const MOST_BODY: usize = 64 * 1024;
const ENOUGH: usize = MOST_HEAD + MOST_BODY;
/// How long more of an answer is waited for before what there is is looked at.
const PATIENCE: Duration = Duration::from_millis(20);

/// Asks, and compares the answer with what the check wants. `address` is the
/// host that is asked for where the check names none.
pub(super) async fn ask<S>(
    mut stream: S,
    probe: &HttpProbe,
    address: SocketAddr,
) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let address = address.to_string();
    let host = probe.host.as_ref().unwrap_or(&address);
    let path = probe.path.as_deref().unwrap_or("/");
    let contains = probe.contains.as_deref();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: dyno-check\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    let failed = |error: std::io::Error| format!("HTTP: {error}");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let mut answer = Vec::new();
    loop {
        // Each look is at all of it: a dyno that drips is looked at now and then.
        match judge(&answer, probe.statuses(), contains) {
            Verdict::Passed => return Ok(()),
            Verdict::Failed(reason) => return Err(reason),
            Verdict::More => {}
        }
        if answer.len() > ENOUGH || !more(&mut stream, &mut answer).await.map_err(failed)? {
            return Err(incomplete(&answer, contains));
        }
    }
}

/// Takes in what comes next of an answer, for as long as it comes without a pause,
/// and then for [`PATIENCE`] more; false at its end.
async fn more(stream: &mut (impl AsyncRead + Unpin), answer: &mut Vec<u8>) -> io::Result<bool> {
    let mut bytes = [0; 4096];
    let mut read = stream.read(&mut bytes).await?;
    let has_more = read > 0;
    let until = Instant::now() + PATIENCE;
    while read > 0 {
        answer.extend_from_slice(bytes.get(..read).unwrap_or_default());
        if answer.len() > ENOUGH {
            break;
        }
        read = match timeout_at(until, stream.read(&mut bytes)).await {
            Ok(read) => read?,
            Err(_) => break,
        };
    }
    Ok(has_more)
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed(String),
    /// More of the answer is needed.
    More,
}

/// What this beginning of an answer says.
fn judge(mut answer: &[u8], (least, most): (u16, u16), contains: Option<&str>) -> Verdict {
    let (status, head, body) = loop {
        let Some(end) = find(answer, b"\r\n\r\n") else {
            return match answer.len() > MOST_HEAD {
                true => Verdict::Failed(format!("more than {MOST_HEAD} bytes of headers")),
                false => Verdict::More,
            };
        };
        let (head, rest) = answer.split_at(end);
        let body = rest.get(4..).unwrap_or_default();
        match status(head) {
            // 1xx announce the answer proper.
            Some(100 | 102..=199) => answer = body,
            Some(status) => break (status, head, body),
            None => {
                let said = printable(&String::from_utf8_lossy(answer), 64);
                return Verdict::Failed(format!("this is no HTTP: {said}"));
            }
        }
    };
    if !(least..=most).contains(&status) {
        let said = String::from_utf8_lossy(body);
        let said = printable(&said, QUOTED);
        return Verdict::Failed(match said.is_empty() {
            true => format!("status {status}"),
            false => format!("status {status}: {said}"),
        });
    }
    match contains {
        Some(wanted) => {
            let text = match is_chunked(head) {
                true => unchunked(body),
                false => body.to_vec(),
            };
            match find(&text, wanted.as_bytes()) {
                Some(_) => Verdict::Passed,
                None => Verdict::More,
            }
        }
        None => Verdict::Passed,
    }
}

fn incomplete(answer: &[u8], contains: Option<&str>) -> String {
    match (find(answer, b"\r\n\r\n"), contains) {
        (Some(_), Some(wanted)) => format!("the body does not contain {wanted:?}"),
        _ => "the answer breaks off".to_owned(),
    }
}

/// `HTTP/1.1 200 OK` → 200.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|&byte| byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let is_http = words.next()?.starts_with("HTTP/1.");
    let status = words.next()?;
    let is_status = is_http && status.len() == 3 && status.bytes().all(|b| b.is_ascii_digit());
    status.parse().ok().filter(|_| is_status)
}

fn is_chunked(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    head.lines()
        .filter_map(|line| line.strip_prefix("transfer-encoding:"))
        .any(|codings| codings.contains("chunked"))
}

/// The data of the chunks that are there so far.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let Some(end) = find(body, b"\r\n") {
        let (size, rest) = body.split_at(end);
        let size = size.split(|&byte| byte == b';').next().unwrap_or_default();
        let size = std::str::from_utf8(size).ok().map(str::trim);
        let Some(size) = size.and_then(|size| usize::from_str_radix(size, 16).ok()) else {
            break;
        };
        let rest = rest.get(2..).unwrap_or_default();
        data.extend_from_slice(rest.get(..size).unwrap_or(rest));
        match rest.get(size.saturating_add(2)..) {
            Some(next) if size > 0 => body = next,
            _ => break,
        }
    }
    data
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    match wanted.is_empty() {
        true => Some(0),
        false => text.windows(wanted.len()).position(|part| part == wanted),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const USUAL: (u16, u16) = (200, 399);

    fn judged(answer: &str, contains: Option<&str>) -> Verdict {
        judge(answer.as_bytes(), USUAL, contains)
    }

    #[test]
    fn the_status_decides_and_a_redirect_is_an_answer() {
        let of = |line: &str| judged(&format!("{line}\r\nA: b\r\n\r\n"), None);
        assert_eq!(of("HTTP/1.1 200 OK"), Verdict::Passed);
        assert_eq!(of("HTTP/1.0 302 Found"), Verdict::Passed);
        assert_eq!(of("HTTP/1.1 503 No"), Verdict::Failed("status 503".into()));
        for bad in [
            "HTTP/1.1 99999 OK",
            "HTTP/1.1 2a0",
            "SSH-2.0-x",
            "HTTP/1.1",
            "",
        ] {
            let Verdict::Failed(reason) = of(bad) else {
                panic!("{bad}");
            };
            assert!(reason.starts_with("this is no HTTP"), "{reason}");
        }
        assert_eq!(judged("HTTP/1.1 200 OK\r\nA: b", None), Verdict::More);
    }

    #[test]
    fn an_interim_answer_is_not_the_answer() {
        let early = "HTTP/1.1 103 Early Hints\r\n\r\n";
        assert_eq!(judged(early, None), Verdict::More);
        let both = format!("{early}HTTP/1.1 500 Oh\r\n\r\nsorry");
        assert_eq!(
            judged(&both, None),
            Verdict::Failed("status 500: sorry".into())
        );
    }

    #[test]
    fn a_body_is_searched_over_its_chunks() {
        let plain = "HTTP/1.1 200 OK\r\n\r\nall is well";
        assert_eq!(judged(plain, Some("is w")), Verdict::Passed);
        assert_eq!(judged(plain, Some("ill")), Verdict::More);
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nall i\r\n6\r\ns well\r\n0\r\n\r\n";
        assert_eq!(judged(chunked, Some("is well")), Verdict::Passed);
        assert_eq!(judged(chunked, Some("\r\n")), Verdict::More);
    }

    #[test]
    fn headers_without_end_are_given_up() {
        let endless = vec![b'a'; MOST_HEAD + 1];
        assert!(matches!(judge(&endless, USUAL, None), Verdict::Failed(_)));
    }

    // P15: the peer that answers and never ends is given up by size.
    #[tokio::test]
    async fn an_endless_body_is_given_up_by_its_size() {
        let (ours, mut theirs) = tokio::io::duplex(8192);
        let flood = tokio::spawn(async move {
            theirs.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let mut sent = 0_usize;
            while theirs.write_all(&[b'x'; 4096]).await.is_ok() {
                sent += 4096;
            }
            sent
        });
        let probe = HttpProbe {
            contains: Some("needle".to_owned()),
            ..HttpProbe::default()
        };
        let address = SocketAddr::from(([10, 0, 0, 2], 80));
        let refusal = ask(ours, &probe, address).await.unwrap_err();
        assert!(refusal.contains("does not contain"), "{refusal}");
        assert!(flood.await.unwrap() < ENOUGH + 64 * 1024);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes: Vec<u8>, head: bool) {
            let mut answer = if head { b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec() } else { Vec::new() };
            answer.extend(bytes);
            judge(&answer, USUAL, Some("x"));
        }
    }
}
