//! A token's secret: made, and recognised by its hash.
//!
//! It has 256 random bits, so that there is nothing to guess and no need of a slow hash:
//! those are for passwords, which people choose.

use std::hint::black_box;
use std::io;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{Context, SHA256, digest};

use crate::identity;

/// What secrets begin with, so that people and scanners of repositories know one.
const PREFIX: &str = "dyno_";

/// SHA-256 of a secret.
pub(super) type Hash = [u8; 32];

/// A secret that nobody had before.
///
/// # Errors
/// When the kernel's random device cannot be read.
pub(super) fn new() -> io::Result<String> {
    let bytes: [u8; 32] = identity::random()?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// What is kept of a certificate (DER) that is shown instead of a secret. A certificate is
/// no secret: with the NUL before it, nothing that a header can hold has the same hash.
pub(super) fn hash_of_certificate(certificate: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(b"certificate\0");
    context.update(certificate);
    let mut hash = Hash::default();
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// What is kept of a secret.
pub(super) fn hash(secret: &str) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    hash
}

/// Whether two are the same, in a time that does not depend on where they differ.
pub(super) fn is_same(a: &Hash, b: &Hash) -> bool {
    let differ = a
        .iter()
        .zip(b)
        .fold(0, |differ, (a, b)| black_box(differ | (a ^ b)));
    differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_256_bits_and_goes_into_a_header() {
        let secret = new().unwrap();
        let bits = secret.strip_prefix(PREFIX).unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(bits).unwrap().len(), 32);
        assert!(secret.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_ne!(secret, new().unwrap());
    }

    #[test]
    fn a_certificate_is_no_secret() {
        assert_ne!(hash_of_certificate(b"x"), hash("x"));
        assert_eq!(hash_of_certificate(b"x"), hash("certificate\0x"));
    }

    #[test]
    fn hashes_differ_by_any_bit() {
        let one = hash("x");
        assert!(is_same(&one, &hash("x")));
        for bit in 0..256 {
            let mut other = one;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_same(&one, &other), "{bit}");
        }
    }
}
