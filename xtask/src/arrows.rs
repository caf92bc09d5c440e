//! Which crate may import which: the picture in `docs/architecture.md`, checked.

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::process::Command;

    /// Each crate of the workspace, and all that it may import of the others.
    /// Development dependencies count: a test reaches no further than its crate.
    const ALLOWED: &[(&str, &[&str])] = &[
        ("dyno", &["dyno-api", "dyno-sandbox"]),
        ("dyno-api", &[]),
        ("dyno-cluster", &["dyno-api"]),
        ("dyno-edge", &["dyno-api"]),
        ("dyno-example-web", &[]),
        ("dyno-failpoint", &[]),
        (
            "dyno-hostd",
            &[
                "dyno-api",
                "dyno-failpoint",
                "dyno-images",
                "dyno-netns",
                "dyno-runtime",
            ],
        ),
        ("dyno-images", &["dyno-failpoint"]),
        ("dyno-netns", &[]),
        ("dyno-runtime", &["dyno-failpoint"]),
        ("dyno-sandbox", &["dyno-api"]),
        ("dyno-tests", &["dyno-api"]),
        ("dyno-vm-tests", &["dyno-api"]),
        ("xtask", &[]),
    ];

    #[test]
    fn crates_import_only_along_the_arrows() {
        let metadata = Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--no-deps",
                "--format-version",
                "1",
                "--offline",
            ])
            .output()
            .expect("cargo metadata");
        assert!(
            metadata.status.success(),
            "{}",
            String::from_utf8_lossy(&metadata.stderr)
        );
        let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).expect("JSON");
        let packages = metadata["packages"].as_array().expect("packages");
        let name = |value: &serde_json::Value| value["name"].as_str().expect("a name").to_owned();
        let ours: BTreeSet<String> = packages.iter().map(name).collect();
        let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
        assert_eq!(
            ours.iter().map(String::as_str).collect::<Vec<_>>(),
            allowed.keys().copied().collect::<Vec<_>>(),
            "every crate of the workspace has its row, and no other"
        );
        for package in packages {
            let from = name(package);
            for dependency in package["dependencies"].as_array().expect("dependencies") {
                let to = name(dependency);
                let fine = !ours.contains(&to) || allowed[from.as_str()].contains(&to.as_str());
                assert!(fine, "{from} imports {to}, which is not among its arrows");
            }
        }
    }
}
