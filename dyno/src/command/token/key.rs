//! A key that is made here, and the file that it is kept in with its certificate.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dyno_api::pem::{P256, pem};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

use crate::failure::{Failure, code};

/// A new key, in a file that nobody had before and nobody else reads.
#[derive(Debug)]
pub(super) struct NewKey {
    path: PathBuf,
    file: fs::File,
    /// Its public half, as PEM.
    pub(super) public: String,
}

impl NewKey {
    /// Makes one, and writes it there: a file that cannot be is told before anything is signed.
    ///
    /// # Errors
    /// Conflict where there is such a file.
    pub(super) fn make(path: &Path) -> Result<Self, Failure> {
        let failed = |_unspecified| Failure::new("cannot make a key");
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let private = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(failed)?;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, private.as_ref(), &random)
            .map_err(|_rejected| Failure::new("cannot make a key"))?;
        let public = [&P256[..], pair.public_key().as_ref()].concat();
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| {
            let failure = Failure::io(format!("cannot make {}", path.display()), &error);
            match error.kind() {
                io::ErrorKind::AlreadyExists => failure.with_code(code::CONFLICT),
                _ => failure,
            }
        })?;
        let mut key = Self {
            path: path.to_owned(),
            file,
            public: pem("PUBLIC KEY", &public),
        };
        match key.add(&pem("PRIVATE KEY", private.as_ref())) {
            Ok(()) => Ok(key),
            Err(failure) => Err(key.withdraw(failure)),
        }
    }

    /// Puts its certificate, as PEM, beside it.
    ///
    /// # Errors
    /// A [`Failure`] where it cannot be written.
    pub(super) fn add(&mut self, text: &str) -> Result<(), Failure> {
        let written = self.file.write_all(text.as_bytes());
        written
            .and_then(|()| self.file.sync_all())
            .map_err(|error| Failure::io(format!("cannot write {}", self.path.display()), &error))
    }

    /// Takes the file away again, since this has failed.
    pub(super) fn withdraw(self, failure: Failure) -> Failure {
        match fs::remove_file(&self.path) {
            Ok(()) => failure,
            Err(error) => failure.hint(format!("rm {}: {error}", self.path.display())),
        }
    }
}
