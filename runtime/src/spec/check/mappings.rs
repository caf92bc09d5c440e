//! Mappings of ids.

use oci_spec::runtime::LinuxIdMapping;

use super::super::SpecError;

/// What the kernel would take for a mapping; it says no more than "invalid".
pub(super) fn check_mappings(
    property: &'static str,
    mappings: &[LinuxIdMapping],
) -> Result<(), SpecError> {
    let invalid = |value: &LinuxIdMapping, expected| {
        let (inside, outside) = (value.container_id(), value.host_id());
        let value = format!("{inside} {outside} {}", value.size());
        Err(SpecError::Invalid {
            property,
            value,
            expected,
        })
    };
    if let Some(first) = mappings.get(MAPPINGS_MAX) {
        return invalid(first, "at most 340 ranges");
    }
    for (index, mapping) in mappings.iter().enumerate() {
        let end = |begin: u32| begin.checked_add(mapping.size());
        if mapping.size() == 0 {
            return invalid(mapping, "a range of at least one id");
        }
        let (Some(inside), Some(outside)) = (end(mapping.container_id()), end(mapping.host_id()))
        else {
            return invalid(mapping, "a range that ends before 4294967295");
        };
        let overlap = |other: &LinuxIdMapping, begin: u32, end: u32, others: u32| {
            begin < others.saturating_add(other.size()) && others < end
        };
        for other in &mappings[..index] {
            if overlap(other, mapping.container_id(), inside, other.container_id())
                || overlap(other, mapping.host_id(), outside, other.host_id())
            {
                return invalid(mapping, "ranges that do not overlap");
            }
        }
    }
    Ok(())
}

/// `UID_GID_MAP_MAX_EXTENTS` of the kernel.
const MAPPINGS_MAX: usize = 340;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{checked, complaint, config};

    #[test]
    fn mappings_that_the_kernel_cannot_take_are_refused_by_their_values() {
        let range = |inside: u32, host: u32, size: u32| json!({"containerID": inside, "hostID": host, "size": size});
        for (mappings, expected) in [
            (json!([range(0, 1000, 0)]), "at least one id"),
            (json!([range(0, u32::MAX, 2)]), "4294967295"),
            (json!([range(u32::MAX, 0, 1)]), "4294967295"),
            (json!([range(0, 1000, 10), range(9, 2000, 10)]), "overlap"),
            (json!([range(0, 1000, 10), range(10, 1009, 1)]), "overlap"),
            (json!([range(0, 1000, 10), range(0, 1000, 10)]), "overlap"),
            (
                json!((0..341).map(|n| range(n, 1000 + n, 1)).collect::<Vec<_>>()),
                "340",
            ),
        ] {
            for name in ["uidMappings", "gidMappings"] {
                let message = complaint(&format!("/linux/{name}"), mappings.clone());
                assert!(
                    message.contains(expected) && message.contains(name),
                    "{message}"
                );
                let mount = json!([{"destination": "/x", "source": "/x", "options": ["bind"],
                    name: mappings}]);
                let message = complaint("/mounts", mount);
                assert!(
                    message.contains(expected) && message.contains(name),
                    "{message}"
                );
            }
        }
        let ranges = json!([range(0, 1000, 10), range(10, 500, 10), range(20, 1010, 1)]);
        let mut config = config();
        config["linux"]["uidMappings"] = ranges;
        checked(config).unwrap();
    }
}
