//! Capabilities by name: the default set of a dyno that starts as root of
//! its own user namespace, and what a request adds and drops.

use std::collections::BTreeSet;
use std::str::FromStr;

use dyno_api::dyno::Security;
use dyno_api::error::ApiError;
use oci_spec::runtime::Capability;

use super::invalid;

/// P11: what a program that starts as root of its own namespace needs, no more.
const DEFAULT: [Capability; 11] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::Setfcap,
    Capability::SysChroot,
    Capability::NetBindService,
];

/// The capabilities after additions and removals; removals win over the
/// default set, additions over a removed `ALL`.
///
/// # Errors
/// Invalid, for a name that capabilities(7) does not have.
pub fn capabilities(security: &Security) -> Result<Vec<Capability>, ApiError> {
    let all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    if all(&security.cap_add) {
        return Err(invalid("adding ALL capabilities is not offered")
            .hint("add those that are needed, by name"));
    }
    let add = parse_all(&security.cap_add)?;
    let drop = parse_all(&security.cap_drop)?;
    let start = if all(&security.cap_drop) {
        &[][..]
    } else {
        &DEFAULT[..]
    };
    let mut seen = BTreeSet::new();
    Ok(start
        .iter()
        .filter(|capability| !drop.contains(capability))
        .chain(&add)
        .filter(|capability| seen.insert(capability.to_string()))
        .copied()
        .collect())
}

fn parse_all(names: &[String]) -> Result<Vec<Capability>, ApiError> {
    names
        .iter()
        .filter(|name| !name.eq_ignore_ascii_case("ALL"))
        .map(|name| parse(name))
        .collect()
}

fn parse(name: &str) -> Result<Capability, ApiError> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    Capability::from_str(bare).map_err(|error| {
        tracing::debug!(%error, name, "unknown capability");
        invalid(format!("there is no capability {name:?}"))
            .hint("capabilities(7) lists them, e.g. NET_ADMIN")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(add: &[&str], drop: &[&str]) -> Result<Vec<Capability>, ApiError> {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        capabilities(&Security {
            cap_add: words(add),
            cap_drop: words(drop),
            allow_new_privileges: false,
        })
    }

    #[test]
    fn the_default_set_grows_and_shrinks_by_name() {
        assert_eq!(of(&[], &[]).unwrap(), DEFAULT);
        assert!(
            of(&["net_admin"], &[])
                .unwrap()
                .contains(&Capability::NetAdmin)
        );
        assert!(
            !of(&[], &["CAP_CHOWN"])
                .unwrap()
                .contains(&Capability::Chown)
        );
        assert_eq!(
            of(&["SYS_PTRACE"], &["ALL"]).unwrap(),
            [Capability::SysPtrace]
        );
        assert_eq!(
            of(&["CHOWN", "CAP_CHOWN"], &[]).unwrap().len(),
            DEFAULT.len()
        );
    }

    #[test]
    fn an_unknown_capability_is_refused() {
        for name in ["", "NET", "CAP_", "NET_ADMIN "] {
            assert!(of(&[name], &[]).is_err(), "{name}");
            assert!(of(&[], &[name]).is_err(), "{name}");
        }
        assert!(of(&["ALL"], &[]).is_err());
    }
}
