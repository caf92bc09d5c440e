//! `dyno debug bundle`: what a bug report needs, and no secret.
//!
//! What hostd tells, as its API has it, and what the kernel tells of itself. Of a
//! dyno's specification everything goes in whose *value* its owner has not chosen
//! freely: variables, labels, arguments, and what its checks ask for and get are
//! replaced. Its output and its files are its own and stay out.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use dyno_api::client::Client;
use dyno_api::dyno::{Dyno, DynoSpec};
use dyno_api::event::What;
use dyno_api::health::{Check, GrpcProbe, HttpProbe, Probe};
use dyno_api::query::EventsQuery;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde::Serialize;
use tar::{Builder, Header};

use crate::command::Context;
use crate::failure::Failure;

/// What stands where something was.
const REDACTED: &str = "[redacted]";

/// What the kernel tells, and the most of each that goes in, in bytes (P15).
const FILES: [&str; 5] = [
    "/proc/version",
    "/proc/cgroups",
    "/proc/filesystems",
    "/proc/meminfo",
    "/proc/pressure/memory",
];
const MAX_FILE: u64 = 256 * 1024;

/// Write an archive for a bug report: hostd, its dynos and the kernel, without
/// variables, labels, arguments, output or files
#[derive(Debug, Args)]
pub(crate) struct Bundle {
    /// The archive, a tar.gz; - is the standard output [default: dyno-debug-TIME.tar.gz]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Bundle {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        let now = Timestamp::now();
        let output = self.output.unwrap_or_else(|| {
            let time = now.strftime("%Y%m%dT%H%M%SZ");
            format!("dyno-debug-{time}.tar.gz").into()
        });
        let entries = collect(&client).await?;
        if output == Path::new("-") {
            write(io::stdout().lock(), &entries, now)?;
            return Ok(0);
        }
        let shown = output.display().to_string();
        let failed = |error| Failure::io(format!("cannot write {shown}"), &error);
        write(create(&output).map_err(failed)?, &entries, now).map_err(failed)?;
        context.output.line(&shown)?;
        Ok(0)
    }
}

/// One that is nobody else's to read, and was not there.
fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Names and contents of what goes in.
type Entries = Vec<(String, Vec<u8>)>;

async fn collect(client: &Client) -> Result<Entries, Failure> {
    let mut entries = vec![
        json("client.json", &env!("CARGO_PKG_VERSION"))?,
        json("version.json", &client.version().await?)?,
        json("info.json", &client.info().await?)?,
        json("images.json", &client.images().await?)?,
    ];
    let mut dynos = client.dynos().await?;
    dynos.iter_mut().for_each(redact);
    entries.push(json("dynos.json", &dynos)?);
    for dyno in &dynos {
        // One that does not run has none.
        if let Ok(stats) = client.stats(dyno.id.as_str()).await {
            entries.push(json(&format!("stats/{}.json", dyno.name), &stats)?);
        }
    }
    let query = EventsQuery {
        since: Some(0),
        follow: false,
    };
    let mut events = client.events(&query).await?;
    let mut lines = Vec::new();
    while let Some(mut event) = events.next().await? {
        // What a check was answered.
        if let What::DynoHealth {
            reason: Some(reason),
            ..
        } = &mut event.what
        {
            REDACTED.clone_into(reason);
        }
        serde_json::to_writer(&mut lines, &event).map_err(io::Error::from)?;
        lines.push(b'\n');
    }
    entries.push(("events.jsonl".to_owned(), lines));
    for path in FILES {
        let mut text = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut text));
        // A kernel without it has said so.
        let text = read.map_or_else(|error| error.to_string().into_bytes(), |_| text);
        entries.push((format!("kernel/{}", path[1..].replace('/', "-")), text));
    }
    Ok(entries)
}

fn json(name: &str, value: &impl Serialize) -> Result<(String, Vec<u8>), Failure> {
    let text = serde_json::to_vec_pretty(value).map_err(io::Error::from)?;
    Ok((name.to_owned(), text))
}

/// Takes out what may be a secret.
fn redact(dyno: &mut Dyno) {
    let DynoSpec {
        env,
        labels,
        command,
        entrypoint,
        health,
        config_files,
        ..
    } = &mut dyno.spec;
    let checks = [
        &mut health.startup,
        &mut health.liveness,
        &mut health.readiness,
    ];
    checks.into_iter().flatten().for_each(redact_check);
    // Lists do not tell it anyway.
    config_files.iter_mut().for_each(|file| file.content = None);
    let arguments = command.iter_mut().chain(entrypoint.iter_mut().flatten());
    for value in env.values_mut().chain(labels.values_mut()).chain(arguments) {
        REDACTED.clone_into(value);
    }
    // It may name the program, and what it or a check has said.
    let status = &mut dyno.status;
    let said = [&mut status.reason, &mut status.status_text];
    let failed = status.failed_check.as_mut().map(|check| &mut check.reason);
    for said in said.into_iter().flatten().chain(failed) {
        REDACTED.clone_into(said);
    }
}

fn redact_check(check: &mut Check) {
    match &mut check.probe {
        Probe::Tcp { port: _ } => {}
        Probe::Http(HttpProbe {
            path,
            host,
            contains,
            ..
        }) => {
            for word in [path, host, contains].into_iter().flatten() {
                REDACTED.clone_into(word);
            }
        }
        Probe::Grpc(GrpcProbe { service, host, .. }) => {
            for word in [service, host].into_iter().flatten() {
                REDACTED.clone_into(word);
            }
        }
        Probe::Command { command } => {
            for word in command {
                REDACTED.clone_into(word);
            }
        }
    }
}

fn write(to: impl Write, entries: &Entries, now: Timestamp) -> io::Result<()> {
    let mut archive = Builder::new(GzEncoder::new(to, Compression::default()));
    for (name, content) in entries {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(now.as_second()).unwrap_or(0));
        let path = Path::new("dyno-debug").join(name);
        archive.append_data(&mut header, path, content.as_slice())?;
    }
    archive.into_inner()?.finish()?.flush()
}
