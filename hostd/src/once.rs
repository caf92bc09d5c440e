//! `Idempotency-Key`: a dyno is created once, however often that is asked for.
//!
//! A client whose connection broke cannot know whether its dyno was made. It asks
//! again with the same key and gets the dyno that there is; the key is kept beside the
//! dyno's record, outside it, where former builds of hostd do not mind it, and goes
//! with the dyno. The header is that of draft-ietf-httpapi-idempotency-key-header.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::HeaderMap;
use dyno_api::dyno::DynoSpec;
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::DynoId;
use dyno_images::Digest;
use serde::{Deserialize, Serialize};

use crate::durable::{self, DurableError, Survives, internal};
use crate::paths::Paths;

/// The request's header.
const HEADER: &str = "idempotency-key";

/// The version of [`Once`] that this build writes and reads.
const VERSION: u32 = 1;

/// P15: characters of a key.
const MAX_KEY: usize = 128;

/// One key, and what was asked for with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Once {
    version: u32,
    key: String,
    /// SHA-256 of the request, as it was understood.
    request: String,
}

impl Once {
    /// What a request's headers ask for.
    ///
    /// # Errors
    /// Invalid, for what is no key.
    pub fn asked(
        headers: &HeaderMap,
        spec: &DynoSpec,
        start: bool,
    ) -> Result<Option<Self>, ApiError> {
        let mut keys = headers.get_all(HEADER).iter();
        let Some(key) = keys.next() else {
            return Ok(None);
        };
        let visible = |key: &&str| {
            (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let key = key.to_str().ok().filter(visible);
        let (Some(key), None) = (key, keys.next()) else {
            let message =
                format!("Idempotency-Key is 1 to {MAX_KEY} visible ASCII characters, once");
            return Err(ApiError::new(ErrorKind::Invalid, message));
        };
        let request = serde_json::to_vec(&(spec, start)).map_err(|error| internal(&error))?;
        Ok(Some(Self {
            version: VERSION,
            key: key.to_owned(),
            request: Digest::of(&request).hex(),
        }))
    }

    /// Whether this is that request, asked again.
    ///
    /// # Errors
    /// Conflict, for another request with the same key.
    pub fn repeats(&self, former: &Self) -> Result<bool, ApiError> {
        match (self.key == former.key, self.request == former.request) {
            (false, _) => Ok(false),
            (true, true) => Ok(true),
            (true, false) => Err(ApiError::new(
                ErrorKind::Conflict,
                "this Idempotency-Key was used for another request",
            )
            .hint("a new request needs a new key")),
        }
    }

    /// Keeps it with the dyno, before the dyno's record is written.
    ///
    /// # Errors
    /// [`DurableError`].
    pub fn save(&self, paths: &Paths, id: &DynoId, survives: Survives) -> Result<(), DurableError> {
        durable::write_json(&paths.dyno(id).once(), self, survives)
    }

    /// What a dyno was created with.
    pub fn load(paths: &Paths, id: &DynoId) -> Option<Self> {
        match durable::read_json::<Self>(&paths.dyno(id).once()) {
            Ok(once) => once.filter(|once| once.version == VERSION),
            Err(error) => {
                let error = durable::chain(&error);
                tracing::warn!(dyno = %id, %error, "its Idempotency-Key is forgotten");
                None
            }
        }
    }
}

/// The keys of requests that are being worked on.
#[derive(Debug, Default)]
pub struct AtWork(Mutex<HashSet<String>>);

/// Dropped, the key may be used again.
#[derive(Debug)]
pub struct Begun<'a> {
    all: &'a AtWork,
    key: String,
}

impl AtWork {
    /// Begins to work on a request.
    ///
    /// # Errors
    /// Conflict, while another one with its key is worked on.
    pub fn begin(&self, once: &Once) -> Result<Begun<'_>, ApiError> {
        let key = once.key.clone();
        if !self.lock().insert(key.clone()) {
            let message = "a request with this Idempotency-Key is being worked on";
            return Err(ApiError::new(ErrorKind::Conflict, message).hint("ask again in a moment"));
        }
        Ok(Begun { all: self, key })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.all.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use serde_json::json;

    use super::*;

    fn spec(image: &str) -> DynoSpec {
        serde_json::from_value(json!({ "image": image })).unwrap()
    }

    fn headers(keys: &[&str]) -> HeaderMap {
        let name = HeaderName::from_static(HEADER);
        let value = |key: &&str| HeaderValue::from_bytes(key.as_bytes()).unwrap();
        keys.iter().map(|key| (name.clone(), value(key))).collect()
    }

    #[test]
    fn keys_are_visible_and_short() {
        let asked = |keys: &[&str]| Once::asked(&headers(keys), &spec("host"), true);
        assert_eq!(asked(&[]).unwrap(), None);
        assert_eq!(asked(&["a-1"]).unwrap().unwrap().key, "a-1");
        let (long, longer) = ("x".repeat(MAX_KEY), "x".repeat(MAX_KEY + 1));
        assert!(asked(&[&long]).is_ok());
        for refused in [&[""][..], &["a b"], &["ü"], &[&longer], &["a", "a"]] {
            let error = asked(refused).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid, "{refused:?}");
        }
    }

    #[test]
    fn the_same_key_is_for_the_same_request() {
        let asked = |key: &str, image: &str, start| {
            let once = Once::asked(&headers(&[key]), &spec(image), start);
            once.unwrap().unwrap()
        };
        let first = asked("k", "host", true);
        assert!(asked("k", "host", true).repeats(&first).unwrap());
        assert!(!asked("l", "host", true).repeats(&first).unwrap());
        assert!(asked("k", "other", true).repeats(&first).is_err());
        assert!(asked("k", "host", false).repeats(&first).is_err());
    }

    #[test]
    fn one_at_a_time_works_on_a_key() {
        let all = AtWork::default();
        let once = Once::asked(&headers(&["k"]), &spec("host"), true);
        let once = once.unwrap().unwrap();
        let begun = all.begin(&once).unwrap();
        assert_eq!(all.begin(&once).unwrap_err().kind, ErrorKind::Conflict);
        drop(begun);
        drop(all.begin(&once).unwrap());
    }
}
