//! The tests that documents name are there.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    /// Functions that have `#[test]` or the like before them, other attributes between,
    /// and names of scenarios.
    fn tests_in(text: &str) -> Vec<String> {
        let mut marked = false;
        let mut names = Vec::new();
        for line in text.lines().map(str::trim) {
            let function = line.strip_prefix("async ").unwrap_or(line);
            if line == "#[test]" || line == "#[tokio::test]" {
                marked = true;
            } else if let Some(rest) = function.strip_prefix("fn ") {
                let name = rest.split('(').next().unwrap_or_default();
                names.extend(marked.then(|| name.to_owned()));
                marked = false;
            } else if let Some(rest) = line.strip_prefix("name: \"") {
                names.extend(rest.strip_suffix("\",").map(str::to_owned));
            }
        }
        names
    }

    #[test]
    fn every_test_that_a_document_names_exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut files = Vec::new();
        for folder in ["runtime", "images", "netns", "hostd", "tests", "vm-tests"] {
            sources(&root.join(folder), &mut files);
        }
        let there: BTreeSet<String> = files
            .iter()
            .flat_map(|path| tests_in(&std::fs::read_to_string(path).unwrap()))
            .collect();
        for document in ["docs/threat-model.md", "docs/faults.md"] {
            let text = std::fs::read_to_string(root.join(document)).unwrap();
            // A name of several words between backticks, and no path.
            let named: Vec<&str> = text
                .split('`')
                .skip(1)
                .step_by(2)
                .filter(|name| name.matches('_').count() > 1 && !name.contains(['/', '.', ' ']))
                .collect();
            assert!(
                named.len() > 30,
                "{document}: {} names are few",
                named.len()
            );
            let missing: Vec<_> = named
                .iter()
                .filter(|name| !there.contains(**name))
                .collect();
            assert!(missing.is_empty(), "{document}: no such tests: {missing:?}");
        }
    }
}
