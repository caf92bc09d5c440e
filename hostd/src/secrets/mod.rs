//! Secrets: values that dynos are given and nobody is shown.
//!
//! ```text
//!  PUT ─▶ seal ──▶ state/secrets/NAME.json      encrypted; the key is elsewhere
//!                        │ at a start
//!                        ▼
//!         key ──▶ open ──▶ run/secrets/ID/…     in memory ──▶ the dyno
//! ```
//! `key` keeps the keys, `seal` encrypts one value, `give` writes what a dyno is
//! given. A value is in no other file, in no answer and in no message.

mod give;
mod key;
mod memory;
mod seal;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dyno_api::dyno::DynoSpec;
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::DynoName;
use dyno_api::secret::{Rotation, SECRET_MAX_BYTES, Secret, SecretName};
use dyno_failpoint::failpoint;
use jiff::Timestamp;

use crate::durable::{self, DurableError, Survives, from_io_at};
use crate::host::{Host, blocking};
use crate::paths::Paths;
use key::{KeyError, KeyPlace, Keys};
use seal::{About, SealError, Sealed};

pub(crate) use give::{give, take_back, variables};
pub(crate) use memory::leave as leave_memory;

/// P15: so many secrets are kept.
const MAX_SECRETS: usize = 10_000;

/// Why a secret cannot be had or kept. No variant has a value of one in it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// There is none of that name.
    #[error("there is no secret {0}")]
    Missing(SecretName),
    /// The keys cannot be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The value does not come out of its record.
    #[error("the secret {name} cannot be decrypted")]
    Seal {
        /// Its name.
        name: SecretName,
        /// Why.
        source: SealError,
    },
    /// Its record cannot be read or written.
    #[error(transparent)]
    Record(#[from] DurableError),
    /// A folder or file of the store cannot be used.
    #[error("cannot use {path}")]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl From<SecretError> for ApiError {
    fn from(error: SecretError) -> Self {
        let text = durable::chain(&error);
        match error {
            SecretError::Missing(name) => Self::new(ErrorKind::NotFound, text)
                .hint(format!("`dyno secret set {name}` makes it")),
            SecretError::Key(KeyError::Gone { .. }) => Self::new(ErrorKind::Conflict, text)
                .hint("put the key file back, or remove the secrets and set them anew"),
            SecretError::Key(KeyError::Another { .. }) => Self::new(ErrorKind::Conflict, text)
                .hint("give each hostd a file of its own: `hostd serve --secret-key-file PATH`"),
            SecretError::Key(KeyError::Loose { .. }) => {
                Self::new(ErrorKind::Forbidden, text).hint("chown it to root and chmod it to 600")
            }
            SecretError::Key(KeyError::Given { .. }) => Self::new(ErrorKind::Unsupported, text)
                .hint("have hostd keep the key in a file: `hostd serve --secret-key-file PATH`"),
            SecretError::Seal { .. } => Self::new(ErrorKind::Conflict, text)
                .hint("put the right key file back, or set the secret anew"),
            SecretError::Key(_) => Self::new(ErrorKind::Internal, text),
            SecretError::Io { path, source } => from_io_at("cannot use", &path, &source),
            SecretError::Record(error) => error.into(),
        }
    }
}

/// The secrets of one host.
#[derive(Debug)]
pub struct Secrets {
    folder: PathBuf,
    place: KeyPlace,
    /// One change at a time.
    changing: Mutex<()>,
    /// One look whether the folder in memory is there at a time.
    mounting: Mutex<()>,
}

