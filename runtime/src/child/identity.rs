//! Who the process is: ids and capabilities, `credentials(7)` and `capabilities(7)`.

use rustix::io::{Errno, Result};
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::plan::Capabilities;

/// Becomes uid 0, gid 0 of the user namespace, with no supplementary group unless
/// they can't be given up.
pub(super) fn become_root(keep_groups: bool) -> Result<()> {
    if !keep_groups {
        set_thread_groups(&[])?;
    }
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
}

/// Takes on an identity for good (P11).
pub(super) fn assume(
    uid: Uid,
    gid: Gid,
    groups: Option<&[Gid]>,
    capabilities: &Capabilities,
) -> Result<()> {
    drop_from_bounding(capabilities.bounding)?;
    // A change to another user clears the permitted set unless it is to be kept.
    set_keep_capabilities(true)?;
    if let Some(groups) = groups {
        set_thread_groups(groups)?;
    }
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: capabilities.effective,
            permitted: capabilities.permitted,
            inheritable: capabilities.inheritable,
        },
    )?;
    clear_ambient_capability_set()?;
    for capability in capabilities.ambient.iter() {
        configure_capability_in_ambient_set(capability, true)?;
    }
    set_keep_capabilities(false)
}

fn drop_from_bounding(keep: CapabilitySet) -> Result<()> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if keep.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            // Past the last capability that this kernel knows.
            Err(Errno::INVAL) => return Ok(()),
            dropped => dropped?,
        }
    }
    Ok(())
}
