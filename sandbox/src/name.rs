//! Names of sandboxes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One to twenty of `a-z`, `0-9` and `-`, a letter first: it becomes part of the names of
/// namespaces.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
        match begins && text.len() <= 20 && text.chars().all(known) {
            true => Ok(Self(text)),
            false => Err("a name is a letter and up to 19 of a-z, 0-9 and -"),
        }
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_be_part_of_a_path_and_of_a_namespaces_name() {
        for good in ["sandbox", "a", "ci-42"] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "4x",
            "-x",
            "A",
            "a/b",
            "..",
            "a.b",
            "a b",
            &"x".repeat(21),
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