impl Secrets {
    /// The store of this host. Nothing is made before a secret is set; what a crash
    /// in the middle of a change has left goes.
    pub(crate) fn new(paths: &Paths, host: &str, key_file: Option<&Path>) -> Self {
        let secrets = Self {
            folder: paths.secrets(),
            place: KeyPlace::find(host, key_file),
            changing: Mutex::new(()),
            mounting: Mutex::new(()),
        };
        secrets.sweep();
        secrets
    }

    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|end| end == "new")
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::warn!(%error, file = %path.display(), "half a record of a secret stays");
            }
        }
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, name: &SecretName) -> PathBuf {
        // Not by with_extension: a name may have dots.
        self.folder.join(format!("{name}.json"))
    }

    fn load(&self, name: &SecretName) -> Result<Option<Sealed>, SecretError> {
        let sealed = durable::read_json::<Sealed>(&self.record(name))?;
        match sealed {
            Some(sealed) if sealed.version != seal::VERSION => Err(DurableError::Version {
                path: self.record(name),
                found: sealed.version,
                known: seal::VERSION,
            }
            .into()),
            other => Ok(other),
        }
    }

    fn names(&self) -> Result<BTreeSet<SecretName>, SecretError> {
        let failed = |source| SecretError::Io {
            path: self.folder.clone(),
            source,
        };
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(".json"));
            names.extend(name.and_then(|name| name.parse::<SecretName>().ok()));
        }
        Ok(names)
    }

    fn exists(&self, name: &SecretName) -> bool {
        self.record(name).exists()
    }

    /// The value of a secret.
    fn value(&self, name: &SecretName) -> Result<Vec<u8>, SecretError> {
        let sealed = self
            .load(name)?
            .ok_or_else(|| SecretError::Missing(name.clone()))?;
        let keys = self.place.load()?.ok_or_else(|| self.place.gone())?;
        open(&keys, name, &sealed)
    }

    fn set(&self, name: &SecretName, value: &[u8]) -> Result<Sealed, SecretError> {
        let _changing = self.changing();
        let others = self.names()?;
        let keys = match self.place.load()? {
            Some(keys) => keys,
            // What there is would be lost for good without a word.
            None if others.iter().any(|other| other != name) => {
                return Err(self.place.gone().into());
            }
            None => self.place.make()?,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|source| SecretError::Io {
                path: self.folder.clone(),
                source,
            })?;
        let now = Timestamp::now();
        // One that cannot be read is replaced all the same: that is how it is mended.
        let before = self.load(name).ok().flatten();
        let about = About {
            created: before.as_ref().map_or(now, |before| before.about.created),
            updated: now,
            revision: before.map_or(1, |before| before.about.revision.saturating_add(1)),
        };
        self.save(name, &keys, about, value)
    }

    fn save(
        &self,
        name: &SecretName,
        keys: &Keys,
        about: About,
        value: &[u8],
    ) -> Result<Sealed, SecretError> {
        let sealed = seal::seal(keys.current(), name, about, value);
        let sealed = sealed.map_err(|source| SecretError::Seal {
            name: name.clone(),
            source,
        })?;
        durable::write_json(&self.record(name), &sealed, Survives::PowerCut)?;
        failpoint("secret.saved");
        Ok(sealed)
    }

    fn remove(&self, name: &SecretName) -> Result<(), SecretError> {
        let _changing = self.changing();
        if !self.exists(name) {
            return Err(SecretError::Missing(name.clone()));
        }
        let path = self.record(name);
        durable::remove(&path, Survives::PowerCut)
            .inspect(|()| failpoint("secret_remove.unrecorded"))
            .map_err(|source| SecretError::Io { path, source })
    }

    /// Killed anywhere in between, every secret is under a key that the file has, and
    /// the next rotation goes on.
    fn rotate(&self) -> Result<Rotation, SecretError> {
        let _changing = self.changing();
        let names = self.names()?;
        let old = match self.place.load()? {
            Some(keys) => keys,
            None if names.is_empty() => self.place.make()?,
            None => return Err(self.place.gone().into()),
        };
        let reread = |name: &SecretName, keys: &Keys| {
            let sealed = self.load(name)?;
            let sealed = sealed.ok_or_else(|| SecretError::Missing(name.clone()))?;
            Ok::<_, SecretError>((sealed.about, open(keys, name, &sealed)?))
        };
        // Nothing is changed where one of them would be left behind.
        for name in &names {
            reread(name, &old)?;
        }
        let both = self.place.replace(old.with_another()?)?;
        failpoint("rotate.both");
        for name in &names {
            let (about, value) = reread(name, &both)?;
            self.save(name, &both, about, &value)?;
            failpoint("rotate.sealed");
        }
        let one = self.place.replace(both.only_current())?;
        failpoint("rotate.one");
        Ok(Rotation {
            key: one.current().id.clone(),
            secrets: names.len() as u64,
        })
    }
}

fn open(keys: &Keys, name: &SecretName, sealed: &Sealed) -> Result<Vec<u8>, SecretError> {
    seal::open(keys, name, sealed).map_err(|source| SecretError::Seal {
        name: name.clone(),
        source,
    })
}

/// Every secret of a specification.
fn named(spec: &DynoSpec) -> impl Iterator<Item = &SecretName> {
    let files = spec.secrets.iter().map(|file| &file.name);
    files.chain(spec.secret_env.values())
}

