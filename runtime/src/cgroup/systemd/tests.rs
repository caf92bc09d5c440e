//! Against bytes that are known, and against a message bus with a systemd of our own.

use std::io::BufRead;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::super::settings::{Version, plan};
use super::wire::{METHOD_CALL, METHOD_RETURN, Message, SIGNAL};
use super::*;

fn properties_of(resources: serde_json::Value, on: Version, version: u32) -> Vec<Property> {
    let resources = serde_json::from_value(resources).unwrap();
    let settings = plan(&resources, &|_| Some(on), None).unwrap();
    properties::of_settings(&settings.writes, version)
}

fn numbers(pairs: &[(&str, u64)]) -> Vec<Property> {
    let pair = |(name, number): &(&str, u64)| ((*name).to_owned(), Value::U64(*number));
    pairs.iter().map(pair).collect()
}

#[test]
fn limits_are_properties_as_in_runc() {
    let mebi = 1_u64 << 20;
    let resources = json!({
        "memory": { "limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20 },
        "cpu": { "shares": 1024, "quota": 33_333, "period": 100_000 },
        "pids": { "limit": 7 },
    });
    let v2 = numbers(&[
        ("CPUWeight", 100),
        ("MemoryLow", 32 * mebi),
        ("MemoryMax", 64 * mebi),
        ("MemorySwapMax", 32 * mebi),
        ("TasksMax", 7),
        ("CPUQuotaPeriodUSec", 100_000),
        ("CPUQuotaPerSecUSec", 340_000),
    ]);
    assert_eq!(properties_of(resources.clone(), Version::V2, 252), v2);
    let v1 = numbers(&[
        ("CPUShares", 1024),
        ("MemoryLimit", 64 * mebi),
        ("TasksMax", 7),
        ("CPUQuotaPerSecUSec", 340_000),
    ]);
    assert_eq!(
        properties_of(resources, Version::V1, 241),
        v1,
        "of an old one"
    );

    let none = json!({
        "memory": { "limit": -1 }, "pids": { "limit": -1 }, "cpu": { "quota": -1 },
    });
    let unlimited = numbers(&[
        ("MemoryMax", u64::MAX),
        ("MemorySwapMax", u64::MAX),
        ("TasksMax", u64::MAX),
        ("CPUQuotaPerSecUSec", u64::MAX),
    ]);
    assert_eq!(properties_of(none, Version::V2, 252), unlimited);

    let idle = json!({ "cpu": { "shares": 2, "idle": 1 }, "unified": { "memory.high": "5" } });
    let expected = numbers(&[("CPUWeight", 0), ("MemoryHigh", 5)]);
    assert_eq!(properties_of(idle, Version::V2, 252), expected);
}

#[test]
fn lists_of_processors_are_bits() {
    let resources = json!({ "cpu": { "cpus": "0-2,9", "mems": "0" } });
    let bytes =
        |bytes: &[u8]| Value::Array("y".into(), bytes.iter().copied().map(Value::Byte).collect());
    let expected = [
        ("AllowedCPUs".to_owned(), bytes(&[0b111, 0b10])),
        ("AllowedMemoryNodes".to_owned(), bytes(&[1])),
    ];
    assert_eq!(properties_of(resources.clone(), Version::V2, 244), expected);
    assert_eq!(properties_of(resources, Version::V2, 243), []);
}

#[test]
fn annotations_are_properties() {
    let cases = [
        (
            "CollectMode",
            "'inactive-or-failed'",
            "CollectMode",
            Value::str("inactive-or-failed"),
        ),
        (
            "TimeoutStopUSec",
            "uint64 5",
            "TimeoutStopUSec",
            Value::U64(5),
        ),
        (
            "TimeoutStopSec",
            "uint64 5",
            "TimeoutStopUSec",
            Value::U64(5_000_000),
        ),
        ("KillSignal", "9", "KillSignal", Value::I32(9)),
        ("SendSIGHUP", "true", "SendSIGHUP", Value::Bool(true)),
        (
            "After",
            "['a.service', 'b.service']",
            "After",
            Value::Array(
                "s".into(),
                vec![Value::str("a.service"), Value::str("b.service")],
            ),
        ),
    ];
    for (name, text, expected, value) in cases {
        let property = properties::of_annotation(name, text).unwrap();
        assert_eq!(property, (expected.to_owned(), value));
    }
    for (name, text) in [
        ("X", "1"),
        ("Exec-Start", "1"),
        ("Abc", "<1>"),
        ("Abc", "'a"),
    ] {
        assert!(
            properties::of_annotation(name, text).is_err(),
            "{name}={text}"
        );
    }
}

#[test]
fn versions_are_the_first_number() {
    let versions = ["252.39-1~deb12u1", "v245.4-1.fc32", "\"256\"", "x"].map(version_of);
    assert_eq!(versions, [252, 245, 256, 0]);
}

#[test]
fn without_systemd_it_says_so() {
    if !is_running() {
        let error = Systemd::connect(false).unwrap_err().to_string();
        assert!(error.contains("leave out --systemd-cgroup"), "{error}");
    }
}

/// A message bus of our own; the daemon checks every message against the specification.
struct Daemon {
    process: Child,
    socket: PathBuf,
}

impl Daemon {
    fn start() -> Option<Self> {
        let mut process = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address"])
            .args(["--address=unix:tmpdir=/tmp"])
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut address = String::new();
        let output = process.stdout.take().unwrap();
        std::io::BufReader::new(output)
            .read_line(&mut address)
            .unwrap();
        let path = address
            .trim()
            .split([':', ','])
            .find_map(|key| key.strip_prefix("path="));
        let socket = PathBuf::from(path.unwrap_or_else(|| panic!("{address:?}")));
        Some(Self { process, socket })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        // Killed, it does not remove it.
        std::fs::remove_file(&self.socket).unwrap();
    }
}

/// Answers as org.freedesktop.systemd1(5) says, until a unit is stopped; hands back what
/// it was asked.
fn systemd_of_our_own(socket: &Path, ready: &std::sync::mpsc::Sender<()>) -> Vec<Message> {
    let mut bus = Bus::connect(socket, true).unwrap();
    let body = vec![Value::str(NAME), Value::U32(0)];
    let dbus = "org.freedesktop.DBus";
    bus.call(dbus, "/org/freedesktop/DBus", dbus, "RequestName", body)
        .unwrap();
    ready.send(()).unwrap();
    let mut asked = Vec::new();
    let mut units = Vec::new();
    loop {
        let call = bus.next_call().unwrap();
        let unit = call
            .body
            .first()
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let job = Value::Path(format!("{PATH}/job/{}", asked.len() + 1));
        let mut signal = None;
        let text = match call.member.as_str() {
            "Get" => match call.body[1].as_str() {
                Some("Version") => Ok(Value::variant(Value::str("252.39-1~deb12u1"))),
                _ => Ok(Value::variant(Value::str("/system.slice/dyno-a.scope"))),
            },
            "GetUnit" => Ok(Value::Path(format!("{PATH}/unit/x"))),
            "StartTransientUnit" if units.contains(&unit) => {
                Err("org.freedesktop.systemd1.UnitExists")
            }
            "StartTransientUnit" | "StopUnit" => {
                let result = if unit == "bad.scope" {
                    "failed"
                } else {
                    "done"
                };
                let (id, result) = (Value::U32(1), Value::str(result));
                signal = Some(vec![id, job.clone(), Value::str(&unit), result]);
                units.push(unit.clone());
                Ok(job)
            }
            "ResetFailedUnit" => {
                units.clear();
                Ok(Value::Bool(true))
            }
            "SetUnitProperties" => Ok(Value::Bool(true)),
            other => panic!("{other} is unknown"),
        };
        bus.answer(&call, text, signal);
        let last = call.member == "ResetFailedUnit" && unit == "last.scope";
        asked.push(call);
        if last {
            return asked;
        }
    }
}

impl Bus {
    fn next_call(&mut self) -> Result<Message> {
        loop {
            let message = self.receive()?;
            if message.kind == METHOD_CALL {
                return Ok(message);
            }
        }
    }

    /// The signal comes first: a job may be done before its number is known.
    fn answer(
        &mut self,
        call: &Message,
        text: std::result::Result<Value, &str>,
        signal: Option<Vec<Value>>,
    ) {
        if let Some(body) = signal {
            self.send(Message {
                kind: SIGNAL,
                path: PATH.into(),
                interface: MANAGER.into(),
                member: "JobRemoved".into(),
                body,
                ..Message::default()
            })
            .unwrap();
        }
        let (kind, error_name, body) = match text {
            Ok(value) => (METHOD_RETURN, String::new(), vec![value]),
            Err(name) => (
                wire::ERROR,
                name.to_owned(),
                vec![Value::str("it is there")],
            ),
        };
        self.send(Message {
            kind,
            error_name,
            reply_serial: call.serial,
            destination: call.sender.clone(),
            body,
            ..Message::default()
        })
        .unwrap();
    }
}

#[test]
fn a_message_bus_understands_us_and_jobs_are_waited_for() {
    let Some(daemon) = Daemon::start() else {
        // The tests of the programs count their skips; here the file says what is missing.
        panic!("dbus-daemon is needed: apt-get install dbus-daemon");
    };
    let socket = daemon.socket.clone();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || systemd_of_our_own(&socket, &ready));
    is_ready.recv().unwrap();

    let mut systemd = Systemd::on(Bus::connect(&daemon.socket, true).unwrap()).unwrap();
    assert_eq!(systemd.version, 252);
    let limits = [
        ("MemoryMax".to_owned(), Value::U64(1 << 20)),
        ("Delegate".to_owned(), Value::Bool(true)),
        (
            "PIDs".to_owned(),
            Value::Array("u".into(), vec![Value::U32(17)]),
        ),
        (
            "AllowedCPUs".to_owned(),
            Value::Array("y".into(), vec![Value::Byte(3)]),
        ),
        ("Slice".to_owned(), Value::str("system.slice")),
    ];
    systemd.start_unit("a.scope", &limits).unwrap();
    assert_eq!(
        systemd.control_group("a.scope").unwrap(),
        "/system.slice/dyno-a.scope"
    );
    systemd.set_properties("a.scope", &limits[..1]).unwrap();
    systemd.set_properties("a.scope", &[]).unwrap();
    systemd.start_unit("a.scope", &limits).unwrap();
    let error = systemd
        .start_unit("bad.scope", &[])
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "systemd could not start bad.scope: the job is failed"
    );
    systemd.stop_unit("last.scope").unwrap();

    let asked = server.join().unwrap();
    let members: Vec<&str> = asked.iter().map(|call| call.member.as_str()).collect();
    let expected = [
        "Get",
        "StartTransientUnit",
        "GetUnit",
        "Get",
        "SetUnitProperties",
        "StartTransientUnit",
        "ResetFailedUnit",
        "StartTransientUnit",
        "StartTransientUnit",
        "StopUnit",
        "ResetFailedUnit",
    ];
    assert_eq!(members, expected);
    let start = &asked[1];
    assert_eq!(
        (start.path.as_str(), start.interface.as_str()),
        (PATH, MANAGER)
    );
    let auxiliary = Value::Array("(sa(sv))".into(), Vec::new());
    let sent = [
        Value::str("a.scope"),
        Value::str("replace"),
        list(&limits),
        auxiliary,
    ];
    assert_eq!(start.body, sent, "the bus has let it pass unchanged");
}
