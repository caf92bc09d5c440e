//! systemd, asked over D-Bus for scopes: what `--systemd-cgroup` means.
//!
//! ```text
//!  unit       a group that is a scope: made, changed, stopped     holder  who is in it first
//!  properties limits as systemd has them
//!  bus        a connection                   wire  messages as bytes
//! ```
//!
//! The few messages that this takes do not justify a D-Bus crate: zbus brings an
//! asynchronous runtime, libdbus a C library.

mod bus;
mod holder;
mod properties;
mod unit;
mod wire;

use std::io;
use std::path::{Path, PathBuf};

use bus::Bus;
pub(super) use holder::Holder;
use wire::Value;

/// systemd cannot be reached or does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error(
        "systemd does not run here ({looked_for} does not exist): leave out --systemd-cgroup, \
         and in the engine set the cgroup manager to cgroupfs"
    )]
    Absent {
        /// What shows that it runs.
        looked_for: String,
    },
    /// The user's bus is not known.
    #[error(
        "no bus of the user's systemd: neither DBUS_SESSION_BUS_ADDRESS=unix:path=… nor \
         XDG_RUNTIME_DIR/bus; log in anew, or install dbus-user-session"
    )]
    NoUserBus,
    /// The socket does not answer as it should.
    #[error("cannot talk to systemd on {}", socket.display())]
    Connection {
        /// The socket.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// systemd refuses.
    #[error("systemd refuses {method}: {text} ({name})")]
    Answer {
        /// What it was asked for.
        method: String,
        /// The name of its error.
        name: String,
        /// Its words.
        text: String,
    },
    /// An answer has another form than documented, org.freedesktop.systemd1(5).
    #[error("systemd's answer to {method} makes no sense")]
    Nonsense {
        /// What it was asked for.
        method: &'static str,
    },
    /// A job ended otherwise than well.
    #[error("systemd could not {action} {unit}: the job is {result}")]
    Job {
        /// What was asked for, as a verb.
        action: &'static str,
        /// The unit.
        unit: String,
        /// `failed`, `timeout`, `canceled`, …
        result: String,
    },
    /// An annotation gives a property that cannot be understood.
    #[error("annotation org.systemd.property.{name}: {value:?} is not understood: {reason}")]
    Annotation {
        /// The property.
        name: String,
        /// Its value.
        value: String,
        /// What would be.
        reason: &'static str,
    },
    /// Nobody holds the new scope open.
    #[error("cannot clone a process to hold the scope open")]
    Holder(#[source] io::Error),
}

type Result<T> = std::result::Result<T, Error>;

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// Whether the machine was booted with systemd, sd_booted(3).
#[must_use]
pub fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Stops a unit, or finds it gone.
pub(super) fn stop(unit: &str, user: bool) -> Result<()> {
    Systemd::connect(user)?.stop_unit(unit)
}

/// A connection to systemd.
#[derive(Debug)]
struct Systemd {
    bus: Bus,
    version: u32,
}

impl Systemd {
    /// Connects to the system's systemd, or the user's.
    fn connect(user: bool) -> Result<Self> {
        if !is_running() {
            return Err(Error::Absent {
                looked_for: "/run/systemd/system".into(),
            });
        }
        let bus = if user {
            Bus::connect(&user_bus()?, true)?
        } else {
            // systemd's own socket is there when the bus is not, yet or any more.
            Bus::connect(Path::new("/run/systemd/private"), false)
                .or_else(|_| Bus::connect(Path::new("/run/dbus/system_bus_socket"), true))?
        };
        Self::on(bus)
    }

    fn on(mut bus: Bus) -> Result<Self> {
        // On systemd's own socket there is no bus to ask: it sends to whoever listens.
        let rule =
            format!("type='signal',sender='{NAME}',interface='{MANAGER}',member='JobRemoved'");
        match bus.add_match(&rule) {
            Ok(()) | Err(Error::Answer { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut systemd = Self { bus, version: 0 };
        let version = systemd.property(PATH, MANAGER, "Version")?;
        systemd.version = version_of(&version);
        Ok(systemd)
    }

    fn call(&mut self, member: &'static str, body: Vec<Value>) -> Result<Vec<Value>> {
        self.bus.call(NAME, PATH, MANAGER, member, body)
    }

    fn property(&mut self, path: &str, interface: &str, name: &str) -> Result<String> {
        let what = vec![Value::str(interface), Value::str(name)];
        let properties = "org.freedesktop.DBus.Properties";
        let answer = self.bus.call(NAME, path, properties, "Get", what)?;
        let text = answer.first().and_then(Value::as_str).map(str::to_owned);
        text.ok_or(Error::Nonsense { method: "Get" })
    }

    /// Starts a job and waits until it is done.
    fn job(
        &mut self,
        action: &'static str,
        unit: &str,
        method: &'static str,
        body: Vec<Value>,
    ) -> Result<()> {
        let answer = self.call(method, body)?;
        let job = answer.first().and_then(Value::as_str).map(str::to_owned);
        let job = job.ok_or(Error::Nonsense { method })?;
        let removed = self.bus.signal(|signal| {
            signal.member == "JobRemoved"
                && signal.body.get(1).and_then(Value::as_str) == Some(&job)
        })?;
        match removed.body.get(3).and_then(Value::as_str) {
            Some("done") => Ok(()),
            result => Err(Error::Job {
                action,
                unit: unit.to_owned(),
                result: result.unwrap_or("unknown").to_owned(),
            }),
        }
    }

    /// Makes a transient unit. One of this name that has failed is cleared away first.
    fn start_unit(&mut self, unit: &str, properties: &[Property]) -> Result<()> {
        let body = || {
            let auxiliary = Value::Array("(sa(sv))".into(), Vec::new());
            let (name, mode) = (Value::str(unit), Value::str("replace"));
            vec![name, mode, list(properties), auxiliary]
        };
        match self.job("start", unit, "StartTransientUnit", body()) {
            Err(Error::Answer { name, .. }) if name.ends_with(".UnitExists") => {
                // If it is not failed but lives, the second try says so.
                self.reset_failed(unit).ok();
                self.job("start", unit, "StartTransientUnit", body())
            }
            done => done,
        }
    }

    /// Stops a unit, or finds it gone.
    fn stop_unit(&mut self, unit: &str) -> Result<()> {
        let body = vec![Value::str(unit), Value::str("replace")];
        let stopped = match self.job("stop", unit, "StopUnit", body) {
            Err(Error::Answer { name, .. }) if name.ends_with(".NoSuchUnit") => return Ok(()),
            stopped => stopped,
        };
        // A unit that failed would stay; one that did not is gone by now.
        self.reset_failed(unit).ok();
        stopped
    }

    fn reset_failed(&mut self, unit: &str) -> Result<()> {
        self.call("ResetFailedUnit", vec![Value::str(unit)])
            .map(drop)
    }

    /// Changes properties until the next boot.
    fn set_properties(&mut self, unit: &str, properties: &[Property]) -> Result<()> {
        if properties.is_empty() {
            return Ok(());
        }
        let body = vec![Value::str(unit), Value::Bool(true), list(properties)];
        self.call("SetUnitProperties", body).map(drop)
    }

    /// Moves a process into a unit, which a user may not do (Linux wants to write where
    /// it is now).
    fn attach(&mut self, unit: &str, pid: u32) -> Result<()> {
        let pids = Value::Array("u".into(), vec![Value::U32(pid)]);
        let body = vec![Value::str(unit), Value::str("/"), pids];
        self.call("AttachProcessesToUnit", body).map(drop)
    }

    /// Where a scope is in the hierarchies, such as `/system.slice/x.scope`.
    fn control_group(&mut self, unit: &str) -> Result<String> {
        let answer = self.call("GetUnit", vec![Value::str(unit)])?;
        let path = answer.first().and_then(Value::as_str).map(str::to_owned);
        let path = path.ok_or(Error::Nonsense { method: "GetUnit" })?;
        self.property(&path, "org.freedesktop.systemd1.Scope", "ControlGroup")
    }
}

/// A property of a unit.
type Property = (String, Value);

fn list(properties: &[Property]) -> Value {
    let pair = |(name, value): &Property| {
        Value::Struct(vec![Value::str(name), Value::variant(value.clone())])
    };
    Value::Array("(sv)".into(), properties.iter().map(pair).collect())
}

/// `252.39-1~deb12u1`, `v245`: the first number.
fn version_of(text: &str) -> u32 {
    let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit());
    digits[..end.unwrap_or(digits.len())].parse().unwrap_or(0)
}

fn user_bus() -> Result<PathBuf> {
    let address = std::env::var("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
    // Several addresses are alternatives.
    let path = address.split(';').find_map(|one| {
        let keys = one.strip_prefix("unix:")?;
        keys.split(',').find_map(|key| key.strip_prefix("path="))
    });
    if let Some(path) = path {
        return Ok(PathBuf::from(path));
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let socket = runtime.map(|folder| folder.join("bus"));
    socket
        .filter(|socket| socket.exists())
        .ok_or(Error::NoUserBus)
}

#[cfg(test)]
mod tests;