/// Whether all that a new dyno is to be given is there.
///
/// # Errors
/// Invalid, with the first that is not.
pub fn check(host: &Host, spec: &DynoSpec) -> Result<(), ApiError> {
    match named(spec).find(|name| !host.secrets.exists(name)) {
        None => Ok(()),
        Some(name) => Err(
            ApiError::new(ErrorKind::Invalid, format!("there is no secret {name}"))
                .hint(format!("set it first: `dyno secret set {name}`")),
        ),
    }
}

fn used_by(host: &Host, name: &SecretName) -> Vec<DynoName> {
    let dynos = host.registry().handles();
    let mut users: Vec<DynoName> = dynos
        .iter()
        .map(|handle| handle.dyno())
        .filter(|dyno| named(&dyno.spec).any(|used| used == name))
        .map(|dyno| dyno.name)
        .collect();
    users.sort();
    users
}

fn shown(host: &Host, name: SecretName, sealed: Sealed) -> Secret {
    Secret {
        used_by: used_by(host, &name),
        name,
        created: sealed.about.created,
        updated: sealed.about.updated,
        revision: sealed.about.revision,
        key: sealed.key,
    }
}

/// Every secret, without values.
///
/// # Errors
/// When the store cannot be read. A record that is damaged is left out and logged.
pub async fn list(host: Arc<Host>) -> Result<Vec<Secret>, ApiError> {
    blocking(move || {
        let mut found = Vec::new();
        for name in host.secrets.names()? {
            match host.secrets.load(&name) {
                Ok(Some(sealed)) => found.push(shown(&host, name, sealed)),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%name, error = %durable::chain(&error), "this secret cannot be read");
                }
            }
        }
        Ok(found)
    })
    .await
}

/// One secret, without its value.
///
/// # Errors
/// NotFound.
pub async fn inspect(host: Arc<Host>, name: &str) -> Result<Secret, ApiError> {
    let name = parse(name)?;
    blocking(move || match host.secrets.load(&name)? {
        Some(sealed) => Ok(shown(&host, name, sealed)),
        None => Err(SecretError::Missing(name).into()),
    })
    .await
}

/// Sets a secret's value.
///
/// # Errors
/// Invalid for a name or value that cannot be one; why it is not kept.
pub async fn set(host: Arc<Host>, name: &str, value: bytes::Bytes) -> Result<Secret, ApiError> {
    let name = parse(name)?;
    let invalid = |message: String| Err(ApiError::new(ErrorKind::Invalid, message));
    if value.is_empty() {
        return invalid(format!("the value of {name} is empty"));
    }
    if value.len() > SECRET_MAX_BYTES {
        return invalid(format!("a secret holds at most {SECRET_MAX_BYTES} bytes"));
    }
    blocking(move || {
        if !host.secrets.exists(&name) && host.secrets.names()?.len() >= MAX_SECRETS {
            let message = format!("this host keeps at most {MAX_SECRETS} secrets");
            return Err(ApiError::new(ErrorKind::Exhausted, message));
        }
        let sealed = host.secrets.set(&name, &value)?;
        Ok(shown(&host, name, sealed))
    })
    .await
}

/// Removes a secret.
///
/// # Errors
/// NotFound; Conflict while a dyno is given it, where that is not forced.
pub async fn remove(host: Arc<Host>, name: &str, force: bool) -> Result<(), ApiError> {
    let name = parse(name)?;
    blocking(move || {
        let users = used_by(&host, &name);
        if let (Some(user), false) = (users.first(), force) {
            let message = format!("the secret {name} is given to {user}");
            return Err(ApiError::new(ErrorKind::Conflict, message)
                .hint("remove that dyno first, or force it: it cannot be started again then"));
        }
        Ok(host.secrets.remove(&name)?)
    })
    .await
}

/// Makes a new key and encrypts every secret under it.
///
/// # Errors
/// Why not; every secret can be used as before then.
pub async fn rotate(host: Arc<Host>) -> Result<Rotation, ApiError> {
    blocking(move || Ok(host.secrets.rotate()?)).await
}

fn parse(name: &str) -> Result<SecretName, ApiError> {
    name.parse::<SecretName>()
        .map_err(|error| ApiError::new(ErrorKind::Invalid, error.to_string()))
}

#[cfg(test)]
mod tests;
