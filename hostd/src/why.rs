//! Why a dyno is as it is: gathers what is known of it, and has it explained.

mod explain;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use dyno_api::dyno::{Dyno, LogLine, Phase};
use dyno_api::error::ApiError;
use dyno_api::query::LogsQuery;
use dyno_api::why::{Cause, Why};
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::host::Host;
use crate::{engine, logs, stats};

/// Lines of output that are shown.
const LINES: usize = 10;

/// Everything that explains how this dyno is.
///
/// # Errors
/// NotFound.
pub async fn why(host: &Arc<Host>, wanted: &str) -> Result<Why, ApiError> {
    let dyno = engine::find(host, wanted)?.dyno();
    let has_processes = matches!(dyno.status.phase, Phase::Running | Phase::Stopping);
    let stats = match has_processes {
        true => stats::measure(host, &dyno.id).await.ok(),
        false => None,
    };
    let findings = explain::explain(&dyno, stats.as_ref(), Timestamp::now());
    let is_well = matches!(findings.first(), Some(first) if first.cause == Cause::Running);
    let log = match is_well {
        true => Vec::new(),
        false => last_lines(host, &dyno).await,
    };
    Ok(Why {
        dyno: dyno.id,
        name: dyno.name,
        findings,
        status: dyno.status,
        restart: dyno.spec.restart,
        stats,
        log,
    })
}

async fn last_lines(host: &Host, dyno: &Dyno) -> Vec<LogLine> {
    let query = LogsQuery {
        tail: Some(LINES),
        ..LogsQuery::default()
    };
    let (to, mut from) = mpsc::channel::<io::Result<Bytes>>(1);
    let path = host.paths.dyno(&dyno.id).log();
    tokio::spawn(logs::stream(path, query, || true, to));
    // A line without an end comes in any number of parts (P15). A batch holds
    // whole ones.
    let mut last = VecDeque::new();
    while let Some(Ok(batch)) = from.recv().await {
        let lines = batch.split(|&byte| byte == b'\n');
        for line in lines.filter_map(|line| serde_json::from_slice(line).ok()) {
            if last.len() == LINES {
                last.pop_front();
            }
            last.push_back(line);
        }
    }
    last.into()
}
