//! One encrypted value: AES-256-GCM with a random nonce. What the record says beside
//! the value, its name among it, is authenticated with it: a record that was changed,
//! or lies under another name, does not open. An older record of the same name does.
//!
//! 2³² values under one key are far from where random nonces of 96 bits become
//! unsafe (NIST SP 800-38D section 8.3).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dyno_api::secret::SecretName;
use jiff::Timestamp;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::key::{Key, Keys};

/// The version of [`Sealed`].
pub(super) const VERSION: u32 = 1;

/// Why a value was not encrypted or decrypted.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key is not there.
    #[error("it is encrypted under the key {0}, which the key file does not have")]
    Key(String),
    /// It does not fit the key: somebody changed it.
    #[error("its record was changed, or is another secret's")]
    Forged,
    /// The kernel has no random bytes.
    #[error("the kernel gives no random bytes")]
    Random,
}

/// What is known of a secret without its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct About {
    pub(super) created: Timestamp,
    pub(super) updated: Timestamp,
    pub(super) revision: u64,
}

/// A record on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sealed {
    pub(super) version: u32,
    /// Id of its key.
    pub(super) key: String,
    pub(super) about: About,
    nonce: String,
    value: String,
}

/// Encrypts a value.
pub(super) fn seal(
    key: &Key,
    name: &SecretName,
    about: About,
    value: &[u8],
) -> Result<Sealed, SealError> {
    let mut nonce = [0; NONCE_LEN];
    let filled = SystemRandom::new().fill(&mut nonce);
    filled.map_err(|_unspecified| SealError::Random)?;
    let mut bytes = value.to_vec();
    cipher(key)?
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            bound(&key.id, name, about),
            &mut bytes,
        )
        .map_err(|_unspecified| SealError::Forged)?;
    Ok(Sealed {
        version: VERSION,
        key: key.id.clone(),
        about,
        nonce: STANDARD.encode(nonce),
        value: STANDARD.encode(bytes),
    })
}

/// Decrypts the value of the secret of this name.
pub(super) fn open(keys: &Keys, name: &SecretName, sealed: &Sealed) -> Result<Vec<u8>, SealError> {
    let key = keys.find(&sealed.key);
    let key = key.ok_or_else(|| SealError::Key(sealed.key.clone()))?;
    let decode = |text: &str| STANDARD.decode(text).ok();
    let nonce = decode(&sealed.nonce).and_then(|nonce| nonce.try_into().ok());
    let (Some(nonce), Some(mut bytes)) = (nonce, decode(&sealed.value)) else {
        return Err(SealError::Forged);
    };
    let opened = cipher(key)?.open_in_place(
        Nonce::assume_unique_for_key(nonce),
        bound(&key.id, name, sealed.about),
        &mut bytes,
    );
    let length = opened.map_err(|_unspecified| SealError::Forged)?.len();
    bytes.truncate(length);
    Ok(bytes)
}

fn cipher(key: &Key) -> Result<LessSafeKey, SealError> {
    let key = UnboundKey::new(&AES_256_GCM, &key.bytes);
    Ok(LessSafeKey::new(key.map_err(|_length| SealError::Forged)?))
}

/// What is authenticated beside the value. No part has a NUL in it.
fn bound(key: &str, name: &SecretName, about: About) -> Aad<Vec<u8>> {
    let About {
        created,
        updated,
        revision,
    } = about;
    let text = format!("dyno secret\0{VERSION}\0{key}\0{name}\0{created}\0{updated}\0{revision}");
    Aad::from(text.into_bytes())
}
