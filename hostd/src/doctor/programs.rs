//! Programs that hostd executes, and those of others that some features need.

use std::path::Path;
use std::process::{Command, Stdio};

use dyno_api::doctor::HostCheck;

use crate::config::Serve;
use crate::durable::chain;

/// `(program, what for, Debian's package)`.
const OTHERS: [(&str, &str, &str); 1] = [("criu", "checkpoint and restore", "criu")];

pub(super) fn checks(options: &Serve) -> Vec<HostCheck> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |name: &str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    vec![own(options), others(found)]
}

fn own(options: &Serve) -> HostCheck {
    const NAME: &str = "programs";
    let binaries = match options.binaries() {
        Ok(binaries) => binaries,
        Err(error) => {
            return HostCheck::failure(NAME, chain(&error))
                .advise("install dyno-runtime, dyno-unpack and dyno-edge beside hostd");
        }
    };
    let own = env!("CARGO_PKG_VERSION");
    // dyno-unpack speaks with hostd alone.
    let odd: Vec<String> = [&binaries.runtime, &binaries.edge]
        .into_iter()
        .filter_map(|program| {
            let version = version(program);
            (version.as_deref() != Some(own)).then(|| {
                let version = version.unwrap_or_else(|| "of no known version".to_owned());
                format!("{} is {version}", program.display())
            })
        })
        .collect();
    match odd.is_empty() {
        true => HostCheck::ok(NAME, format!("all of version {own}")),
        false => HostCheck::warning(NAME, format!("hostd is {own}; {}", odd.join(", ")))
            .advise("install all programs from one release"),
    }
}

/// What it says of itself.
fn version(program: &Path) -> Option<String> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    last_word(&output.stdout)
}

/// Of the first line.
fn last_word(text: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(text).ok()?.lines().next()?;
    line.split_whitespace().last().map(str::to_owned)
}

fn others(found: impl Fn(&str) -> bool) -> HostCheck {
    const NAME: &str = "other programs";
    let missing: Vec<_> = OTHERS.iter().filter(|(name, ..)| !found(name)).collect();
    if missing.is_empty() {
        return HostCheck::ok(NAME, OTHERS.map(|(name, ..)| name).join(", "));
    }
    let what = missing
        .iter()
        .map(|(name, what, _)| format!("no {name}, for {what}"));
    let packages = missing.iter().map(|(.., package)| *package);
    HostCheck::warning(NAME, what.collect::<Vec<_>>().join("; ")).advise(format!(
        "apt-get install {}, if you want that",
        packages.collect::<Vec<_>>().join(" ")
    ))
}

#[cfg(test)]
mod tests {
    use dyno_api::doctor::CheckState::{Ok, Warning};

    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        assert_eq!(others(|_| true).state, Ok);
        let check = others(|_| false);
        assert_eq!(check.state, Warning);
        assert!(check.advice.unwrap().contains("criu"));
    }

    #[test]
    fn a_version_is_the_last_word_of_the_first_line() {
        let text = b"dyno-runtime version 0.1.0\nspec: 1.3.0\n";
        assert_eq!(last_word(text).as_deref(), Some("0.1.0"));
        assert_eq!(last_word(b"\n"), None);
        assert_eq!(version(Path::new("/nonexistent")), None);
    }
}
