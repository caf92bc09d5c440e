//! A client's view of a log: the last lines, a filter, and what is still to come.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use dyno_api::dyno::LogLine;
use dyno_api::query::LogsQuery;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::files::LogFiles;
use super::line;

/// How long a new line may go unnoticed.
const POLL: Duration = Duration::from_millis(50);
/// Bytes that are handed over at once.
const BATCH: usize = 64 * 1024;

/// Sends a log as JSON lines until its end, or with `follow` until `ended`
/// said that no more will come. Ends early when nobody listens.
pub async fn stream(
    path: PathBuf,
    query: LogsQuery,
    ended: impl FnMut() -> bool,
    to: mpsc::Sender<io::Result<Bytes>>,
) {
    if let Err(error) = send(path, query, ended, &to).await
        && to.send(Err(error)).await.is_err()
    {
        tracing::debug!("the reader of a log went away");
    }
}

async fn send(
    path: PathBuf,
    query: LogsQuery,
    mut ended: impl FnMut() -> bool,
    to: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let (follow, until) = (query.follow, query.until);
    let mut reader = spawn_blocking(move || Reader::open(path, query)).await??;
    loop {
        // Asked before the read: what was written before the end is read after it.
        let last = ended() || until.is_some_and(|until| until <= Timestamp::now());
        let (batch, returned) = spawn_blocking(move || {
            let batch = reader.batch();
            (batch, reader)
        })
        .await?;
        reader = returned;
        let batch = batch?;
        if !batch.is_empty() {
            if to.send(Ok(batch)).await.is_err() {
                return Ok(());
            }
            continue;
        }
        if last || !follow {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = to.closed() => return Ok(()),
        }
    }
}

/// A position in a log, with a filter.
struct Reader {
    files: LogFiles,
    query: LogsQuery,
}

impl Reader {
    fn open(path: PathBuf, query: LogsQuery) -> io::Result<Self> {
        let mut reader = Self {
            files: LogFiles::open(&path)?,
            query,
        };
        if let Some(since) = reader.query.since {
            reader.files.skip_older_than(since.into())?;
        }
        if !reader.query.follow {
            reader.files.end_here()?;
        }
        if let Some(tail) = reader.query.tail {
            let query = &reader.query;
            reader.files.skip_to_last(tail, |bytes| {
                accept(query, bytes).is_some_and(|line| !line.partial)
            })?;
        }
        Ok(reader)
    }

    /// Some lines as JSON; empty when there are none yet.
    fn batch(&mut self) -> io::Result<Bytes> {
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            let next = if self.query.follow {
                self.files.next()?
            } else {
                self.files.next_known()?
            };
            let Some(bytes) = next else {
                break;
            };
            if let Some(line) = accept(&self.query, &bytes) {
                serde_json::to_writer(&mut batch, &line)?;
                batch.push(b'\n');
            }
        }
        Ok(batch.into())
    }
}

