//! Whole configurations, and what the tests of the other files change of one.

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::check;

pub(super) fn config() -> Value {
    let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "hostname": "box",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/"},
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "user"}, {"type": "uts"}],
            "uidMappings": mapping,
            "gidMappings": mapping,
        },
    })
}

pub(super) fn checked(config: Value) -> Result<(), String> {
    let spec: Spec = serde_json::from_value(config).unwrap();
    check(&spec).map_err(|error| error.to_string())
}

/// The complaint about a configuration with one value set.
pub(super) fn complaint(pointer: &str, value: Value) -> String {
    let mut config = config();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    config.pointer_mut(parent).unwrap()[name] = value;
    checked(config).expect_err(pointer)
}

#[test]
fn a_plain_configuration_is_accepted() {
    checked(config()).unwrap();
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (pointer, value, expected) in [
        ("/ociVersion", json!("2.0.0"), "ociVersion"),
        ("/process/args", json!([]), "process.args"),
        ("/process/cwd", json!("here"), "process.cwd"),
        ("/hooks", json!({"poststop": [{"path": "x"}]}), "hooks.path"),
        (
            "/hooks",
            json!({"poststart": [{"path": "/x", "timeout": 0}]}),
            "hooks.timeout",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "uts", "path": "ns/uts"}]),
            "linux.namespaces.path",
        ),
        ("/linux/intelRdt", json!({"closID": "x"}), "linux.intelRdt"),
        (
            "/linux/timeOffsets",
            json!({"monotonic": {"secs": 1}}),
            "time namespace",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "uts"}, {"type": "uts"}]),
            "each type once",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "mount", "path": "/x"}, {"type": "uts"}]),
            "mount namespace by path",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "uts"}]),
            "mount namespace",
        ),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_CPU", "soft": 1, "hard": 1},
                {"type": "RLIMIT_CPU", "soft": 2, "hard": 2}]),
            "RLIMIT_CPU",
        ),
    ] {
        let message = complaint(pointer, value);
        assert!(message.contains(expected), "{pointer}: {message}");
    }
}

#[test]
fn empty_labels_ask_for_nothing() {
    let mut config = config();
    config["process"]["apparmorProfile"] = json!("");
    checked(config).unwrap();
}
