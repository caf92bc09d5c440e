//! `update` of a class of cache and memory bandwidth (Intel RDT): of the container's own
//! or the one that it was given; a container without one gets its own.

use oci_spec::runtime::LinuxIntelRdt;

use super::Failure;
use super::create::after;
use crate::cgroup::{self, Cgroup};
use crate::intel_rdt::Resctrl;
use crate::spec::check_intel_rdt;
use crate::state::{Record, StateDir};

const FLAGS: &str = "--l3-cache-schema and --mem-bw-schema";

/// Changes the class and then the `rest`: both or none.
pub(super) fn update(
    state: &StateDir,
    record: Record,
    schemas: &LinuxIntelRdt,
    cgroup: &Cgroup,
    rest: impl FnOnce() -> cgroup::Result<()>,
) -> Result<(), Failure> {
    check_intel_rdt(schemas).map_err(|error| format!("{FLAGS}: {error}"))?;
    match record.intel_rdt.clone() {
        Some(class) => {
            let before = class.change(schemas)?;
            rest().map_err(|error| {
                let back = class.put_back(&before).map_err(Failure::from);
                after(error.into(), back)
            })
        }
        None => {
            let resctrl = Resctrl::find().map_err(|_none| {
                format!(
                    "{FLAGS} need a resctrl file system on /sys/fs/resctrl, and this host has none"
                )
            })?;
            let class = resctrl.plan(schemas, &record.id)?;
            let with_class = record.clone().with_intel_rdt(Some(class.clone()));
            // On record before it is made: so `delete` finds it.
            state.write(&with_class)?;
            let made = class.make(schemas).map_err(Failure::from).and_then(|()| {
                let moved = class.admit_all(cgroup).map_err(Failure::from);
                moved.and_then(|()| Ok(rest()?)).map_err(|error| {
                    // Its tasks go back to the default class.
                    after(error, class.remove().map_err(Failure::from))
                })
            });
            made.map_err(|error| after(error, state.write(&record).map_err(Failure::from)))
        }
    }
}
