//! The bench's client of hostd's API: HTTP/1.1 on its socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// One request on a connection of its own.
pub(super) fn call(socket: &Path, method: &str, path: &str, body: &Value) -> Result<Value> {
    let answer = Connection::open(socket)?.request(method, path, body)?;
    if answer.is_empty() {
        return Ok(Value::Null);
    }
    Ok(serde_json::from_slice(&answer)?)
}

/// A connection that stays.
pub(super) struct Connection(BufReader<UnixStream>);

impl Connection {
    pub(super) fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// The answer's body; what is no success is an error.
    pub(super) fn request(&mut self, method: &str, path: &str, body: &Value) -> Result<Vec<u8>> {
        let body = match body {
            Value::Null => Vec::new(),
            body => serde_json::to_vec(body)?,
        };
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: hostd\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend(body);
        self.0.get_mut().write_all(&request)?;
        let status = self.line()?;
        let mut length = 0;
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            }
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer)?;
        let code = status.split(' ').nth(1).unwrap_or_default();
        let text = || String::from_utf8_lossy(&answer);
        ensure!(
            code.starts_with('2'),
            "{method} {path}: {status}: {}",
            text()
        );
        Ok(answer)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line)?;
        ensure!(read > 0, "the connection was closed");
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}
