//! How long the API takes from a request to a running dyno.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::host::{Host, IMAGE};
use super::statistics::Samples;

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// From `POST /v1/dynos?start=true` to its answer, which comes when the
/// dyno's program was executed; by network.
pub(super) fn measure(host: &Host, rounds: usize) -> Result<Vec<(&'static str, Samples)>> {
    let mut all = Vec::new();
    for net in ["none", "default"] {
        let mut samples = Samples::default();
        for round in 0..=rounds {
            let spec = json!({
                "image": IMAGE, "command": ["/bin/sleep", "60"], "net": net,
                "stop_grace_ms": 0, "stop_signal": "SIGKILL",
            });
            let started = Instant::now();
            let dyno = call(host.socket(), "POST", "/v1/dynos?start=true", &spec)?;
            let sample = started.elapsed();
            ensure!(dyno["status"]["phase"] == "running", "not running: {dyno}");
            let id = dyno["id"].as_str().context("an answer without id")?;
            call(
                host.socket(),
                "DELETE",
                &format!("/v1/dynos/{id}?force=true"),
                &Value::Null,
            )?;
            if round > 0 {
                samples.push(sample);
            }
        }
        all.push((net, samples));
    }
    Ok(all)
}

/// One HTTP request on a connection of its own.
pub(super) fn call(socket: &Path, method: &str, path: &str, body: &Value) -> Result<Value> {
    let body = if body.is_null() {
        Vec::new()
    } else {
        serde_json::to_vec(body)?
    };
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: hostd\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status.starts_with('2'), "{method} {path}: {answer}");
    if body.is_empty() {
        Ok(Value::Null)
    } else {
        Ok(serde_json::from_str(body)?)
    }
}
