//! hostd's own log in the journal of systemd, with fields that can be asked for:
//! `journalctl DYNO_ID=0123456789ab`. Used where standard error leads to the journal
//! (`JOURNAL_STREAM`, systemd.exec(5)).
//!
//! The protocol is that of systemd's "Native Journal Protocol": one datagram per entry.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::io::{self, Write as _};
use std::os::linux::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

const SOCKET: &str = "/run/systemd/journal/socket";
/// How long hostd waits for a journal that does not take entries.
const PATIENCE: Duration = Duration::from_secs(1);
/// P15: bytes of one field.
const MAX_FIELD: usize = 16 * 1024;

/// A way into the journal.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    /// hostd's unit. The journal takes the unit for that of the sender's cgroup, and hostd
    /// moves to that of its dynos; `journalctl -u` looks at this field, too, where root has
    /// set it.
    unit: Option<String>,
}

impl Journal {
    /// The journal, where standard error leads to it.
    pub fn of_stderr() -> Option<Self> {
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        let stderr = fs::metadata("/proc/self/fd/2").ok()?;
        if stream != format!("{}:{}", stderr.st_dev(), stderr.st_ino()) {
            return None;
        }
        let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::at(Path::new(SOCKET), unit(&cgroups)).ok()
    }

    fn at(path: &Path, unit: Option<String>) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.connect(path)?;
        Ok(Self { socket, unit })
    }
}

/// The service whose cgroup this is, as `/proc/PID/cgroup` has it.
fn unit(cgroups: &str) -> Option<String> {
    let own = cgroups.lines().find_map(|line| {
        line.strip_prefix("0::")
            .or(line.split_once("name=systemd:").map(|(_, path)| path))
    })?;
    let last = own.rsplit('/').find(|name| name.ends_with(".service"))?;
    Some(last.to_owned())
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let priority = priority(*event.metadata().level());
        let entry = fields.entry(priority, self.unit.as_deref());
        if self.socket.send(&entry).is_ok() {
            return;
        }
        // The journal is restarted, or the entry too large: the stream takes a prefix for
        // the priority, sd-daemon(3).
        let line = format!("<{priority}>{}\n", fields.text());
        if io::stderr().write_all(line.as_bytes()).is_err() {
            // There is nowhere left to say so.
        }
    }
}

/// syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// The fields of one event.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: BTreeMap<&'static str, String>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field.name(), format!("{value:?}"));
    }
}

impl Fields {
    fn set(&mut self, name: &'static str, mut value: String) {
        value.truncate(value.floor_char_boundary(MAX_FIELD));
        match name {
            "message" => self.message = value,
            _ => drop(self.others.insert(name, value)),
        }
    }

    /// As a line for people.
    fn text(&self) -> String {
        let mut text = self.message.clone();
        for (name, value) in &self.others {
            if write!(text, " {name}={value}").is_err() {
                return text;
            }
        }
        text.replace('\n', " ")
    }

    /// As a datagram.
    fn entry(&self, priority: u8, unit: Option<&str>) -> Vec<u8> {
        let mut entry = Vec::new();
        let mut put = |name: &str, value: &str| put(&mut entry, name, value);
        put("MESSAGE", &self.text());
        put("PRIORITY", &priority.to_string());
        put("SYSLOG_IDENTIFIER", "hostd");
        if let Some(unit) = unit {
            put("OBJECT_SYSTEMD_UNIT", unit);
        }
        for (name, value) in &self.others {
            put(&field_name(name), value);
        }
        entry
    }
}

/// A value with a newline has its length before it.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

/// systemd.journal-fields(7): capital letters, digits and underscores.
fn field_name(name: &str) -> String {
    match name {
        "dyno" => return "DYNO_ID".to_owned(),
        "name" => return "DYNO_NAME".to_owned(),
        _ => {}
    }
    let plain = name.chars().map(|c| match c.is_ascii_alphanumeric() {
        true => c.to_ascii_uppercase(),
        false => '_',
    });
    "HOSTD_".chars().chain(plain).take(64).collect()
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// An entry as the journal reads it.
    fn parse(mut entry: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while !entry.is_empty() {
            let end = entry.iter().position(|byte| b"=\n".contains(byte)).unwrap();
            let (name, rest) = entry.split_at(end);
            let (length, value) = match rest[0] {
                b'=' => (
                    rest.iter().position(|byte| *byte == b'\n').unwrap() - 1,
                    &rest[1..],
                ),
                _ => {
                    let (length, value) = rest[1..].split_first_chunk::<8>().unwrap();
                    (usize::try_from(u64::from_le_bytes(*length)).unwrap(), value)
                }
            };
            assert_eq!(value[length], b'\n');
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            fields.insert(text(name), text(&value[..length]));
            entry = &value[length + 1..];
        }
        fields
    }

    #[test]
    fn an_event_is_an_entry_with_its_fields() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let layer = Journal::at(&path, Some("hostd.service".to_owned())).unwrap();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let error = "two\nlines=x";
            tracing::warn!(dyno = "0123456789ab", error, "it is = amiss");
        });
        let mut entry = vec![0; 4096];
        let length = journal.recv(&mut entry).unwrap();
        let fields = parse(&entry[..length]);
        let expected = [
            ("DYNO_ID", "0123456789ab"),
            ("HOSTD_ERROR", "two\nlines=x"),
            (
                "MESSAGE",
                "it is = amiss dyno=0123456789ab error=two lines=x",
            ),
            ("OBJECT_SYSTEMD_UNIT", "hostd.service"),
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "hostd"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(fields, BTreeMap::from(expected));
    }

    #[test]
    fn the_unit_is_that_of_the_cgroup_that_hostd_began_in() {
        let of = |cgroups| unit(cgroups);
        let hostd = Some("hostd.service".to_owned());
        assert_eq!(of("0::/system.slice/hostd.service\n"), hostd);
        let hybrid = "4:pids:/system.slice/x.service\n1:name=systemd:/system.slice/hostd.service\n";
        assert_eq!(of(hybrid), hostd);
        assert_eq!(of("0::/user.slice/session-1.scope\n"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn no_field_is_longer_than_allowed_and_names_are_the_journals() {
        let mut fields = Fields::default();
        fields.set("error", "\u{e9}".repeat(MAX_FIELD));
        assert!(fields.others["error"].len() <= MAX_FIELD);
        assert_eq!(field_name("missed.files"), "HOSTD_MISSED_FILES");
        assert_eq!(field_name(&"x".repeat(99)).len(), 64);
    }
}
