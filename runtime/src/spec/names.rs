//! Names of the spec that the parser spells in another way.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// `(the spec's, the parser's)`.
const FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

/// Why a text is no configuration.
#[derive(Debug, thiserror::Error)]
#[error("{property}: {source}")]
pub(crate) struct Malformed {
    /// The property that is wrong, dotted.
    pub(crate) property: String,
    /// What the parser said, with line and column.
    pub(crate) source: serde_json::Error,
}

/// Parses a configuration, or a process of one.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Malformed> {
    // To know where one is all the way costs a tenth of a start.
    match serde_json::from_slice(text) {
        Ok(parsed) => Ok(parsed),
        Err(_) => parse_again(text),
    }
}

/// What could not be parsed: where the mistake is, unless it is none. Apart, for
/// what it needs of the stack.
#[cold]
#[inline(never)]
fn parse_again<T: DeserializeOwned>(text: &[u8]) -> Result<T, Malformed> {
    let malformed = match parse_and_say_where(text) {
        Err(malformed) if malformed.source.is_data() => malformed,
        parsed => return parsed,
    };
    let Ok(mut value) = serde_json::from_slice::<Value>(text) else {
        return Err(malformed);
    };
    let mut changed = false;
    for process in ["", "/process"] {
        if let Some(process) = value.pointer_mut(process) {
            changed |= rename_flags(process) | drop_empty_lists(process);
        }
    }
    if !changed {
        return Err(malformed);
    }
    serde_path_to_error::deserialize(value).map_err(Malformed::from)
}

fn parse_and_say_where<T: DeserializeOwned>(text: &[u8]) -> Result<T, Malformed> {
    let mut parser = serde_json::Deserializer::from_slice(text);
    let parsed = serde_path_to_error::deserialize(&mut parser)?;
    parser.end().map_err(|source| Malformed {
        property: "the end".to_owned(),
        source,
    })?;
    Ok(parsed)
}

impl From<serde_path_to_error::Error<serde_json::Error>> for Malformed {
    fn from(error: serde_path_to_error::Error<serde_json::Error>) -> Self {
        Self {
            property: error.path().to_string(),
            source: error.into_inner(),
        }
    }
}

fn rename_flags(process: &mut Value) -> bool {
    let flags = process.pointer_mut("/scheduler/flags");
    let mut changed = false;
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        let known = FLAGS.iter().find(|(name, _)| flag == name);
        if let Some((_, parsers)) = known {
            *flag = Value::from(*parsers);
            changed = true;
        }
    }
    changed
}

/// An empty list of CPUs is the same as none.
fn drop_empty_lists(process: &mut Value) -> bool {
    let affinity = process.pointer_mut("/execCPUAffinity");
    let Some(affinity) = affinity.and_then(Value::as_object_mut) else {
        return false;
    };
    let before = affinity.len();
    affinity.retain(|_, list| list != "");
    affinity.len() != before
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Process;
    use serde_json::json;

    use super::*;

    fn process(more: &Value) -> Result<Process, Malformed> {
        let mut process = json!({"user": {"uid": 0}, "cwd": "/"});
        for (key, value) in more.as_object().unwrap() {
            process[key] = value.clone();
        }
        parse(process.to_string().as_bytes())
    }

    #[test]
    fn every_flag_of_the_spec_is_parsed() {
        for flag in [
            "SCHED_FLAG_RESET_ON_FORK",
            "SCHED_FLAG_RECLAIM",
            "SCHED_FLAG_DL_OVERRUN",
            "SCHED_FLAG_KEEP_POLICY",
            "SCHED_FLAG_KEEP_PARAMS",
            "SCHED_FLAG_UTIL_CLAMP_MIN",
            "SCHED_FLAG_UTIL_CLAMP_MAX",
        ] {
            process(&json!({"scheduler": {"policy": "SCHED_OTHER", "flags": [flag]}})).unwrap();
        }
        let unknown = json!({"scheduler": {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_X"]}});
        let error = process(&unknown).unwrap_err().to_string();
        assert!(
            error.contains("SCHED_FLAG_X") && error.contains("line"),
            "{error}"
        );
    }

    #[test]
    fn an_empty_list_of_cpus_is_none() {
        let parsed = process(&json!({"execCPUAffinity": {"initial": "", "final": "0"}})).unwrap();
        let affinity = parsed.exec_cpu_affinity().as_ref().unwrap();
        assert_eq!(affinity.initial(), &None);
        assert_eq!(affinity.cpu_affinity_final().as_deref(), Some("0"));
        assert!(process(&json!({"execCPUAffinity": {"initial": "x"}})).is_err());
    }
}
