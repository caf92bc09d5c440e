//! Sends batches to one receiver for as long as there are any: connects, sends, and after a
//! failure waits and sends again what may not have arrived.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};

use super::Drain;
use super::batch::Batch;
use super::connect::{self, Link};
use super::reader::LAST;
use super::target::Protocol;
use super::window::Window;
use crate::chance;
use crate::durable::chain;

/// The pause after a first failure, and the longest.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(60);
/// A connection that stood for so long was a good one.
const STOOD: Duration = Duration::from_secs(10);
/// How long a receiver may leave a POST unanswered, or the kernel a byte of ours untaken:
/// it gives a connection up before that.
const STALLED: Duration = Duration::from_secs(60);
/// Bytes of an answer that are read (P15).
const ANSWER: usize = 64 * 1024;

/// Sends until nothing more comes.
pub(super) async fn run(drain: Arc<Drain>, mut from: mpsc::Receiver<Batch>) {
    let mut window = Window::default();
    let (mut pause, mut ending) = (FIRST, None);
    loop {
        // A POST needs something to say; syslog connects to show that it can.
        if drain.target.protocol == Protocol::Http && window.is_empty() {
            match from.recv().await {
                Some(batch) => window.push(batch),
                None => return,
            }
        }
        let (begun, sent) = (Instant::now(), drain.sent());
        match attempt(&drain, &mut window, &mut from).await {
            Ok(Next::Done) => return,
            Ok(Next::Again) => continue,
            Err(reason) => drain.failed(reason),
        }
        if begun.elapsed() > STOOD || drain.sent() > sent {
            pause = FIRST;
        }
        if from.is_closed() {
            let since = *ending.get_or_insert_with(Instant::now);
            if since.elapsed() > LAST {
                give_up(&drain, &mut window, &mut from).await;
                return;
            }
        }
        tokio::time::sleep(pause - chance::part_of(pause / 2)).await;
        pause = (pause * 2).min(LONGEST);
    }
}

enum Next {
    /// All was sent, and nothing more comes.
    Done,
    /// The connection ended while nothing was to be sent.
    Again,
}

async fn attempt(
    drain: &Drain,
    window: &mut Window,
    from: &mut mpsc::Receiver<Batch>,
) -> Result<Next, String> {
    let link = connect::open(&drain.target, drain.record.ca.as_deref()).await;
    let link = link.map_err(|error| chain(&error))?;
    match drain.target.protocol {
        Protocol::Syslog => {
            drain.works();
            syslog(drain, link, window, from).await
        }
        Protocol::Http => posts(drain, link, window, from).await,
    }
}

/// The last entries of a dyno that is gone found no receiver.
async fn give_up(drain: &Drain, window: &mut Window, from: &mut mpsc::Receiver<Batch>) {
    while let Some(batch) = window.pop() {
        drain.refused(&batch);
    }
    while let Some(batch) = from.recv().await {
        drain.refused(&batch);
    }
}

/// RFC 5425, and its framing over plain TCP. Nothing is ever answered.
async fn syslog(
    drain: &Drain,
    mut link: Box<dyn Link>,
    window: &mut Window,
    from: &mut mpsc::Receiver<Batch>,
) -> Result<Next, String> {
    window.connected();
    let mut ticks = interval(Duration::from_secs(1));
    let mut buffer = [0; 1024];
    let mut ended = None;
    loop {
        while let Some(payload) = window.unwritten() {
            send(&mut link, &payload).await?;
            window.wrote(link.tcp().written(), Instant::now());
            arrived(drain, &*link, window)?;
            drain.works();
        }
        let is_over = ended.is_some();
        tokio::select! {
            batch = from.recv(), if !is_over => match batch {
                Some(batch) => window.push(batch),
                None => {
                    let shut = timeout(STALLED, link.shutdown()).await;
                    shut.map_err(|_elapsed| stalled())?.map_err(|error| chain(&error))?;
                    ended = Some(Instant::now());
                    ticks = interval(Duration::from_millis(50));
                }
            },
            read = link.read(&mut buffer) => {
                let closed = match read {
                    Ok(0) => "the receiver has closed the connection".to_owned(),
                    Ok(_) => continue,
                    Err(error) => chain(&error),
                };
                return match is_over && is_acknowledged(&*link, window)? {
                    true => Ok(done(drain, window)),
                    false => Err(closed),
                };
            }
            _ = ticks.tick() => arrived(drain, &*link, window)?,
        }
        if let Some(ended) = ended {
            if is_acknowledged(&*link, window)? {
                return Ok(done(drain, window));
            }
            if ended.elapsed() > STALLED {
                return Err(stalled());
            }
        }
    }
}

/// Counts what has arrived by now.
fn arrived(drain: &Drain, link: &dyn Link, window: &mut Window) -> Result<(), String> {
    let acknowledged = link.tcp().acknowledged().map_err(|error| chain(&error))?;
    while let Some(batch) = window.arrived(acknowledged, Instant::now()) {
        drain.arrived(&batch);
    }
    Ok(())
}

fn is_acknowledged(link: &dyn Link, window: &Window) -> Result<bool, String> {
    let acknowledged = link.tcp().acknowledged().map_err(|error| chain(&error))?;
    Ok(window.is_acknowledged(acknowledged))
}

/// The last of it was acknowledged.
fn done(drain: &Drain, window: &mut Window) -> Next {
    while let Some(batch) = window.pop() {
        drain.arrived(&batch);
    }
    Next::Done
}

