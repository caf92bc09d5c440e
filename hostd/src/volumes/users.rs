//! The dynos that mount a volume.

use dyno_api::dyno::{Dyno, DynoSpec, Mount};
use dyno_api::name::DynoName;

use crate::host::Host;

/// The volumes that a specification mounts.
pub(super) fn mounted(spec: &DynoSpec) -> impl Iterator<Item = &DynoName> {
    spec.mounts.iter().filter_map(|mount| match mount {
        Mount::Volume { name, .. } => Some(name),
        Mount::Bind { .. } | Mount::Tmpfs { .. } => None,
    })
}

pub(super) fn mounts(spec: &DynoSpec, volume: &DynoName) -> bool {
    mounted(spec).any(|name| name == volume)
}

/// Whether a dyno mounts a volume, and not read-only.
pub(super) fn writes(dyno: &Dyno, volume: &DynoName) -> bool {
    dyno.spec.mounts.iter().any(
        |mount| matches!(mount, Mount::Volume { name, read_only: false, .. } if name == volume),
    )
}

/// Every dyno of the host, by name.
pub(super) fn dynos(host: &Host) -> Vec<Dyno> {
    let handles = host.registry().handles();
    let mut dynos: Vec<Dyno> = handles.iter().map(|handle| handle.dyno()).collect();
    dynos.sort_by(|one, other| one.name.cmp(&other.name));
    dynos
}
