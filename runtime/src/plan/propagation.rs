//! How mounts propagate between host and container: `linux.rootfsPropagation`,
//! and what that means for copies of the host's mounts.
//!
//! ```text
//! rootfsPropagation   /           a bind without an option of its own
//! none, private       private     private
//! slave               slave       slave: sees what the host mounts below later
//! shared              shared      shared with the host, in both directions
//! unbindable          unbindable  private
//! ```
//!
//! The root is shared among those who copy the container's namespace; with the
//! host it is not, or its mounts would all show up there. A bind with `shared`
//! is shared with the host only where the configuration says so of the whole
//! container (runc's rule), and never from a user namespace: whoever is root
//! in there would mount on the host.

use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::LinuxNamespaceType;

use super::options::Options;
use super::{PlanError, rootfs};
use crate::host_mounts;
use crate::spec::{Bundle, SpecError};
use crate::sys::mount::Attributes;

/// A container's propagation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RootPropagation {
    /// That of its root, `MS_*`; 0 where the configuration says nothing.
    asked: u64,
    /// What it mounts in shared binds reaches the host.
    reaches_host: bool,
}

impl RootPropagation {
    pub(super) fn new(bundle: &Bundle) -> Result<Self, PlanError> {
        let linux = bundle.spec().linux().as_ref();
        let asked = match linux.and_then(|linux| linux.rootfs_propagation().as_deref()) {
            None | Some("") => 0,
            Some("private" | "rprivate") => libc::MS_PRIVATE,
            Some("slave" | "rslave") => libc::MS_SLAVE,
            Some("shared" | "rshared") => libc::MS_SHARED,
            Some("unbindable" | "runbindable") => libc::MS_UNBINDABLE,
            Some(other) => {
                return Err(SpecError::Invalid {
                    property: "linux.rootfsPropagation",
                    value: other.to_owned(),
                    expected: "private, slave, shared or unbindable, with an r before it or not",
                }
                .into());
            }
        };
        let user = bundle.namespace(LinuxNamespaceType::User).is_some();
        Ok(Self {
            asked,
            reaches_host: asked == libc::MS_SHARED && !user,
        })
    }

    /// That of the host's mounts in the container's mount namespace, which are
    /// gone once the root is changed.
    pub(super) fn before_root(self) -> u64 {
        match self.asked {
            libc::MS_SLAVE | libc::MS_SHARED => libc::MS_SLAVE,
            _ => libc::MS_PRIVATE,
        }
    }

    /// What is left to be set on the root in the end.
    pub(super) fn of_root(self) -> Option<Attributes> {
        let left = matches!(self.asked, libc::MS_SHARED | libc::MS_UNBINDABLE);
        left.then_some(Attributes {
            propagation: self.asked,
            ..Attributes::default()
        })
    }

    /// A detached copy of the host's mounts for a bind with these options.
    pub(super) fn take(
        self,
        source: &Path,
        recursive: bool,
        options: &Options,
    ) -> Result<OwnedFd, PlanError> {
        let own = options.attributes.propagation | options.recursive.propagation;
        if !self.reaches_host || !(own == 0 || own & libc::MS_SHARED != 0) {
            return rootfs::detached_tree(source, recursive);
        }
        host_mounts::take(source, recursive).map_err(|error| PlanError::Prepare {
            what: "share with the host",
            subject: source.display().to_string(),
            source: error,
        })
    }

    /// What a copy's propagation is before its options, which must not be its
    /// source's by accident: mounts would be sent to the host.
    pub(super) fn of_copy(self, options: &Options) -> Vec<(bool, Attributes)> {
        let own = options.attributes.propagation | options.recursive.propagation;
        let base = match (self.asked, own) {
            (libc::MS_SHARED, 0) => libc::MS_SHARED,
            (libc::MS_SLAVE, 0) => libc::MS_SLAVE,
            (libc::MS_PRIVATE, _) | (_, 0) => libc::MS_PRIVATE,
            // Taken where it is shared: to stay a peer.
            (libc::MS_SHARED, _) if self.reaches_host => 0,
            _ => libc::MS_SLAVE,
        };
        let propagation = |propagation| Attributes {
            propagation,
            ..Attributes::default()
        };
        let mut changes = Vec::new();
        if base == libc::MS_SHARED && !self.reaches_host {
            changes.push((true, propagation(libc::MS_SLAVE)));
        }
        changes.push((true, propagation(base)));
        changes
    }
}
