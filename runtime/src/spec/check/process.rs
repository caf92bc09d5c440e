//! The process: the same for the first one and for those that are executed later.

use oci_spec::runtime::{PosixRlimit, Process};

use super::super::{SpecError, process};
use super::repeated;
use super::strings::refuse_nul;

/// The checks that also bind a process executed in a running container.
pub(crate) fn check_process(process: &Process) -> Result<(), SpecError> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(SpecError::Missing("process.args"));
    }
    if !process.cwd().is_absolute() {
        return Err(SpecError::Invalid {
            property: "process.cwd",
            value: process.cwd().display().to_string(),
            expected: "an absolute path",
        });
    }
    refuse_nul(vec![
        ("process.args", process.args().clone().unwrap_or_default()),
        ("process.env", process.env().clone().unwrap_or_default()),
        (
            "process.cwd",
            vec![process.cwd().to_string_lossy().into_owned()],
        ),
    ])?;
    let rlimits = process.rlimits().as_deref().unwrap_or_default();
    if let Some(limit) = rlimits.iter().find(|limit| limit.soft() > limit.hard()) {
        return Err(SpecError::Invalid {
            property: "process.rlimits",
            value: format!("{} {} {}", limit.typ(), limit.soft(), limit.hard()),
            expected: "a soft limit that is at most the hard one",
        });
    }
    if let Some(twice) = repeated(rlimits, PosixRlimit::typ) {
        return Err(SpecError::Invalid {
            property: "process.rlimits",
            value: twice.to_string(),
            expected: "each type once",
        });
    }
    check_user(process)?;
    check_capabilities(process)?;
    process::check(process)
}

/// The kernel takes -1 for "as it was": whoever asks for that user would stay root.
fn check_user(process: &Process) -> Result<(), SpecError> {
    let user = process.user();
    let groups = user.additional_gids().iter().flatten();
    let groups = groups.map(|gid| ("process.user.additionalGids", *gid));
    let ids = [
        ("process.user.uid", user.uid()),
        ("process.user.gid", user.gid()),
    ];
    for (property, id) in ids.into_iter().chain(groups) {
        if id == u32::MAX {
            return Err(SpecError::Invalid {
                property,
                value: id.to_string(),
                expected: "an id, which 4294967295 is not",
            });
        }
    }
    match user.umask() {
        Some(umask) if umask > 0o777 => Err(SpecError::Invalid {
            property: "process.user.umask",
            value: umask.to_string(),
            expected: "at most 511, which is 0777",
        }),
        _ => Ok(()),
    }
}

fn check_capabilities(process: &Process) -> Result<(), SpecError> {
    let Some(capabilities) = process.capabilities() else {
        return Ok(());
    };
    let permitted = capabilities.permitted().clone().unwrap_or_default();
    let mut effective = capabilities.effective().iter().flatten();
    match effective.find(|capability| !permitted.contains(capability)) {
        None => Ok(()),
        Some(capability) => Err(SpecError::Invalid {
            property: "process.capabilities.effective",
            value: capability.to_string(),
            expected: "what is permitted, too",
        }),
    }
}
