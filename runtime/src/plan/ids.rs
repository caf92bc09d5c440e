//! A container's ids as the host counts them.

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType};
use rustix::fs::{Gid, Uid};

use crate::spec::Bundle;

/// Turns a container's ids into the host's.
pub(super) trait HostIds {
    /// Host uid of a container uid; `None` where it is not mapped.
    fn uid(&self, uid: u32) -> Option<Uid>;
    /// Host gid of a container gid; `None` where it is not mapped.
    fn gid(&self, gid: u32) -> Option<Gid>;
}

impl HostIds for Bundle {
    fn uid(&self, uid: u32) -> Option<Uid> {
        host_id(self, self.uid_mappings(), uid).map(Uid::from_raw)
    }

    fn gid(&self, gid: u32) -> Option<Gid> {
        host_id(self, self.gid_mappings(), gid).map(Gid::from_raw)
    }
}

fn host_id(bundle: &Bundle, mappings: &[LinuxIdMapping], id: u32) -> Option<u32> {
    match bundle.namespace(LinuxNamespaceType::User) {
        None => Some(id),
        Some(_) => map(mappings, id),
    }
}

/// By the first mapping that holds the id, as the kernel has it.
fn map(mappings: &[LinuxIdMapping], id: u32) -> Option<u32> {
    mappings.iter().find_map(|mapping| {
        let offset = id.checked_sub(mapping.container_id())?;
        (offset < mapping.size())
            .then(|| mapping.host_id().checked_add(offset))
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxIdMappingBuilder;

    use super::*;

    fn mapping(container: u32, host: u32, size: u32) -> LinuxIdMapping {
        LinuxIdMappingBuilder::default()
            .container_id(container)
            .host_id(host)
            .size(size)
            .build()
            .unwrap()
    }

    #[test]
    fn an_id_is_mapped_by_the_range_that_holds_it() {
        let mappings = [mapping(0, 1000, 1), mapping(1, 100_000, 65535)];
        assert_eq!(map(&mappings, 0), Some(1000));
        assert_eq!(map(&mappings, 1), Some(100_000));
        assert_eq!(map(&mappings, 65535), Some(165_534));
        assert_eq!(map(&mappings, 65536), None);
        assert_eq!(map(&[], 0), None);
    }

    #[test]
    fn no_id_wraps_around() {
        assert_eq!(map(&[mapping(0, u32::MAX, 10)], 1), None);
        assert_eq!(map(&[mapping(u32::MAX, 0, u32::MAX)], u32::MAX), Some(0));
    }
}
