//! Credentials that `docker login` keeps, for one registry (P10).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dyno_api::image::Credentials;
use serde::Deserialize;

use crate::failure::Failure;
use crate::value::reference::{DOCKER_HUB, registry};

/// Docker's other names for Docker Hub.
const DOCKER_HUB_KEYS: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];

/// The parts of docker's config.json that say who we are.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Auth>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
}

/// The credentials for the registry of this reference, where docker has any.
///
/// # Errors
/// A [`Failure`] where its file cannot be read or understood: silently sending
/// none would look like a registry that refuses us.
pub(super) fn of_docker(reference: &str) -> Result<Option<Credentials>, Failure> {
    let Some(path) = config_path() else {
        return Ok(None);
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Failure::io(
                format!("cannot read {}", path.display()),
                &error,
            ));
        }
    };
    find(&text, registry(reference)).map_err(|why| told(why, &path))
}

fn config_path() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let folder = variable("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".docker")))?;
    Some(folder.join("config.json"))
}

fn told(why: Refusal, path: &Path) -> Failure {
    Failure::new(format!("{}: {why}", path.display()))
        .hint("dyno pull --username NAME --password-stdin IMAGE < FILE")
}

/// Why docker's file does not give credentials that it should have.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("not docker's configuration: {0}")]
    Syntax(#[from] serde_json::Error),
    #[error("the credentials for {0} are not base64 of name:password")]
    Auth(String),
    #[error(
        "the credentials for {registry} are kept by the program docker-credential-{helper}, which dyno does not execute"
    )]
    Helper { registry: String, helper: String },
}

/// Exactly this registry's credentials: same host, same port.
fn find(config: &str, registry: &str) -> Result<Option<Credentials>, Refusal> {
    let config: Config = serde_json::from_str(config)?;
    let same = |key: &str| host(key) == registry;
    if let Some((_, helper)) = config.cred_helpers.iter().find(|(key, _)| same(key)) {
        let (registry, helper) = (registry.to_owned(), helper.clone());
        return Err(Refusal::Helper { registry, helper });
    }
    let Some((_, auth)) = config.auths.iter().find(|(key, _)| same(key)) else {
        return Ok(None);
    };
    match (&auth.auth, config.creds_store) {
        (Some(auth), _) if !auth.is_empty() => decode(auth)
            .map(Some)
            .ok_or_else(|| Refusal::Auth(registry.to_owned())),
        // docker leaves an empty entry here for what its store keeps.
        (_, Some(helper)) => Err(Refusal::Helper {
            registry: registry.to_owned(),
            helper,
        }),
        (_, None) => Ok(None),
    }
}

/// The host and port of a key, which older dockers write as a URL.
fn host(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest);
    if DOCKER_HUB_KEYS.contains(&host) {
        DOCKER_HUB
    } else {
        host
    }
}

/// `base64(name:password)`, RFC 7617.
fn decode(auth: &str) -> Option<Credentials> {
    let text = String::from_utf8(STANDARD.decode(auth).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    let password = password.trim_end_matches('\0');
    Some(Credentials {
        username: username.to_owned(),
        password: password.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{
        "auths": {
            "https://index.docker.io/v1/": {"auth": "YWRhOnNlY3JldA=="},
            "registry.example:5000": {"auth": "Ym9iOmE6Yg=="},
            "broken.example": {"auth": "bm9jb2xvbg=="},
            "stored.example": {}
        },
        "credHelpers": {"helped.example": "pass"},
        "HttpHeaders": {"User-Agent": "x"}
    }"#;

    fn found(reference: &str) -> Option<(String, String)> {
        let found = find(CONFIG, registry(reference)).unwrap();
        found.map(|credentials| (credentials.username, credentials.password))
    }

    #[test]
    fn credentials_go_to_their_own_registry_only() {
        let owned = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        assert_eq!(found("debian:12"), owned("ada", "secret"));
        assert_eq!(found("registry.example:5000/x"), owned("bob", "a:b"));
        for other in [
            "registry.example/x",
            "registry.example:5001/x",
            "xregistry.example:5000/x",
        ] {
            assert_eq!(found(other), None, "{other}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        assert!(matches!(
            find(CONFIG, "broken.example"),
            Err(Refusal::Auth(_))
        ));
        assert!(matches!(
            find(CONFIG, "helped.example"),
            Err(Refusal::Helper { .. })
        ));
        assert!(matches!(find("{]", "x"), Err(Refusal::Syntax(_))));
        assert!(find(CONFIG, "stored.example").unwrap().is_none());
        let stored = r#"{"auths":{"a.example":{}},"credsStore":"desktop"}"#;
        assert!(matches!(
            find(stored, "a.example"),
            Err(Refusal::Helper { .. })
        ));
        assert!(find("{}", "docker.io").unwrap().is_none());
    }
}
