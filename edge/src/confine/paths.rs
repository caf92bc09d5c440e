//! Landlock: of the whole file system, one folder stays readable.

use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};

use super::{ConfineError, Landlock};

/// Forbids every access to files but reading beneath `readable`, and where the
/// kernel can, abstract sockets and signals to others.
pub(super) fn restrict(readable: BorrowedFd<'_>) -> Result<Landlock, ConfineError> {
    let abi = ABI::V6;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .add_rule(PathBeneath::new(readable, AccessFs::ReadFile))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::NotEnforced => Landlock::Missing,
        RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => Landlock::Enforced,
    })
}
