//! Environment variables of `run` and `exec`, from flags and files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;
use crate::value::env::{self, Variable};

/// Flags for environment variables.
#[derive(Debug, Default, Args)]
pub(crate) struct EnvArgs {
    /// Environment variable; without a value, the one it has here
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", value_parser = env::parse)]
    env: Vec<Variable>,
    /// File of NAME[=VALUE] lines; -e goes before
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
}

impl EnvArgs {
    /// The variables: files in order, then flags; what comes later wins.
    ///
    /// # Errors
    /// A [`Failure`] where a file cannot be read or a line is no variable.
    pub(crate) fn into_variables(self) -> Result<BTreeMap<String, String>, Failure> {
        let mut variables = Vec::new();
        for path in &self.env_file {
            let shown = path.display();
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::io(format!("cannot read --env-file {shown}"), &error))?;
            let file = env::parse_file(&text)
                .map_err(|error| Failure::usage(format!("--env-file {shown}: {error}")))?;
            variables.extend(file);
        }
        variables.extend(self.env);
        Ok(resolve(variables, |name| std::env::var(name).ok()))
    }
}

/// Variables with their values; one that is to be inherited and is not set
/// here is left out.
pub(crate) fn resolve(
    variables: Vec<Variable>,
    own: impl Fn(&str) -> Option<String>,
) -> BTreeMap<String, String> {
    variables
        .into_iter()
        .filter_map(|Variable { name, value }| {
            let value = value.or_else(|| own(&name))?;
            Some((name, value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_without_a_value_is_inherited_if_it_is_set() {
        let variables = ["A=1", "HOME", "NOT_SET", "A=2"].map(|text| env::parse(text).unwrap());
        let own = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        let resolved = resolve(variables.to_vec(), own);
        let pairs: Vec<(&str, &str)> = resolved
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(pairs, [("A", "2"), ("HOME", "/root")]);
    }
}
