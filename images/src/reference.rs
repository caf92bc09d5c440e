//! Image references: `[registry/]repository[:tag][@digest]`, normalised as Docker does.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestError};

/// The registry meant when a reference names none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag meant when a reference names neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// Stands for "no registry at all". No parsed reference can have it: a registry's name holds a
/// dot, a colon or is `localhost`.
const BUILT_IN: &str = "built-in";

/// A complete image reference: where an image is and which one is meant.
///
/// `busybox` is `docker.io/library/busybox:latest`; `localhost:5000/x` names a registry because
/// its first part holds a dot or a colon or is `localhost`. The bare word `host` is the built-in
/// image ([`Store::host_image`](crate::Store::host_image)); Docker Hub's image of that name is
/// `docker.io/library/host`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a string is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The registry part is not `host[:port]`.
    #[error("`{0}` is not a registry address (host[:port])")]
    Registry(String),
    /// The repository part breaks the distribution spec's grammar.
    #[error(
        "`{0}` is not a repository name (lower-case letters, digits and single . _ - between them)"
    )]
    Repository(String),
    /// The tag breaks the distribution spec's grammar.
    #[error("`{0}` is not a tag (letters, digits, _ . -, at most 128)")]
    Tag(String),
    /// What follows `@` is not a digest.
    #[error("the part after @ is not a digest")]
    Digest(#[from] DigestError),
}

impl Reference {
    /// The built-in image `host`.
    pub fn host() -> Reference {
        Reference {
            registry: BUILT_IN.to_owned(),
            repository: "host".to_owned(),
            tag: None,
            digest: None,
        }
    }

    /// Whether this is the built-in image, which no registry knows.
    pub fn is_built_in(&self) -> bool {
        self.registry == BUILT_IN
    }

