//! Where failures are told: to people on standard error, to callers in a file.
//!
//! The forms are those of runc (its logger is logrus), which containerd and
//! Podman parse: `{"level":"error","msg":"…","time":"…"}` a line, or
//! `time="…" level=error msg="…"`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::OnceLock;

use jiff::Timestamp;
use serde_json::json;

/// How lines of a log file look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// key=value
    Text,
    /// One object a line
    Json,
}

/// What is told about; runc's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Debug,
    Warning,
    Error,
}

static LOG: OnceLock<Log> = OnceLock::new();

#[derive(Debug)]
struct Log {
    file: Option<File>,
    format: Format,
    debug: bool,
}

/// Sets the log up, once per process.
///
/// # Errors
/// When the file cannot be opened.
pub(super) fn open(path: Option<&Path>, format: Format, debug: bool) -> io::Result<()> {
    let open = |path| OpenOptions::new().create(true).append(true).open(path);
    let file = path.map(open).transpose()?;
    // A second call would come from a second command line.
    LOG.set(Log {
        file,
        format,
        debug,
    })
    .map_err(|_set| io::ErrorKind::AlreadyExists.into())
}

/// Longer messages are cut, in bytes: values of a configuration are quoted in them.
const LONGEST: usize = 2000;

/// One line that no terminal obeys, whatever a configuration had written into it.
fn tame(message: &str) -> String {
    let mut tamed = String::with_capacity(message.len().min(LONGEST));
    for character in message.trim_end().chars() {
        if tamed.len() >= LONGEST {
            tamed.push('…');
            break;
        }
        match character.is_control() {
            true => tamed.extend(character.escape_default()),
            false => tamed.push(character),
        }
    }
    tamed
}

/// Tells one thing. If it cannot be told there is nobody to tell that to.
pub(super) fn tell(level: Level, message: &str) {
    let message = &tame(message);
    let Some(log) = LOG.get() else {
        writeln!(io::stderr(), "dyno-runtime: {message}").ok();
        return;
    };
    if level == Level::Debug && !log.debug {
        return;
    }
    if let Some(mut file) = log.file.as_ref() {
        file.write_all(line(log.format, level, message, Timestamp::now()).as_bytes())
            .ok();
    }
    if level == Level::Error || log.file.is_none() {
        writeln!(io::stderr(), "dyno-runtime: {message}").ok();
    }
}

fn line(format: Format, level: Level, message: &str, time: Timestamp) -> String {
    let level = match level {
        Level::Debug => "debug",
        Level::Warning => "warning",
        Level::Error => "error",
    };
    let time = time.strftime("%Y-%m-%dT%H:%M:%SZ");
    match format {
        Format::Json => {
            let line = json!({"level": level, "msg": message, "time": time.to_string()});
            format!("{line}\n")
        }
        Format::Text => format!("time=\"{time}\" level={level} msg={message:?}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_that_no_terminal_obeys() {
        assert_eq!(tame("a\nb\u{1b}[31m ü\n"), "a\\nb\\u{1b}[31m ü");
        assert!(tame(&"x".repeat(70_000)).len() < LONGEST + 10);
    }

    #[test]
    fn lines_are_those_that_callers_of_runc_parse() {
        let time = Timestamp::UNIX_EPOCH;
        assert_eq!(
            line(Format::Json, Level::Error, "a \"b\"", time),
            "{\"level\":\"error\",\"msg\":\"a \\\"b\\\"\",\"time\":\"1970-01-01T00:00:00Z\"}\n"
        );
        assert_eq!(
            line(Format::Text, Level::Warning, "a \"b\"", time),
            "time=\"1970-01-01T00:00:00Z\" level=warning msg=\"a \\\"b\\\"\"\n"
        );
    }
}
