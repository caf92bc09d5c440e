//! What the parent can prepare only once the child's namespaces exist, which are
//! born with it: mounts that show their owners through the mappings of its user
//! namespace, and devices that move into its network namespace.
//!
//! The child waits meanwhile. So one clone makes all its namespaces; a process
//! that did nothing but hold a user namespace would cost another.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::PlanError;
use super::rootfs::Overlay;
use crate::net_devices::NetDevice;
use crate::sys::mount::mount_idmap;

/// Everything that waits for the namespaces.
#[derive(Debug, Default)]
pub(crate) struct Late {
    /// The root, where it is an overlay of mapped layers.
    pub(super) root: Option<Overlay>,
    /// Mounts that are complete but for their mapping.
    pub(super) mapped: Vec<Mapped>,
    /// Devices of the host's that go into its network namespace.
    pub(crate) devices: Vec<NetDevice>,
}

/// A detached mount whose owners are to be mapped. The child has it, too, and
/// sees the change.
#[derive(Debug)]
pub(crate) struct Mapped {
    /// The mount.
    pub(crate) mount: OwnedFd,
    /// With all mounts below it.
    pub(crate) recursive: bool,
    /// What it shows, for people.
    pub(crate) source: String,
}

impl Late {
    /// Does it all; the root is handed to the child.
    ///
    /// # Errors
    /// [`PlanError::Prepare`], with what could not be mapped or mounted.
    pub(crate) fn finish(
        &self,
        user_namespace: BorrowedFd<'_>,
    ) -> Result<Option<OwnedFd>, PlanError> {
        for mapped in &self.mapped {
            mount_idmap(mapped.mount.as_fd(), mapped.recursive, user_namespace).map_err(
                |source| PlanError::Prepare {
                    what: "map the owners of",
                    subject: mapped.source.clone(),
                    source,
                },
            )?;
        }
        let root = self.root.as_ref();
        root.map(|overlay| overlay.mount(Some(user_namespace)))
            .transpose()
    }
}
