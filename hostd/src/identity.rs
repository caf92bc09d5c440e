//! Who this host is: `host.json`, made once.

use std::fs;
use std::io::{self, Read};

use dyno_api::name::DynoId;
use serde::{Deserialize, Serialize};

use crate::durable::{self, DurableError, Survives};
use crate::paths::Paths;

const VERSION: u32 = 1;

/// The record of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Format of this record.
    pub version: u32,
    /// 8 hexadecimal digits: part of every cgroup, link and table name.
    pub id: String,
    /// The default network's subnets, once they were chosen.
    #[serde(default)]
    pub subnets: Option<Subnets>,
}

/// The subnets of the default network, as `address/prefix`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnets {
    /// IPv4.
    pub ipv4: String,
    /// IPv6, where the host has it.
    pub ipv6: Option<String>,
}

impl Identity {
    /// Writes the record.
    ///
    /// # Errors
    /// [`DurableError`]; the former record holds then.
    pub fn save(&self, paths: &Paths) -> Result<(), DurableError> {
        durable::write_json(&paths.host_record(), self, Survives::PowerCut)
    }
}

/// The identity in the state folder; made and synced there when missing.
///
/// # Errors
/// [`DurableError`] when the record cannot be used or made.
pub fn load_or_create(paths: &Paths) -> Result<Identity, DurableError> {
    let path = paths.host_record();
    if let Some(identity) = durable::read_json::<Identity>(&path)? {
        return Ok(identity);
    }
    let bytes = random::<4>().map_err(|source| DurableError::Read {
        path: "/dev/urandom".into(),
        source,
    })?;
    let id = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let identity = Identity {
        version: VERSION,
        id,
        subnets: None,
    };
    identity.save(paths)?;
    Ok(identity)
}

/// A dyno id that was never used before (48 random bits).
///
/// # Errors
/// When the kernel's random device cannot be read.
pub fn new_dyno_id() -> io::Result<DynoId> {
    random().map(DynoId::from_bytes)
}

/// A random number.
///
/// # Errors
/// When the kernel's random device cannot be read.
pub(crate) fn random_u32() -> io::Result<u32> {
    random().map(u32::from_le_bytes)
}

/// This boot, as the kernel names it.
///
/// # Errors
/// When procfs cannot be read.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_keeps_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths {
            state_dir: folder.path().to_owned(),
            run_dir: folder.path().to_owned(),
        };
        let first = load_or_create(&paths).unwrap();
        assert_eq!(first.id.len(), 8);
        assert_eq!(load_or_create(&paths).unwrap(), first);
    }
}
