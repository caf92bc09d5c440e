//! Logging in: what a registry's challenge asks for, and fetching a token.
//!
//! P10: a password goes to the registry's own origin, or to the token endpoint that this origin
//! named in answer to our own request; over https unless the registry itself is plain http.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::HeaderValue;
use http::{StatusCode, Uri};
use serde::Deserialize;

use super::RegistryError;
use super::connect::Origin;
use super::http_get::Answer;

/// P15: real token answers have a few KiB.
const MAX_TOKEN_BYTES: usize = 64 << 10;

/// A user's name and password (or access token) for one registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub user: String,
    /// Password or access token.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials {{ user: {:?}, password: *** }}", self.user)
    }
}

impl Credentials {
    /// `Authorization: Basic …` (RFC 7617).
    pub(super) fn basic(&self) -> HeaderValue {
        let encoded = BASE64_STANDARD.encode(format!("{}:{}", self.user, self.password));
        secret(format!("Basic {encoded}"))
    }
}

/// What a 401 asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Challenge {
    Basic,
    Bearer(TokenService),
}

/// A token endpoint (`Bearer realm="…",service="…"`).
#[derive(Debug, Default, PartialEq)]
pub(super) struct TokenService {
    realm: String,
    service: Option<String>,
}

impl Challenge {
    /// The best of the challenges: bearer before basic.
    pub(super) fn choose(
        headers: &[HeaderValue],
        registry: &Origin,
    ) -> Result<Challenge, RegistryError> {
        let mut basic = false;
        for header in headers
            .iter()
            .take(10)
            .filter_map(|header| header.to_str().ok())
        {
            let (scheme, parameters) = header.split_once(' ').unwrap_or((header, ""));
            if scheme.eq_ignore_ascii_case("bearer") {
                return TokenService::parse(parameters)
                    .map(Challenge::Bearer)
                    .ok_or_else(|| refused(registry, "its bearer challenge names no realm"));
            }
            basic |= scheme.eq_ignore_ascii_case("basic");
        }
        match basic {
            true => Ok(Challenge::Basic),
            false => Err(refused(
                registry,
                "it asks for no kind of login known here (basic, bearer)",
            )),
        }
    }
}

impl TokenService {
    /// Parameters of a challenge: `key="value"`, separated by commas (RFC 9110, 11.2).
    fn parse(mut text: &str) -> Option<TokenService> {
        let (mut realm, mut service) = (None, None);
        while let Some((key, rest)) = text.split_once('=') {
            let (value, rest) = match rest.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => rest.split_at(rest.find(',').unwrap_or(rest.len())),
            };
            match key.trim_matches([' ', ',']).to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value.to_owned()),
                "service" => service = Some(value.to_owned()),
                _ => {}
            }
            text = rest;
        }
        Some(TokenService {
            realm: realm?,
            service,
        })
    }

    /// Where to ask for a token to pull from `repository`. The scope is ours, not the one the
    /// challenge names: we want to pull this repository and nothing else.
    pub(super) fn request(
        &self,
        registry: &Origin,
        repository: &str,
    ) -> Result<(Origin, String), RegistryError> {
        let uri: Option<Uri> = self.realm.parse().ok();
        let (uri, origin) = uri
            .and_then(|uri| Origin::of_uri(&uri).map(|origin| (uri, origin)))
            .ok_or_else(|| refused(registry, "its token endpoint is not an address"))?;
        if registry.is_https() && !origin.is_https() {
            return Err(refused(registry, "its token endpoint is not https"));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut path = format!("{path}{}", if path.contains('?') { '&' } else { '?' });
        if let Some(service) = &self.service {
            path += &format!("service={}&", percent_encoded(service));
        }
        path += &format!(
            "scope={}",
            percent_encoded(&format!("repository:{repository}:pull"))
        );
        Ok((origin, path))
    }
}

/// Reads the token endpoint's answer; `None` if it refuses us.
pub(super) async fn read_token(
    mut answer: Answer,
    registry: &Origin,
) -> Result<Option<HeaderValue>, RegistryError> {
    #[derive(Deserialize)]
    struct Token {
        token: Option<String>,
        access_token: Option<String>,
    }
    match answer.status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Ok(None),
        status => {
            return Err(refused(
                registry,
                &format!("its token endpoint answered {status}"),
            ));
        }
    }
    let mut text = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        text.extend_from_slice(&chunk);
        if text.len() > MAX_TOKEN_BYTES {
            return Err(refused(registry, "its token endpoint's answer is too long"));
        }
    }
    let token: Option<Token> = serde_json::from_slice(&text).ok();
    let token = token.and_then(|answer| answer.token.or(answer.access_token));
    match token.map(|token| HeaderValue::from_str(&format!("Bearer {token}"))) {
        Some(Ok(mut value)) => {
            value.set_sensitive(true);
            Ok(Some(value))
        }
        _ => Err(refused(
            registry,
            "its token endpoint's answer holds no usable token",
        )),
    }
}

fn refused(registry: &Origin, reason: &str) -> RegistryError {
    RegistryError::Challenge {
        origin: registry.to_string(),
        reason: reason.to_owned(),
    }
}

/// A header value that no log shows.
fn secret(text: String) -> HeaderValue {
    // Base64 is always a valid header value.
    let mut value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
                encoded.push(char::from(byte));
            }
            _ => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(header: &'static str) -> Result<Challenge, RegistryError> {
        Challenge::choose(&[HeaderValue::from_static(header)], &registry())
    }

    fn registry() -> Origin {
        Origin::of_registry("example.com", false)
    }

    #[test]
    fn asks_the_named_token_endpoint_for_one_repository() {
        let challenge = choose(
            r#"Bearer realm="https://auth.example.com/token?x=1",service="a, b",scope="repository:evil:push""#,
        );
        let Ok(Challenge::Bearer(service)) = challenge else {
            panic!("{challenge:?}")
        };
        let (origin, path) = service.request(&registry(), "library/x").unwrap();
        assert_eq!(origin.to_string(), "https://auth.example.com:443");
        assert_eq!(
            path,
            "/token?x=1&service=a%2C%20b&scope=repository:library/x:pull"
        );
    }

    // P10
    #[test]
    fn refuses_a_plain_http_token_endpoint_of_an_https_registry() {
        let Ok(Challenge::Bearer(service)) = choose(r#"Bearer realm="http://auth.example.com/""#)
        else {
            panic!("not a bearer challenge")
        };
        assert!(service.request(&registry(), "x").is_err());
    }

    #[test]
    fn knows_basic_and_refuses_the_rest() {
        assert_eq!(choose(r#"Basic realm="x""#).unwrap(), Challenge::Basic);
        for header in ["Negotiate", "Bearer", r#"Bearer realm="unclosed"#, ""] {
            assert!(choose(header).is_err(), "{header}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let credentials = Credentials {
            user: "u".into(),
            password: "hunter2".into(),
        };
        assert!(!format!("{credentials:?} {:?}", credentials.basic()).contains("hunter2"));
        assert!(credentials.basic().is_sensitive());
    }
}
