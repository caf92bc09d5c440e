//! What a configuration must be before anything is made of it.
//!
//! Refused is what is malformed, what would silently be less than was asked
//! for (P18), and what would change the host instead of the container.

mod hooks;
mod intel_rdt;
mod mappings;
mod namespaces;
mod net_devices;
mod process;
mod strings;
#[cfg(test)]
mod tests;

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType as Kind, Spec};

use super::SpecError;
use hooks::check_hooks;
use mappings::check_mappings;
use namespaces::{check_host_is_left_alone, check_namespaces};
use net_devices::check_net_devices;
use strings::check_strings;

pub(crate) use intel_rdt::check_intel_rdt;
pub(crate) use namespaces::sysctl_namespace;
pub(crate) use net_devices::inside_name;
pub(crate) use process::check_process;

/// Checks a container's whole configuration.
pub(super) fn check(spec: &Spec) -> Result<(), SpecError> {
    if !spec.version().starts_with("1.") {
        return Err(SpecError::Invalid {
            property: "ociVersion",
            value: spec.version().clone(),
            expected: "a version 1.x of the runtime spec",
        });
    }
    if spec.root().is_none() {
        return Err(SpecError::Missing("root"));
    }
    check_strings(spec)?;
    let process = spec
        .process()
        .as_ref()
        .ok_or(SpecError::Missing("process"))?;
    check_process(process)?;
    let linux = spec.linux().as_ref().ok_or(SpecError::Missing("linux"))?;
    intel_rdt::check_host(linux)?;
    super::process::check_linux(linux)?;
    check_net_devices(linux)?;
    check_hooks(spec)?;
    for mount in spec.mounts().iter().flatten() {
        for (property, mappings) in [
            ("mounts.uidMappings", mount.uid_mappings()),
            ("mounts.gidMappings", mount.gid_mappings()),
        ] {
            check_mappings(property, mappings.as_deref().unwrap_or_default())?;
        }
    }
    check_namespaces(linux)?;
    check_host_is_left_alone(spec, linux)
}

fn find(linux: &Linux, kind: Kind) -> Option<&LinuxNamespace> {
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    namespaces.iter().find(|namespace| namespace.typ() == kind)
}

/// The first kind that more than one of `items` has.
fn repeated<T, K: PartialEq>(items: &[T], kind: impl Fn(&T) -> K) -> Option<K> {
    let mut rest = items;
    while let Some((first, others)) = rest.split_first() {
        if others.iter().any(|other| kind(other) == kind(first)) {
            return Some(kind(first));
        }
        rest = others;
    }
    None
}

fn refuse_first(asked: &[(bool, &'static str)]) -> Result<(), SpecError> {
    match asked.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(SpecError::Unsupported(what)),
        None => Ok(()),
    }
}
