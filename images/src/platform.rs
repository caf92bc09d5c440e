//! Platforms: operating system, architecture and variant, as image indexes name them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an image was built for, in Go's names (`linux/amd64`, `linux/arm64/v8`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system; only `linux` can run here.
    pub os: String,
    /// Architecture: `amd64`, `arm64`, `arm`, `riscv64`, …
    pub architecture: String,
    /// Variant of the architecture: `v7` of `arm`, `v8` of `arm64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A string is not `os/architecture[/variant]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("platform `{0}` is not `os/architecture[/variant]`, for example `linux/arm64`")]
pub struct PlatformError(String);

impl Platform {
    /// The platform this program was built for, hence the machine's own.
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7")),
            other => (other, None),
        };
        Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// Whether an image for `offered` satisfies a request for `self`. A variant that was not
    /// asked for does not matter; `arm64` means `arm64/v8` and `amd64` means `amd64/v1`.
    pub fn accepts(&self, offered: &Platform) -> bool {
        let variant_fits = match (self.implied_variant(), offered.implied_variant()) {
            (Some(wanted), Some(there)) => wanted == there,
            (None, _) => true,
            (Some(_), None) => false,
        };
        self.os == offered.os && self.architecture == offered.architecture && variant_fits
    }

    fn implied_variant(&self) -> Option<&str> {
        self.variant
            .as_deref()
            .or(match self.architecture.as_str() {
                "arm64" => Some("v8"),
                "amd64" => Some("v1"),
                _ => None,
            })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let refuse = || PlatformError(text.chars().take(100).collect());
        let word = |part: &str| {
            let fits = (1..=32).contains(&part.len())
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            fits.then(|| part.to_owned())
        };
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(refuse()),
        };
        Ok(Platform {
            os: word(os).ok_or_else(refuse)?,
            architecture: word(architecture).ok_or_else(refuse)?,
            variant: variant.map(|v| word(v).ok_or_else(refuse)).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn parses_and_prints_the_same_text() {
        for text in ["linux/amd64", "linux/arm/v7", "windows/amd64"] {
            assert_eq!(platform(text).to_string(), text);
        }
        for text in [
            "",
            "linux",
            "linux/",
            "a/b/c/d",
            "Linux/amd64",
            "linux/../x",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_variant_matters_only_when_asked_for() {
        assert!(platform("linux/arm").accepts(&platform("linux/arm/v7")));
        assert!(platform("linux/arm64").accepts(&platform("linux/arm64/v8")));
        assert!(platform("linux/arm64/v8").accepts(&platform("linux/arm64")));
        assert!(!platform("linux/arm/v6").accepts(&platform("linux/arm/v7")));
        assert!(!platform("linux/amd64").accepts(&platform("linux/amd64/v3")));
        assert!(!platform("linux/amd64").accepts(&platform("windows/amd64")));
    }
}
