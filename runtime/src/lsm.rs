//! Security modules of the kernel that label what a container runs and has.

use rustix::fs::statfs;

use crate::spec::SpecError;

/// A module that the spec knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Module {
    /// Profiles by name.
    AppArmor,
    /// Labels on processes and files.
    SeLinux,
}

/// `SELINUX_MAGIC` of `<linux/magic.h>`.
const SELINUX_MAGIC: i64 = 0xf97c_ff8c;

impl Module {
    /// Whether the kernel has it and it is in force.
    pub(crate) fn is_there(self) -> bool {
        match self {
            Self::AppArmor => std::fs::read("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|enabled| enabled.starts_with(b"Y")),
            Self::SeLinux => {
                statfs("/sys/fs/selinux").is_ok_and(|stat| stat.f_type == SELINUX_MAGIC)
            }
        }
    }
}

/// P18: a label that nobody looks at protects nothing.
pub(crate) fn need(module: Module, property: &'static str) -> Result<(), SpecError> {
    if module.is_there() {
        return Ok(());
    }
    let needed = match module {
        Module::AppArmor => "AppArmor in the kernel",
        Module::SeLinux => "SELinux in the kernel",
    };
    Err(SpecError::Host { property, needed })
}
