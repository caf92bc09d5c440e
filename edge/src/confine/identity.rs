//! From root to a user that is nobody else, with no capability at all (P11).

use rustix::process::{DumpableBehavior, Gid, Uid, geteuid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::ConfineError;

/// Becomes `uid`:`gid` with no supplementary groups and every capability set empty.
///
/// Started by the user itself rather than by root there is nothing to change
/// about the ids; the rest is the same.
pub(super) fn become_user(uid: u32, gid: u32) -> Result<(), ConfineError> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    if geteuid() != uid {
        empty_bounding_set()?;
        set_thread_groups(&[]).map_err(ConfineError::step("drop supplementary groups"))?;
        set_thread_res_gid(gid, gid, gid).map_err(ConfineError::step("change the group"))?;
        set_thread_res_uid(uid, uid, uid).map_err(ConfineError::step("change the user"))?;
    }
    clear_ambient_capability_set().map_err(ConfineError::step("clear ambient capabilities"))?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(ConfineError::step("drop capabilities"))?;
    set_no_new_privs(true).map_err(ConfineError::step("set no_new_privs"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(ConfineError::step("become non-dumpable"))
}

fn empty_bounding_set() -> Result<(), ConfineError> {
    for capability in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(capability) {
            // A capability newer than the kernel is in no set.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(source) => {
                return Err(ConfineError::step("empty the bounding set")(source));
            }
        }
    }
    Ok(())
}
