//! Strings that the kernel can be given.

use std::path::Path;

use oci_spec::runtime::Spec;

use super::super::SpecError;

/// No string with a NUL byte can reach the kernel.
pub(super) fn check_strings(spec: &Spec) -> Result<(), SpecError> {
    let text = |text: &Option<String>| text.iter().cloned().collect();
    let list = |list: &Option<Vec<String>>| list.iter().flatten().cloned().collect();
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let root = spec.root().iter().map(|root| path(root.path()));
    let mut strings: Vec<(&'static str, Vec<String>)> = vec![
        ("hostname", text(spec.hostname())),
        ("domainname", text(spec.domainname())),
        ("root.path", root.collect()),
    ];
    for mount in spec.mounts().iter().flatten() {
        let source = mount.source().iter().map(|source| path(source));
        strings.extend([
            ("mounts.destination", vec![path(mount.destination())]),
            ("mounts.type", text(mount.typ())),
            ("mounts.source", source.collect()),
            ("mounts.options", list(mount.options())),
        ]);
    }
    if let Some(linux) = spec.linux() {
        let devices = linux.devices().iter().flatten();
        let sysctls = linux.sysctl().iter().flatten();
        strings.extend([
            (
                "linux.devices.path",
                devices.map(|device| path(device.path())).collect(),
            ),
            (
                "linux.sysctl",
                sysctls
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect(),
            ),
            ("linux.maskedPaths", list(linux.masked_paths())),
            ("linux.readonlyPaths", list(linux.readonly_paths())),
            ("linux.mountLabel", text(linux.mount_label())),
        ]);
    }
    refuse_nul(strings)
}

pub(super) fn refuse_nul(strings: Vec<(&'static str, Vec<String>)>) -> Result<(), SpecError> {
    for (property, texts) in strings {
        if let Some(value) = texts.into_iter().find(|text| text.contains('\0')) {
            return Err(SpecError::Invalid {
                property,
                value,
                expected: "a text without NUL bytes",
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::complaint;

    #[test]
    fn a_nul_byte_is_refused_wherever_it_is() {
        let nul = "a\0b";
        for (pointer, value) in [
            ("/hostname", json!(nul)),
            ("/domainname", json!(nul)),
            ("/root/path", json!(nul)),
            ("/process/args", json!(["x", nul])),
            ("/process/env", json!([nul])),
            ("/process/cwd", json!("/a\0b")),
            ("/mounts", json!([{"destination": "/a\0b"}])),
            ("/mounts", json!([{"destination": "/", "type": nul}])),
            ("/mounts", json!([{"destination": "/", "source": nul}])),
            ("/mounts", json!([{"destination": "/", "options": [nul]}])),
            ("/linux/devices", json!([{"path": "/a\0b", "type": "p"}])),
            ("/linux/sysctl", json!({"net.x": nul})),
            ("/linux/maskedPaths", json!([nul])),
            ("/linux/readonlyPaths", json!([nul])),
            ("/linux/mountLabel", json!(nul)),
        ] {
            let message = complaint(pointer, value);
            let field = pointer.trim_start_matches('/').replace('/', ".");
            assert!(
                message.contains("NUL") && message.contains(&field),
                "{message}"
            );
        }
    }
}
