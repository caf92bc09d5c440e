//! Tokens: who may ask from elsewhere, and for what.
//!
//! ```text
//! secret ─▶ SHA-256 ─▶ compared with those of all records ─▶ Live ─▶ scopes
//!   256 random bits      record: tokens/ID.json               │
//!   told once            without the secret                   └─ over: revoked or expired
//! ```
//! A certificate that the host's authority has signed takes the place of a secret.

mod live;
mod record;
mod secret;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::pem::pem;
use dyno_api::token::{
    CertificateSpec, NewCertificate, NewToken, TOKEN_MAX_SECONDS, Token, TokenId, TokenSpec,
};
use jiff::{SignedDuration, Timestamp};

use crate::durable::{chain, from_io};
use crate::host::{Host, blocking};
use crate::identity;
use crate::remote::client::PublicKey;

pub use live::Live;
pub(crate) use live::MAX_CONNECTIONS;
use record::Record;
use secret::Hash;

/// P15: so many are kept; each is compared at each request.
const MOST: usize = 1000;

/// The tokens of one host.
#[derive(Debug)]
pub struct Tokens {
    folder: PathBuf,
    all: Mutex<BTreeMap<TokenId, Arc<Live>>>,
    /// One change of records at a time.
    changing: Mutex<()>,
}

impl Tokens {
    /// Those that this folder has. What cannot be read is good for nothing, and is told.
    pub(crate) fn open(folder: PathBuf) -> io::Result<Self> {
        let mut all = BTreeMap::new();
        for record in record::all(&folder)? {
            all.insert(record.id.clone(), Arc::new(Live::new(record)));
        }
        Ok(Self {
            folder,
            all: Mutex::new(all),
            changing: Mutex::default(),
        })
    }

    /// The token with this secret, unless it is revoked or has expired.
    pub(crate) fn authenticate(&self, secret: &str, now: Timestamp) -> Option<Arc<Live>> {
        self.with_hash(&secret::hash(secret), now)
    }

    /// The token that this certificate (DER) was made for, unless it is revoked or has
    /// expired. Whoever shows it has proved to have its key.
    pub(crate) fn of_certificate(&self, certificate: &[u8], now: Timestamp) -> Option<Arc<Live>> {
        self.with_hash(&secret::hash_of_certificate(certificate), now)
    }

    fn with_hash(&self, hash: &Hash, now: Timestamp) -> Option<Arc<Live>> {
        let mut found = None;
        // All of them, so that the time tells nothing.
        for token in self.all().values() {
            if token.has_hash(hash) {
                found = Some(token.clone());
            }
        }
        found.filter(|token| token.is_good(now))
    }

