//! Dynos that do nothing.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::super::api::call;
use super::super::host::{Host, IMAGE};

/// Starts as many, each with an address; their ids.
pub(super) fn start(host: &Host, count: usize) -> Result<Vec<String>> {
    (0..count)
        .map(|_| one(host, &["/bin/sleep", "3600"]))
        .collect()
}

/// Starts one with this command; its id.
pub(super) fn one(host: &Host, command: &[&str]) -> Result<String> {
    let spec = json!({
        "image": IMAGE, "command": command, "log": {"mode": "drop"},
        "stop_grace_ms": 0, "stop_signal": "SIGKILL",
    });
    let dyno = call(host.socket(), "POST", "/v1/dynos?start=true", &spec)?;
    let id = dyno["id"].as_str().context("an answer without id")?;
    Ok(id.to_owned())
}

/// Ends and removes them.
pub(super) fn remove(host: &Host, ids: impl IntoIterator<Item = String>) -> Result<()> {
    for id in ids {
        let path = format!("/v1/dynos/{id}?force=true");
        call(host.socket(), "DELETE", &path, &Value::Null)?;
    }
    Ok(())
}