/// The line, where it is one that is asked for.
fn accept(query: &LogsQuery, bytes: &[u8]) -> Option<LogLine> {
    let line = line::parse(bytes)?;
    let late_enough = query.since.is_none_or(|since| line.time >= since);
    let early_enough = query.until.is_none_or(|until| line.time < until);
    let right_stream = query.stream.is_none_or(|stream| line.stream == stream);
    (late_enough && early_enough && right_stream).then_some(line)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use dyno_api::dyno::Stream;

    use super::*;

    fn append(path: &Path, second: u32, stream: &str, flag: char, text: &str) {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        writeln!(file, "2026-11-22T15:00:{second:02}Z {stream} {flag} {text}").unwrap();
    }

    async fn read(path: &Path, query: LogsQuery) -> Vec<String> {
        let (to, mut from) = mpsc::channel(4);
        let task = tokio::spawn(stream(path.to_owned(), query, || true, to));
        let mut text = String::new();
        while let Some(batch) = from.recv().await {
            text.push_str(std::str::from_utf8(&batch.unwrap()).unwrap());
        }
        task.await.unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<LogLine>(line).unwrap().line)
            .collect()
    }

    #[tokio::test]
    async fn tail_since_and_stream_choose_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        append(&path, 1, "stdout", 'F', "a");
        append(&path, 2, "stderr", 'F', "b");
        append(&path, 3, "stdout", 'P', "c1");
        append(&path, 3, "stdout", 'F', "c2");
        let all = LogsQuery::default();
        assert_eq!(read(&path, all.clone()).await, ["a", "b", "c1", "c2"]);
        assert_eq!(
            read(
                &path,
                LogsQuery {
                    tail: Some(1),
                    ..all.clone()
                }
            )
            .await,
            ["c1", "c2"]
        );
        assert_eq!(
            read(
                &path,
                LogsQuery {
                    tail: Some(0),
                    ..all.clone()
                }
            )
            .await,
            Vec::<String>::new()
        );
        assert_eq!(
            read(
                &path,
                LogsQuery {
                    tail: Some(9),
                    ..all.clone()
                }
            )
            .await
            .len(),
            4
        );
        let since = Some("2026-11-22T15:00:02Z".parse().unwrap());
        assert_eq!(
            read(
                &path,
                LogsQuery {
                    since,
                    ..all.clone()
                }
            )
            .await,
            ["b", "c1", "c2"]
        );
        let until = Some("2026-11-22T15:00:02Z".parse().unwrap());
        assert_eq!(
            read(
                &path,
                LogsQuery {
                    until,
                    ..all.clone()
                }
            )
            .await,
            ["a"]
        );
        let stream = Some(Stream::Stderr);
        assert_eq!(
            read(
                &path,
                LogsQuery {
                    stream,
                    tail: Some(1),
                    ..all
                }
            )
            .await,
            ["b"]
        );
    }

    #[tokio::test]
    async fn who_does_not_follow_is_not_kept_by_a_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        append(&path, 1, "stdout", 'F', "before");
        let (to, mut from) = mpsc::channel(4);
        let writer = path.clone();
        // Asked before each read: there is always one more line.
        let ended = move || {
            append(&writer, 2, "stdout", 'F', "after");
            false
        };
        let task = tokio::spawn(stream(path, LogsQuery::default(), ended, to));
        let read = async {
            let mut text = Vec::new();
            while let Some(batch) = from.recv().await {
                text.extend_from_slice(&batch.unwrap());
            }
            String::from_utf8(text).unwrap()
        };
        let text = tokio::time::timeout(Duration::from_secs(5), read).await;
        let text = text.expect("an end");
        assert!(text.contains("before") && !text.contains("after"), "{text}");
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_follower_gets_every_line_and_ends_with_the_dyno() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let over = Arc::new(AtomicBool::new(false));
        let (to, mut from) = mpsc::channel(4);
        let query = LogsQuery {
            follow: true,
            ..LogsQuery::default()
        };
        let ended = {
            let over = over.clone();
            move || over.load(Ordering::SeqCst)
        };
        let task = tokio::spawn(stream(path.clone(), query, ended, to));
        append(&path, 1, "stdout", 'F', "first");
        assert!(from.recv().await.unwrap().unwrap().starts_with(b"{"));
        append(&path, 2, "stdout", 'F', "last");
        over.store(true, Ordering::SeqCst);
        let mut rest = Vec::new();
        while let Some(batch) = from.recv().await {
            rest.extend_from_slice(&batch.unwrap());
        }
        assert!(String::from_utf8(rest).unwrap().contains("last"));
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_follower_that_leaves_ends_the_stream() {
        let folder = tempfile::tempdir().unwrap();
        let (to, from) = mpsc::channel(1);
        let query = LogsQuery {
            follow: true,
            ..LogsQuery::default()
        };
        let task = tokio::spawn(stream(folder.path().join("log"), query, || false, to));
        drop(from);
        tokio::time::timeout(Duration::from_secs(5), task)
            .await
            .unwrap()
            .unwrap();
    }
}
