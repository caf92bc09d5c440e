//! The keys that secrets are encrypted under: a file apart from the state folder,
//! so that a copy of that folder gives no secret away.
//!
//! Where it is: what hostd was told, else a credential of systemd
//! (`LoadCredential=dyno-secret-key:…`), else `/etc/dyno/secrets-HOST.key`. It is
//! made, 0600, when the first secret is set. It has more than one key while they are
//! being exchanged; the first is the current one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};

use crate::durable::{self, Survives};

/// The version of [`KeyFile`].
const VERSION: u32 = 1;
/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 32;
/// P15: no key file is longer.
const MAX_FILE: u64 = 64 << 10;
/// The credential's name.
const CREDENTIAL: &str = "dyno-secret-key";

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There are secrets and no file.
    #[error("the key file {path} is gone, and secrets are encrypted under its key")]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// Others may read the file.
    #[error("the key file {path} is not root's alone (owner {uid}, mode {mode:04o})")]
    Loose {
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// Two hosts with one file: an exchange of keys by one would leave the other's
    /// secrets without theirs.
    #[error("the key file {path} is that of another host, {host}")]
    Another {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        host: String,
    },
    /// A credential is not hostd's to change.
    #[error("the key is a credential of systemd, {path}, which hostd cannot change")]
    Given {
        /// The credential.
        path: PathBuf,
    },
    /// The file is none of ours.
    #[error("{path} is no key file of this version")]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read or made.
    #[error("cannot use the key file {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel has no random bytes.
    #[error("the kernel gives no random bytes")]
    Random,
}

/// One key.
#[derive(Clone)]
pub(super) struct Key {
    /// Which one it is; it tells nothing of the key.
    pub(super) id: String,
    pub(super) bytes: [u8; KEY_BYTES],
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish()
    }
}

impl Key {
    fn new(bytes: [u8; KEY_BYTES]) -> Self {
        let hash = digest(&SHA256, &[b"dyno secret key id\0", &bytes[..]].concat());
        let id = hash.as_ref().iter().take(8);
        Self {
            id: id.map(|byte| format!("{byte:02x}")).collect(),
            bytes,
        }
    }

    fn random() -> Result<Self, KeyError> {
        let mut bytes = [0; KEY_BYTES];
        let filled = SystemRandom::new().fill(&mut bytes);
        // `ring` says nothing more on purpose.
        filled.map_err(|_unspecified| KeyError::Random)?;
        Ok(Self::new(bytes))
    }
}

/// The keys of a file, at least one.
#[derive(Debug, Clone)]
pub(super) struct Keys(Vec<Key>);

impl Keys {
    /// What is encrypted with from now on.
    pub(super) fn current(&self) -> &Key {
        &self.0[0]
    }

    /// The key of this id.
    pub(super) fn find(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }

    /// The same with a new current one.
    pub(super) fn with_another(&self) -> Result<Self, KeyError> {
        let mut keys = vec![Key::random()?];
        keys.extend(self.0.iter().cloned());
        Ok(Self(keys))
    }

    /// Without the former ones.
    pub(super) fn only_current(&self) -> Self {
        Self(vec![self.current().clone()])
    }
}

/// The file's form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    version: u32,
    /// Whose it is.
    host: String,
    keys: Vec<String>,
}

/// Where the keys are.
#[derive(Debug, Clone)]
pub(super) struct KeyPlace {
    path: PathBuf,
    /// The host's id.
    host: String,
    /// A credential: not ours to change.
    given: bool,
}

impl KeyPlace {
    /// The place of this host's keys; nothing is looked at but the environment.
    pub(super) fn find(host: &str, told: Option<&Path>) -> Self {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Self::among(host, told, credentials.as_deref())
    }

    fn among(host: &str, told: Option<&Path>, credentials: Option<&Path>) -> Self {
        let credential = credentials.map(|folder| folder.join(CREDENTIAL));
        match (told, credential.filter(|path| path.exists())) {
            (Some(path), _) => Self {
                path: path.to_owned(),
                host: host.to_owned(),
                given: false,
            },
            (None, Some(path)) => Self {
                path,
                host: host.to_owned(),
                given: true,
            },
            // Several hosts of one machine have a key each.
            (None, None) => Self {
                path: format!("/etc/dyno/secrets-{host}.key").into(),
                host: host.to_owned(),
                given: false,
            },
        }
    }

    pub(super) fn gone(&self) -> KeyError {
        KeyError::Gone {
            path: self.path.clone(),
        }
    }

    fn io(&self) -> impl Fn(io::Error) -> KeyError {
        let path = self.path.clone();
        move |source| KeyError::Io {
            path: path.clone(),
            source,
        }
    }