    /// Writes down when a token was used last. Blocks.
    pub(crate) fn note_use(&self, token: &Live) {
        let _changing = self.changing();
        // One that was revoked meanwhile must not come back.
        let is_there = self.all().contains_key(token.id());
        if is_there && let Err(error) = record::save_use(&self.folder, &token.record()) {
            tracing::warn!(token = %token.id(), %error, "the use of a token is not noted");
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<TokenId, Arc<Live>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free(&self, spec: &TokenSpec) -> Result<(), ApiError> {
        let all = self.all();
        if all.values().any(|token| *token.name() == spec.name) {
            let message = format!("there is a token {} already", spec.name);
            let hint = format!(
                "choose another name, or take that one away: `dyno token rm {}`",
                spec.name
            );
            return Err(ApiError::new(ErrorKind::Conflict, message).hint(hint));
        }
        if all.len() >= MOST {
            let message = format!("this host has {MOST} tokens already");
            return Err(ApiError::new(ErrorKind::Exhausted, message)
                .hint("take some away that have expired: `dyno token ls`, `dyno token rm`"));
        }
        Ok(())
    }

    /// Makes a token, and what is shown of it, which `prove` makes and which has this hash.
    fn make<P>(
        &self,
        spec: TokenSpec,
        expires: Option<Timestamp>,
        prove: impl FnOnce(&TokenId) -> Result<(P, Hash), ApiError>,
    ) -> Result<(Token, P), ApiError> {
        let _changing = self.changing();
        self.free(&spec)?;
        let id = TokenId::from_bytes(identity::random().map_err(no_random)?);
        let (proof, hash) = prove(&id)?;
        let record = Record::new(id, spec, hash, expires);
        record::create(&self.folder, &record)?;
        let live = Arc::new(Live::new(record));
        let token = live.shown();
        self.all().insert(token.id.clone(), live);
        Ok((token, proof))
    }

    fn take_away(&self, wanted: &str) -> Result<(), ApiError> {
        let _changing = self.changing();
        let token = {
            let all = self.all();
            let by_id = all.values().find(|token| token.id().as_str() == wanted);
            let by_name = || all.values().find(|token| token.name().as_str() == wanted);
            by_id
                .or_else(by_name)
                .cloned()
                .ok_or_else(|| not_found(wanted))?
        };
        // First of all: a disk that fails must not keep it good.
        token.revoke();
        record::remove(&self.folder, token.id())?;
        self.all().remove(token.id());
        Ok(())
    }
}

fn no_random(error: io::Error) -> ApiError {
    from_io("cannot make a token", &error)
}

/// A secret that nobody had before, and its hash.
fn new_secret(_: &TokenId) -> Result<(String, Hash), ApiError> {
    let secret = secret::new().map_err(no_random)?;
    let hash = secret::hash(&secret);
    Ok((secret, hash))
}

fn not_found(wanted: &str) -> ApiError {
    ApiError::new(ErrorKind::NotFound, format!("there is no token {wanted:?}"))
        .hint("`dyno token ls` lists them")
}

impl From<record::RecordError> for ApiError {
    fn from(error: record::RecordError) -> Self {
        match error {
            record::RecordError::Folder { path, source } => {
                from_io(&format!("cannot use {}", path.display()), &source)
            }
            record::RecordError::Record(error) => error.into(),
        }
    }
}

/// Every token, in order of names.
pub fn list(host: &Host) -> Vec<Token> {
    let mut tokens: Vec<Token> = host
        .tokens
        .all()
        .values()
        .map(|live| live.shown())
        .collect();
    tokens.sort_by(|a, b| a.name.cmp(&b.name));
    tokens
}

/// When a token of this specification ends.
///
/// # Errors
/// Invalid, for one that is good for nothing.
pub fn check(spec: &TokenSpec, now: Timestamp) -> Result<Option<Timestamp>, ApiError> {
    let invalid =
        |message: &str, hint: &str| Err(ApiError::new(ErrorKind::Invalid, message).hint(hint));
    if spec.scopes.is_empty() {
        return invalid(
            "a token without scopes is good for nothing",
            "give it one or more of read, logs, run, secrets and host",
        );
    }
    match spec.expires_in {
        None => Ok(None),
        Some(seconds @ 1..=TOKEN_MAX_SECONDS) => {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            Ok(now.checked_add(SignedDuration::from_secs(seconds)).ok())
        }
        Some(_) => invalid(
            "a token expires in 1 s to ten years",
            "leave `expires_in` out for one that does not end",
        ),
    }
}

/// Makes a token that ends then.
///
/// # Errors
/// Conflict, Exhausted, Internal: with the value, and what to do.
pub async fn create(
    host: Arc<Host>,
    spec: TokenSpec,
    expires: Option<Timestamp>,
) -> Result<NewToken, ApiError> {
    blocking(move || {
        let (token, secret) = host.tokens.make(spec, expires, new_secret)?;
        Ok(NewToken {
            token,
            secret,
            endpoint: host.remote.endpoint(),
        })
    })
    .await
}

/// Makes a token that ends then and is shown by a certificate of this key.
///
/// # Errors
/// Invalid for a key of another kind, Unsupported where hostd is not reached from elsewhere,
/// and as with [`create`].
pub async fn certify(
    host: Arc<Host>,
    spec: CertificateSpec,
    expires: Option<Timestamp>,
) -> Result<NewCertificate, ApiError> {
    blocking(move || {
        let (Some(authority), Some(endpoint)) = (host.remote.authority(), host.remote.endpoint())
        else {
            let message = "hostd listens on its socket alone, where no certificate is shown";
            let hint = "`hostd serve --listen ADDRESS:PORT` has it be reached from elsewhere";
            return Err(ApiError::new(ErrorKind::Unsupported, message).hint(hint));
        };
        let key = PublicKey::from_pem(&spec.public_key).map_err(|error| {
            ApiError::new(ErrorKind::Invalid, format!("`public_key` is {error}"))
                .hint("`openssl ecparam -name prime256v1 -genkey | openssl ec -pubout`")
        })?;
        let sign = |id: &TokenId| {
            let certificate = authority.sign(&key, id, expires).map_err(|error| {
                ApiError::new(
                    ErrorKind::Internal,
                    format!("cannot sign: {}", chain(&error)),
                )
            })?;
            let hash = secret::hash_of_certificate(&certificate);
            Ok((pem("CERTIFICATE", &certificate), hash))
        };
        let (token, certificate) = host.tokens.make(spec.token, expires, sign)?;
        Ok(NewCertificate {
            token,
            certificate,
            endpoint,
        })
    })
    .await
}

/// Takes a token away, by its id or name; what is connected with it is cut off.
///
/// # Errors
/// `NotFound`; Internal where its record stays, although it is good for nothing until
/// hostd is started again.
pub async fn remove(host: Arc<Host>, token: String) -> Result<(), ApiError> {
    blocking(move || host.tokens.take_away(&token)).await
}

#[cfg(test)]
mod tests;
