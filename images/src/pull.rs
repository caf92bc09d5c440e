//! Pulling: a reference resolved at a registry and brought into the store.

use std::path::PathBuf;
use std::time::Duration;

use crate::image::Image;
use crate::ingest::{self, IngestError, Origin, Request};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::{Client, Credentials};
use crate::store::Store;

/// How to pull.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// Which image of an index; this machine's own platform by default.
    pub platform: Option<Platform>,
    /// Who is asking; anonymous by default.
    pub credentials: Option<Credentials>,
    /// Speak plain http. A registry on loopback is spoken to so unless `authorities` are given.
    pub plain_http: bool,
    /// A PEM file of certificate authorities to trust besides the machine's own.
    pub authorities: Option<PathBuf>,
    /// Tries per request, each continuing where the last one broke off.
    pub attempts: u32,
    /// How long a connection may be silent.
    pub patience: Duration,
}

impl Default for PullOptions {
    /// Anonymous, https, five tries, 30 s of silence.
    fn default() -> PullOptions {
        PullOptions {
            platform: None,
            credentials: None,
            plain_http: false,
            authorities: None,
            attempts: 5,
            patience: Duration::from_secs(30),
        }
    }
}

/// Why a pull failed. Nothing of it is visible in the store then; what arrived complete is used
/// by the next try.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The built-in image is made on this machine.
    #[error("the image `host` is built in and in no registry; use it as it is")]
    BuiltIn,
    /// Anything else.
    #[error("cannot pull {reference}")]
    Failed {
        /// What was asked for.
        reference: Reference,
        /// Why not.
        source: Box<IngestError>,
    },
}

impl Store {
    /// Pulls an image. What the store has already is verified and not fetched again; the
    /// reference is always looked up, since a tag may have moved.
    ///
    /// # Errors
    /// If the registry cannot be reached or refuses, or anything it sends is not what it should
    /// be, or a layer cannot be unpacked.
    pub async fn pull(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<Image, PullError> {
        if reference.is_built_in() {
            return Err(PullError::BuiltIn);
        }
        let pulled = self.pull_from_registry(reference, options, &progress).await;
        pulled.map_err(|source| PullError::Failed {
            reference: reference.clone(),
            source: Box::new(source),
        })
    }

    async fn pull_from_registry(
        &self,
        reference: &Reference,
        options: &PullOptions,
        watch: ingest::Watcher<'_>,
    ) -> Result<Image, IngestError> {
        let client = Client::new(reference, options)?;
        let top = client.resolve(reference).await?;
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let request = Request {
            reference,
            platform: &platform,
            top,
        };
        ingest::ingest(&self.inner, &Origin::Registry(client), request, watch).await
    }
}