/// Writes all of it. A receiver may be slow, if it takes something now and then.
async fn send(write: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8]) -> Result<(), String> {
    while !bytes.is_empty() {
        let written = match timeout(STALLED, write.write(bytes)).await {
            Ok(Ok(0)) => return Err("the receiver takes nothing".to_owned()),
            Ok(Ok(written)) => written,
            Ok(Err(error)) => return Err(chain(&error)),
            Err(_) => return Err(stalled()),
        };
        bytes = bytes.get(written..).unwrap_or_default();
    }
    match timeout(STALLED, write.flush()).await {
        Ok(flushed) => flushed.map_err(|error| chain(&error)),
        Err(_) => Err(stalled()),
    }
}

fn stalled() -> String {
    format!("the receiver took nothing for {} s", STALLED.as_secs())
}

/// One POST after the other on one connection.
async fn posts(
    drain: &Drain,
    link: Box<dyn Link>,
    window: &mut Window,
    from: &mut mpsc::Receiver<Batch>,
) -> Result<Next, String> {
    let handshake = http1::handshake(TokioIo::new(link)).await;
    let (mut requests, connection) = handshake.map_err(|error| chain(&error))?;
    let mut connection = Connection(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a drain's connection ended");
        }
    }));
    loop {
        while window.is_empty() {
            tokio::select! {
                batch = from.recv() => match batch {
                    Some(batch) => window.push(batch),
                    None => return Ok(Next::Done),
                },
                _ = &mut connection.0 => return Ok(Next::Again),
            }
        }
        let Some(batch) = window.first() else {
            continue;
        };
        if batch.payload.is_empty() {
            window.pop().inspect(|batch| drain.arrived(batch));
            continue;
        }
        let request = request(drain, batch).map_err(|error| chain(&error))?;
        let answer = match timeout(STALLED, requests.send_request(request)).await {
            Ok(answer) => answer.map_err(|error| chain(&error))?,
            Err(_) => return Err(stalled()),
        };
        let status = answer.status();
        let read = timeout(STALLED, read_out(answer)).await;
        match status {
            status if status.is_success() => {
                if let Some(batch) = window.pop() {
                    drain.arrived(&batch);
                }
                drain.works();
            }
            // It will never take this one: the others shall not wait for that.
            StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY => {
                objected(drain, window, status);
            }
            status => return Err(format!("the receiver answers {status}")),
        }
        if !matches!(read, Ok(true)) {
            return Ok(Next::Again);
        }
    }
}

/// Its oldest batch was refused. One dyno may have written what no receiver takes: each
/// dyno's part is tried alone, and left out if it is refused again.
fn objected(drain: &Drain, window: &mut Window, status: StatusCode) {
    let Some(batch) = window.pop() else {
        return;
    };
    if batch.parts.len() > 1 {
        let parts = batch.split().into_iter().rev();
        parts.for_each(|part| window.push_first(part));
        return;
    }
    drain.objected(format!("the receiver refused entries with {status}"));
    drain.refused(&batch);
}

fn request(drain: &Drain, batch: &Batch) -> http::Result<Request<Full<bytes::Bytes>>> {
    Request::post(drain.target.path.as_str())
        .header(header::HOST, drain.target.authority())
        .header(header::CONTENT_TYPE, "application/x-ndjson")
        .header(
            header::USER_AGENT,
            concat!("dyno-hostd/", env!("CARGO_PKG_VERSION")),
        )
        .body(Full::new(batch.payload.clone()))
}

/// Reads an answer to its end; whether the connection can be used again.
async fn read_out(answer: Response<Incoming>) -> bool {
    let body = Limited::new(answer.into_body(), ANSWER);
    body.collect().await.is_ok()
}

/// Ends with its user.
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::sync::Mutex;

    use super::super::batch::tests::batch;
    use super::super::record::Record;
    use super::super::{State, target};
    use super::*;

    /// Takes bodies that do not say `poison`, on one connection: there is a pause only
    /// before another.
    fn receive(listener: &TcpListener) {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        loop {
            let (mut length, mut line) = (0, String::new());
            while line != "\r\n" {
                line.clear();
                if reader.read_line(&mut line).unwrap() == 0 {
                    return;
                }
                let lower = line.to_ascii_lowercase();
                if let Some(value) = lower.strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let status = match String::from_utf8(body).unwrap().contains("poison") {
                true => 400,
                false => 204,
            };
            write!(&stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    }

    #[tokio::test]
    async fn what_one_dyno_wrote_is_refused_for_it_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/in", listener.local_addr().unwrap());
        std::thread::spawn(move || receive(&listener));
        let drain = Arc::new(Drain {
            folder: "/nowhere".into(),
            target: target::parse(&url).unwrap(),
            host_name: "box".to_owned(),
            state: Mutex::new(State::default()),
            record: Record::new("web".parse().unwrap(), url),
        });
        let (to, from) = mpsc::channel(4);
        for _ in 0..4 {
            let mixed = batch(&[(1, "good\n"), (2, "poison\n"), (3, "good\n")]);
            to.send(mixed).await.unwrap();
        }
        drop(to);
        run(drain.clone(), from).await;
        let status = drain.shown().status;
        assert_eq!((status.sent, status.dropped, status.failures), (8, 4, 4));
        for number in 1..=3 {
            let id = dyno_api::name::DynoId::from_bytes([number; 6]);
            assert_eq!(drain.position(&id).offset, u64::from(number));
        }
    }
}