    /// The keys; `None` where there is no file yet.
    pub(super) fn load(&self) -> Result<Option<Keys>, KeyError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io()(error)),
        };
        let meta = file.metadata().map_err(self.io())?;
        let mode = meta.mode() & 0o7777;
        let own = rustix::process::geteuid().as_raw();
        if !meta.is_file() || ![0, own].contains(&meta.uid()) || mode & 0o077 != 0 {
            return Err(KeyError::Loose {
                path: self.path.clone(),
                uid: meta.uid(),
                mode,
            });
        }
        let mut text = Vec::new();
        file.take(MAX_FILE)
            .read_to_end(&mut text)
            .map_err(self.io())?;
        let (host, keys) = parse(&text).ok_or_else(|| KeyError::Format {
            path: self.path.clone(),
        })?;
        // A credential changes for nobody.
        if host != self.host && !self.given {
            return Err(KeyError::Another {
                path: self.path.clone(),
                host,
            });
        }
        Ok(Some(keys))
    }

    /// Makes the file, or finds the one that another hostd has just made.
    pub(super) fn make(&self) -> Result<Keys, KeyError> {
        if self.given {
            return Err(KeyError::Given {
                path: self.path.clone(),
            });
        }
        let keys = Keys(vec![Key::random()?]);
        match self.put(&keys).map_err(self.io())? {
            true => Ok(keys),
            false => self.load()?.ok_or_else(|| self.gone()),
        }
    }

    /// Whether these are the file's keys now; else there was one already.
    fn put(&self, keys: &Keys) -> io::Result<bool> {
        let folder = self.path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let temporary = self
            .path
            .with_extension(format!("{}.new", std::process::id()));
        durable::remove(&temporary, Survives::Crash)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&self.text(keys)?)?;
        file.sync_all()?;
        match renameat_with(CWD, &temporary, CWD, &self.path, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => {
                fs::remove_file(&temporary)?;
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
        File::open(folder)?.sync_all()?;
        Ok(true)
    }

    /// Replaces the file's keys.
    pub(super) fn replace(&self, keys: Keys) -> Result<Keys, KeyError> {
        if self.given {
            return Err(KeyError::Given {
                path: self.path.clone(),
            });
        }
        let text = self.text(&keys).map_err(self.io())?;
        durable::write(&self.path, &text, Survives::PowerCut).map_err(self.io())?;
        Ok(keys)
    }

    fn text(&self, keys: &Keys) -> io::Result<Vec<u8>> {
        let keys = keys.0.iter().map(|key| STANDARD.encode(key.bytes));
        let file = KeyFile {
            version: VERSION,
            host: self.host.clone(),
            keys: keys.collect(),
        };
        Ok(serde_json::to_vec(&file)?)
    }
}

/// Why it is none is not told: that would show a part of it.
fn parse(text: &[u8]) -> Option<(String, Keys)> {
    let file: KeyFile = serde_json::from_slice(text).ok()?;
    let key = |text: &String| {
        let bytes = STANDARD.decode(text).ok()?;
        Some(Key::new(bytes.try_into().ok()?))
    };
    let keys: Vec<Key> = file.keys.iter().map(key).collect::<Option<_>>()?;
    (file.version == VERSION && !keys.is_empty()).then_some((file.host, Keys(keys)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn place(folder: &Path) -> KeyPlace {
        KeyPlace::among("0badcafe", Some(&folder.join("deep/key")), None)
    }

    #[test]
    fn a_key_is_made_once_and_is_roots_alone() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        assert!(place.load().unwrap().is_none());
        let made = place.make().unwrap();
        assert_eq!(place.make().unwrap().current().id, made.current().id);
        let found = place.load().unwrap().unwrap();
        assert_eq!(found.current().bytes, made.current().bytes);
        let mode = fs::metadata(&place.path).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(fs::read_dir(folder.path().join("deep")).unwrap().count(), 1);
        fs::set_permissions(&place.path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(place.load(), Err(KeyError::Loose { .. })));
    }

    #[test]
    fn what_is_no_key_file_is_refused_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        place.make().unwrap();
        for bad in [
            "",
            r#"{"version":1,"host":"0badcafe","keys":[]}"#,
            r#"{"version":1,"host":"0badcafe","keys":["aHVudGVyMg=="]}"#,
            r#"{"version":2,"host":"0badcafe","keys":[]}"#,
        ] {
            durable::write(&place.path, bad.as_bytes(), Survives::Crash).unwrap();
            let error = durable::chain(&place.load().unwrap_err());
            assert!(
                error.contains("no key file") && !error.contains("aHVu"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_file_of_another_host_is_left_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        place.make().unwrap();
        let other = KeyPlace::among("deadbeef", Some(&place.path), None);
        for refused in [other.load().map(drop), other.make().map(drop)] {
            let error = refused.unwrap_err();
            assert!(matches!(error, KeyError::Another { .. }), "{error}");
        }
    }

    #[test]
    fn a_credential_is_read_and_never_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CREDENTIAL);
        let of = |told: Option<&Path>| KeyPlace::among("0badcafe", told, Some(folder.path()));
        assert_eq!(of(None).path, Path::new("/etc/dyno/secrets-0badcafe.key"));
        let own = KeyPlace {
            path: path.clone(),
            host: "0badcafe".to_owned(),
            given: false,
        };
        let keys = own.make().unwrap();
        let given = of(None);
        assert_eq!(
            given.load().unwrap().unwrap().current().id,
            keys.current().id
        );
        let changed = given.replace(keys.with_another().unwrap());
        assert!(matches!(changed, Err(KeyError::Given { .. })));
        assert_eq!(of(Some(Path::new("/k"))).path, Path::new("/k"));
    }

    #[test]
    fn a_key_is_not_shown_where_it_is_printed() {
        let key = Key::new([7; KEY_BYTES]);
        assert_eq!(format!("{key:?}"), format!("Key {{ id: {:?} }}", key.id));
    }
}