    /// Registry address, `host[:port]`, as the user wrote it (`docker.io` by default).
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Repository within the registry, such as `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Tag, unless only a digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Digest the reference is pinned to.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Whether both name the same repository of the same registry.
    pub fn same_repository(&self, other: &Reference) -> bool {
        self.registry == other.registry && self.repository == other.repository
    }

    /// The short form people type: without `docker.io/library/` and `:latest`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let short = full.strip_prefix("docker.io/").unwrap_or(&full);
        let short = short.strip_prefix("library/").unwrap_or(short);
        // The bare word `host` means the built-in image.
        if short.split([':', '@']).next() == Some("host") && !self.is_built_in() {
            return full;
        }
        short.strip_suffix(":latest").unwrap_or(short).to_owned()
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        if text == "host" {
            return Ok(Reference::host());
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (text, None),
        };
        // A colon after the last slash begins a tag; one before it, a port.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if looks_like_registry(first) => (first, rest.to_owned()),
            _ => (DEFAULT_REGISTRY, name.to_owned()),
        };
        let registry = match registry {
            "index.docker.io" => DEFAULT_REGISTRY,
            other => other,
        };
        let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository
        };
        check_registry(registry)?;
        check_repository(&repository, text)?;
        let tag = match tag {
            Some(tag) => Some(check_tag(tag)?),
            None if digest.is_none() => Some(DEFAULT_TAG.to_owned()),
            None => None,
        };
        Ok(Reference {
            registry: registry.to_owned(),
            repository,
            tag,
            digest,
        })
    }
}

fn looks_like_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

fn check_registry(registry: &str) -> Result<(), ReferenceError> {
    let refuse = || ReferenceError::Registry(abbreviate(registry));
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or_else(refuse)?;
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(refuse());
            }
            match port.strip_prefix(':') {
                Some(port) => ("v6", Some(port)),
                None if port.is_empty() => ("v6", None),
                None => return Err(refuse()),
            }
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        },
    };
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let port_fits = match port {
        Some(port) => {
            port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p > 0)
        }
        None => true,
    };
    if host.len() > 253 || !host.split('.').all(label) || !port_fits {
        return Err(refuse());
    }
    Ok(())
}

/// `path-component ["/" path-component]*` of the distribution spec, at most 255 characters.
fn check_repository(repository: &str, whole: &str) -> Result<(), ReferenceError> {
    let refuse = || {
        ReferenceError::Repository(abbreviate(if repository.ends_with('/') {
            whole
        } else {
            repository
        }))
    };
    if repository.len() > 255 || !repository.split('/').all(is_path_component) {
        return Err(refuse());
    }
    Ok(())
}

/// `[a-z0-9]+ ((\.|_|__|-+) [a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    alphanumeric(*first)
        && alphanumeric(*last)
        && bytes
            .iter()
            .all(|&b| alphanumeric(b) || matches!(b, b'.' | b'_' | b'-'))
        && component
            .split(|c: char| c.is_ascii_alphanumeric())
            .all(|separator| {
                matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
            })
}

fn check_tag(tag: &str) -> Result<String, ReferenceError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let fits = (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'));
    match fits {
        true => Ok(tag.to_owned()),
        false => Err(ReferenceError::Tag(abbreviate(tag))),
    }
}

fn abbreviate(text: &str) -> String {
    text.chars().take(100).collect()
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_built_in() {
            return f.write_str(&self.repository);
        }
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Reference, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn normalises_as_docker_does() {
        let pinned = format!("localhost:5000/x:tag@{HEX}");
        let by_digest = format!("busybox@{HEX}");
        let by_digest_full = format!("docker.io/library/busybox@{HEX}");
        for (text, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("a/b", "docker.io/a/b:latest"),
            ("index.docker.io/a/b", "docker.io/a/b:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("quay.io/a/b/c__d:v1.0-rc_1", "quay.io/a/b/c__d:v1.0-rc_1"),
            ("docker.io/library/host", "docker.io/library/host:latest"),
            (&pinned, &pinned),
            (&by_digest, &by_digest_full),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(full.parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn the_word_host_is_the_built_in_image_and_survives_a_round_trip() {
        let host: Reference = "host".parse().unwrap();
        assert!(host.is_built_in());
        assert_eq!(host.to_string().parse::<Reference>().unwrap(), host);
        assert_eq!(host.familiar(), "host");
        assert!(
            !"docker.io/library/host"
                .parse::<Reference>()
                .unwrap()
                .is_built_in()
        );
        assert!(
            "built-in/host"
                .parse::<Reference>()
                .is_ok_and(|r| !r.is_built_in())
        );
    }

    #[test]
    fn refuses_what_the_grammar_does_not_allow() {
        for text in [
            "",
            "/",
            "a//b",
            "A",
            "a/B",
            "-a",
            "a-",
            "a..b",
            "a.-b",
            "a___b",
            "a b",
            "a:",
            "a:b:c",
            "a@",
            "a@sha256:xyz",
            "a:-x",
            "localhost:99999/x",
            "localhost:/x",
            "localhost:+1/x",
            "x.y/",
            "../etc",
            "a/../b",
            "[::1/x",
            "[zz]:1/x",
            "a.b:5000",
            "-x.com/y",
            "host:",
        ] {
            // `a.b:5000` is a repository with a tag, the one odd case Docker has too.
            let parsed = text.parse::<Reference>();
            assert!(parsed.is_err() || text == "a.b:5000", "{text}: {parsed:?}");
        }
    }

    #[test]
    fn the_familiar_form_names_the_same_image() {
        for (text, short) in [
            ("docker.io/library/busybox:latest", "busybox"),
            ("docker.io/a/b:1", "a/b:1"),
            ("localhost:5000/x:latest", "localhost:5000/x"),
            (
                "docker.io/library/host:latest",
                "docker.io/library/host:latest",
            ),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.familiar(), short);
            assert_eq!(short.parse::<Reference>().unwrap(), reference);
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_to_itself_or_not_at_all(text in "[a-zA-Z0-9:/@._\\[\\]-]{0,60}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference.clone());
                prop_assert_eq!(reference.familiar().parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
