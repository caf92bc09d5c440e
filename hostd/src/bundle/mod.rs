//! The OCI bundle of a dyno: from what was asked for and what the image says
//! to a runtime configuration with safe defaults. Pure: nothing is read and
//! nothing is touched.
//!
//! ```text
//! process   arguments, environment, identity, capabilities, rlimits
//! mounts    root, kernel file systems, volumes, small files
//! isolation namespaces, id ranges, limits, devices, masked paths, sysctls
//! files     hosts, resolv.conf, hostname
//! ```

pub mod files;
mod isolation;
mod mounts;
mod process;

use dyno_api::error::ApiError;
use dyno_images::identity::Identity;
use oci_spec::OciSpecError;
use oci_spec::runtime::{RootBuilder, Spec, SpecBuilder};

use crate::admission::DeviceNode;
use crate::desired::Record;
use crate::durable::internal;
use crate::facts::HostFacts;
use crate::paths::Paths;

pub use isolation::limit_resources;
pub use process::{default_nofile, exec_process, rlimit, stop_signal};

/// Everything that a bundle is made of.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// What was asked for, and what was chosen.
    pub record: &'a Record,
    /// Who its command runs as.
    pub user: &'a Identity,
    /// Devices of the host that it is given.
    pub devices: &'a [DeviceNode],
    /// Bind sources whose owner shows inside as the dyno's own user.
    pub idmapped: &'a [String],
    /// The machine.
    pub facts: &'a HostFacts,
    /// The host's folders.
    pub paths: &'a Paths,
    /// The host's id.
    pub host: &'a str,
    /// Pure cgroup v2: its keys can be set by name.
    pub unified: bool,
}

/// Why no bundle could be made.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// What was asked for does not go with the image.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// A part of the configuration was built wrongly.
    #[error("cannot build the runtime configuration")]
    Spec(#[from] OciSpecError),
}

impl From<BundleError> for ApiError {
    fn from(error: BundleError) -> Self {
        match error {
            BundleError::Refused(error) => error,
            BundleError::Spec(_) => internal(&error),
        }
    }
}

/// The runtime configuration of a dyno.
///
/// # Errors
/// [`BundleError::Refused`] where request and image do not go together.
pub fn build(inputs: &Inputs<'_>) -> Result<Spec, BundleError> {
    let spec = &inputs.record.spec;
    let root = RootBuilder::default()
        .path(inputs.paths.dyno(&inputs.record.id).rootfs())
        .readonly(spec.read_only)
        .build()?;
    let hostname = spec
        .hostname
        .clone()
        .unwrap_or_else(|| inputs.record.name.to_string());
    Ok(SpecBuilder::default()
        .version("1.2.0")
        .hostname(hostname)
        .root(root)
        .process(process::process(inputs)?)
        .mounts(mounts::mounts(inputs)?)
        .linux(isolation::linux(inputs)?)
        .build()?)
}

/// The cgroup of a dyno, relative to the delegated root.
pub fn cgroups_path(host: &str, dyno: &str) -> String {
    format!("/dyno-{host}/dynos/{dyno}")
}

/// The cgroup of hostd, of all its monitors and of its edge, relative to the delegated root.
pub fn monitors_cgroup(host: &str) -> String {
    format!("/dyno-{host}/monitors")
}

#[cfg(test)]
mod tests;
