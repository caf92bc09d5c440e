//! Names of classes and lines of their schemata.

use oci_spec::runtime::{Linux, LinuxIntelRdt};

use super::super::SpecError;
use crate::intel_rdt::Resctrl;

pub(super) fn check_host(linux: &Linux) -> Result<(), SpecError> {
    match linux.intel_rdt() {
        Some(wanted) => check_intel_rdt(wanted).and_then(|()| Resctrl::find().map(drop)),
        None => Ok(()),
    }
}

/// Checks what is asked of a class, wherever it could be made.
pub(crate) fn check_intel_rdt(wanted: &LinuxIntelRdt) -> Result<(), SpecError> {
    let invalid = |property, value: &str, expected| {
        Err(SpecError::Invalid {
            property,
            value: value.to_owned(),
            expected,
        })
    };
    if let Some(id) = wanted.clos_id()
        && !(id == "/" || is_one_name(id))
    {
        let expected = "one name of at most 255 bytes, or / for the default class";
        return invalid("linux.intelRdt.closID", id, expected);
    }
    let one_line = "one line";
    if let Some(line) = wanted.l3_cache_schema()
        && !is_one_line(line)
    {
        return invalid("linux.intelRdt.l3CacheSchema", line, one_line);
    }
    if let Some(line) = wanted.mem_bw_schema()
        && !(line.is_empty() || line.starts_with("MB:") && is_one_line(line))
    {
        let expected = "one line that begins with MB:";
        return invalid("linux.intelRdt.memBwSchema", line, expected);
    }
    let mut lines = wanted.schemata().iter().flatten();
    if let Some(line) = lines.find(|line| line.is_empty() || !is_one_line(line)) {
        return invalid("linux.intelRdt.schemata", line, one_line);
    }
    Ok(())
}

fn is_one_name(id: &str) -> bool {
    let odd = |c: char| c == '/' || c.is_control();
    id.len() <= 255 && ![".", ".."].contains(&id) && !id.contains(odd)
}

fn is_one_line(line: &str) -> bool {
    !line.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn checked(wanted: Value) -> String {
        let wanted: LinuxIntelRdt = serde_json::from_value(wanted).unwrap();
        let checked = check_intel_rdt(&wanted);
        checked
            .err()
            .map_or(String::new(), |error| error.to_string())
    }

    #[test]
    fn what_is_no_class_and_no_line_is_refused_by_name() {
        let long = "x".repeat(256);
        for (wanted, property) in [
            (json!({"closID": "a/b"}), "closID"),
            (json!({"closID": "//"}), "closID"),
            (json!({"closID": "/a"}), "closID"),
            (json!({"closID": "."}), "closID"),
            (json!({"closID": ".."}), "closID"),
            (json!({"closID": "a\nb"}), "closID"),
            (json!({"closID": "a\u{0}"}), "closID"),
            (json!({"closID": long}), "closID"),
            (json!({"l3CacheSchema": "L3:0=f\nMB:0=10"}), "l3CacheSchema"),
            (json!({"memBwSchema": "0=10"}), "memBwSchema"),
            (json!({"memBwSchema": "MB:0=10\n"}), "memBwSchema"),
            (
                json!({"schemata": ["L3:0=f", "MB:0=1\nL3:0=1"]}),
                "schemata",
            ),
            (json!({"schemata": [""]}), "schemata"),
        ] {
            let message = checked(wanted.clone());
            let named = format!("linux.intelRdt.{property} is");
            assert!(message.contains(&named), "{wanted}: {message}");
        }
    }

    #[test]
    fn what_the_spec_has_is_accepted() {
        for wanted in [
            json!({}),
            json!({"closID": "/", "enableMonitoring": true}),
            json!({"closID": "", "l3CacheSchema": "", "memBwSchema": ""}),
            json!({"closID": "guaranteed_group", "schemata":
                ["L3:0=7f0;1=1f", "L2:0=f;1=f;2=f;3=f", "MB:0=20;1=70"]}),
            json!({"l3CacheSchema": "L3:0=7f0;1=1f", "memBwSchema": "MB:0=20;1=70"}),
        ] {
            assert_eq!(checked(wanted.clone()), "", "{wanted}");
        }
    }
}
