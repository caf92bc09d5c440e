//! Commands that are, or execute, cargo: they must not take what cargo tells
//! this program about its own package for what a person has set.

use std::ffi::OsStr;
use std::process::Command;

/// What `cargo run` tells the program it runs about its package. Build scripts
/// watch these (ring's does): inherited, they have half the tree compiled anew,
/// and again by whoever calls cargo without them.
const ABOUT_US: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];

/// A command that compiles as it would if a person had typed it.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if ABOUT_US.iter().any(|start| name_text.starts_with(start)) {
            command.env_remove(&name);
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_not_told_about_us() {
        let told = |command: &mut Command| {
            let output = command.output().expect("run env");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            ABOUT_US.iter().any(|start| text.contains(start))
        };
        assert!(told(&mut Command::new("env")), "positive control");
        assert!(!told(&mut command("env")));
    }
}
