//! `dyno cp`: files between a dyno and here.
//!
//! ```text
//! pack     what is here, as a tar stream
//! extract  a tar stream, put here: nothing leaves its folder
//! ```

mod extract;
mod pack;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use dyno_api::client::{Client, Download};
use dyno_api::query::ArchiveQuery;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::Context;
use crate::failure::Failure;

/// Chunks that wait to be written here.
const CHUNKS: usize = 4;

/// Copy files between a dyno, running or not, and here
///
/// One of the two is DYNO:PATH, the other a path of this machine or - for a tar
/// stream. A folder that is there gets the copy into it, else the copy gets the
/// name. Owners are kept in a stream; of files that are copied into a dyno its
/// root is the owner, of files that are copied here you are, without setuid bits.
#[derive(Debug, Args)]
#[command(override_usage = "dyno cp DYNO:PATH PATH|-\n       dyno cp PATH|- DYNO:PATH")]
pub(crate) struct Cp {
    /// What is copied
    #[arg(value_parser = parse)]
    from: Place,
    /// Where to
    #[arg(value_parser = parse)]
    to: Place,
}

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Dyno { dyno: String, path: String },
    Here(PathBuf),
    Stream,
}

/// `DYNO:PATH`; a path of this machine that has a colon has a slash before it.
fn parse(text: &str) -> Result<Place, String> {
    if text == "-" {
        return Ok(Place::Stream);
    }
    match text.split_once(':') {
        Some((dyno, path)) if !dyno.is_empty() && !dyno.contains('/') => {
            let slash = if path.starts_with('/') { "" } else { "/" };
            Ok(Place::Dyno {
                dyno: dyno.to_owned(),
                path: format!("{slash}{path}"),
            })
        }
        _ if text.is_empty() => Err("a path is missing".to_owned()),
        _ => Ok(Place::Here(text.into())),
    }
}

impl Cp {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        match (self.from, self.to) {
            (Place::Dyno { dyno, path }, to) if !matches!(to, Place::Dyno { .. }) => {
                let client = context.client().await?;
                let name = base(Path::new(&path));
                let query = ArchiveQuery { path };
                let archive = client.archive(&dyno, &query).await?;
                match to {
                    Place::Here(to) => out(archive, to, &name).await?,
                    _ => stream_out(archive).await?,
                }
            }
            (from, Place::Dyno { dyno, path }) if !matches!(from, Place::Dyno { .. }) => {
                let client = context.client().await?;
                let query = ArchiveQuery { path };
                match from {
                    Place::Here(from) => into(&client, &dyno, &query, from).await?,
                    _ => {
                        client
                            .put_archive(&dyno, &query, tokio::io::stdin())
                            .await?
                    }
                }
            }
            _ => {
                return Err(Failure::usage(
                    "one of the two is DYNO:PATH, and the other is not",
                ));
            }
        }
        Ok(0)
    }
}

/// The name of a copy in a folder that is there.
fn base(path: &Path) -> PathBuf {
    path.file_name().unwrap_or("rootfs".as_ref()).into()
}

async fn stream_out(mut archive: Download) -> Result<(), Failure> {
    let mut stdout = tokio::io::stdout();
    while let Some(bytes) = archive.next().await? {
        let written = stdout.write_all(&bytes).await;
        written.map_err(|error| Failure::io("cannot write the archive", &error))?;
    }
    let flushed = stdout.flush().await;
    flushed.map_err(|error| Failure::io("cannot write the archive", &error))
}

async fn out(mut archive: Download, to: PathBuf, name: &Path) -> Result<(), Failure> {
    let (chunks, taken) = mpsc::channel(CHUNKS);
    let name = name.to_owned();
    let shown = to.display().to_string();
    let extracting =
        tokio::task::spawn_blocking(move || extract::extract(Chunks::new(taken), &to, &name));
    let received = async {
        while let Some(bytes) = archive.next().await? {
            if chunks.send(bytes).await.is_err() {
                break;
            }
        }
        drop(chunks);
        Ok::<(), Failure>(())
    };
    let received = received.await;
    let extracted = extracting
        .await
        .map_err(|error| Failure::new(error.to_string()))?;
    let left_out = match (received, extracted) {
        // What was extracted of an archive that broke off says nothing.
        (Err(failure), _) => return Err(failure),
        (Ok(()), Err(error)) => {
            return Err(Failure::io(format!("cannot write to {shown}"), &error));
        }
        (Ok(()), Ok(left_out)) => left_out,
    };
    if left_out > 0 {
        eprintln!("{left_out} devices, fifos and the like were left out");
    }
    Ok(())
}

async fn into(
    client: &Client,
    dyno: &str,
    query: &ArchiveQuery,
    from: PathBuf,
) -> Result<(), Failure> {
    let unreadable = |error| Failure::io(format!("cannot read {}", from.display()), &error);
    // A missing path is told before anything is asked of the dyno.
    from.symlink_metadata().map_err(unreadable)?;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(unreadable)?;
    theirs.set_nonblocking(true).map_err(unreadable)?;
    let theirs = tokio::net::UnixStream::from_std(theirs).map_err(unreadable)?;
    let source = from.clone();
    let packing = tokio::task::spawn_blocking(move || pack::pack(&source, &base(&source), ours));
    let put = client.put_archive(dyno, query, theirs).await;
    let packed = packing
        .await
        .map_err(|error| Failure::new(error.to_string()))?;
    match (put, packed) {
        // hostd may have had enough before the end.
        (Err(error), _) => Err(error.into()),
        (Ok(()), Err(error)) => Err(unreadable(error)),
        (Ok(()), Ok(())) => Ok(()),
    }
}

/// Chunks as one stream that is read where waiting is allowed.
struct Chunks {
    from: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Chunks {
    fn new(from: mpsc::Receiver<Bytes>) -> Self {
        let current = Bytes::new();
        Self { from, current }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.from.blocking_recv() {
                Some(bytes) => self.current = bytes,
                None => return Ok(0),
            }
        }
        let length = self.current.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dyno_is_what_stands_before_a_colon_and_has_no_slash() {
        let dyno = |dyno: &str, path: &str| Place::Dyno {
            dyno: dyno.to_owned(),
            path: path.to_owned(),
        };
        for (text, place) in [
            ("web:/etc", dyno("web", "/etc")),
            ("web:etc/a:b", dyno("web", "/etc/a:b")),
            ("web:", dyno("web", "/")),
            ("-", Place::Stream),
            ("./web:1", Place::Here("./web:1".into())),
            ("/a:b", Place::Here("/a:b".into())),
            ("plain", Place::Here("plain".into())),
        ] {
            assert_eq!(parse(text), Ok(place), "{text}");
        }
        assert!(parse("").is_err());
    }
}
