//! Images in the words of the API: what is there, and how more come.

use std::collections::HashSet;
use std::error::Error;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::event::What;
use dyno_api::image::{Image as ApiImage, Progress as ApiProgress, PullRequest};
use dyno_failpoint::failpoint;
use dyno_images::{
    Credentials, Image, LoadError, Phase, Platform, Progress, PullError, PullOptions, Reference,
    RegistryError, StoreError,
};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;

use crate::desired::{ImageBind, PinnedImage};
use crate::durable::{chain, from_io};
use crate::host::{Host, blocking};

/// The image of this name, for this platform.
///
/// # Errors
/// NotFound, with how to get it.
pub fn find(host: &Host, name: &str, platform: Option<&str>) -> Result<Image, ApiError> {
    let reference = parse(name)?;
    let platform = platform.map(parse_platform).transpose()?;
    let found = host
        .images
        .find(&reference, platform.as_ref())
        .map_err(|error| store_error(&error))?;
    found.ok_or_else(|| not_found(&reference))
}

fn not_found(reference: &Reference) -> ApiError {
    ApiError::new(
        ErrorKind::NotFound,
        format!("the image {reference} is not on this host"),
    )
    .hint(format!("`dyno pull {}`", reference.familiar()))
}

/// The image as a dyno's record keeps it.
pub fn pin(image: &Image) -> PinnedImage {
    PinnedImage {
        reference: image.reference.to_string(),
        layers: image.layers.clone(),
        folders: image.layer_dirs(),
        binds: image
            .binds
            .iter()
            .map(|bind| ImageBind {
                source: bind.source.clone(),
                target: bind.target.clone(),
            })
            .collect(),
        config: image.config.clone(),
    }
}

/// Every image, the built-in one first.
///
/// # Errors
/// What the store says.
pub fn list(host: &Host) -> Result<Vec<ApiImage>, ApiError> {
    let built_in = host
        .images
        .host_image()
        .map_err(|error| store_error(&error))?;
    let mut stored = host.images.list().map_err(|error| store_error(&error))?;
    stored.sort_by(|a, b| a.reference.cmp(&b.reference));
    Ok(std::iter::once(&built_in)
        .chain(&stored)
        .map(shown)
        .collect())
}

fn shown(image: &Image) -> ApiImage {
    let built_in = image.reference.is_built_in();
    ApiImage {
        reference: image.reference.to_string(),
        digest: if built_in {
            String::new()
        } else {
            image.digest.to_string()
        },
        platform: image.platform.to_string(),
        size_bytes: image.size_bytes,
        layers: image.layers.len(),
        created: image.created,
    }
}

/// Forgets a reference and removes what nothing needs any more.
///
/// # Errors
/// NotFound; Conflict while a dyno stands on it.
pub async fn remove(host: &std::sync::Arc<Host>, name: &str) -> Result<(), ApiError> {
    let reference = parse(name)?;
    if reference.is_built_in() {
        return Err(ApiError::new(
            ErrorKind::Invalid,
            "the image `host` is built in and stays",
        ));
    }
    // No dyno takes layers into use meanwhile.
    let _collecting = host.layers.write().await;
    if let Some(user) = host.registry().user_of(&reference.to_string()) {
        let message = format!("dyno {user} was made from {reference}");
        return Err(ApiError::new(ErrorKind::Conflict, message)
            .hint(format!("remove it first: `dyno rm {user}`")));
    }
    let (shared, gone) = (host.clone(), reference.clone());
    blocking(move || {
        if !shared
            .images
            .remove(&gone)
            .map_err(|error| store_error(&error))?
        {
            return Err(not_found(&gone));
        }
        failpoint("image_remove.unrecorded");
        collect(&shared);
        Ok(())
    })
    .await?;
    host.events.emit(What::ImageRemoved {
        reference: reference.to_string(),
    });
    Ok(())
}

/// Removes content that no image and no dyno needs. Blocks; whoever calls
/// holds `layers` for writing.
pub fn collect(host: &Host) {
    // Its layer belongs to no record: the store must know that it is wanted.
    if let Err(error) = host.images.host_image() {
        tracing::error!(error = %chain(&error), "the built-in image cannot be made");
    }
    let in_use = host.registry().layers_in_use();
    match host.images.collect(&in_use) {
        Ok(collected) => tracing::info!(?collected, "image content removed"),
        Err(error) => tracing::warn!(error = %chain(&error), "image content stays behind"),
    }
}

/// Where the lines of progress go. Steps are dropped for a slow reader, the
/// outcome never.
pub type Lines = mpsc::Sender<ApiProgress>;

/// Pulls, telling how it goes; the last line is the outcome.
///
/// # Errors
/// What kind of failure the last line tells.
pub async fn pull(host: &Host, request: PullRequest, lines: Lines) -> Result<(), ErrorKind> {
    let pulled = async {
        let reference = parse(&request.reference)?;
        let options = PullOptions {
            platform: request
                .platform
                .as_deref()
                .map(parse_platform)
                .transpose()?,
            credentials: request.credentials.map(|given| Credentials {
                user: given.username,
                password: given.password,
            }),
            plain_http: request.plain_http,
            ..PullOptions::default()
        };
        let steps = Steps::new(lines.clone());
        let image = host
            .images
            .pull(&reference, &options, |step| steps.tell(step))
            .await;
        image
            .map(|image| vec![image])
            .map_err(|error| pull_error(&error))
    };
    let outcome = pulled.await;
    host.metrics.pulls.fetch_add(1, Ordering::Relaxed);
    if outcome.is_err() {
        host.metrics.failed_pulls.fetch_add(1, Ordering::Relaxed);
    }
    finish(host, outcome, &lines).await
}

/// Loads an archive, telling how it goes.
///
/// # Errors
/// As [`pull`].
pub async fn load(
    host: &Host,
    archive: impl AsyncRead + Send + Unpin,
    name: Option<String>,
    lines: Lines,
) -> Result<(), ErrorKind> {
    let loaded = async {
        let name = name.as_deref().map(parse).transpose()?;
        let steps = Steps::new(lines.clone());
        let images = host
            .images
            .load(archive, name.as_ref(), |step| steps.tell(step))
            .await;
        images.map_err(|error| load_error(&error))
    };
    let outcome = loaded.await;
    finish(host, outcome, &lines).await
}

/// Makes an image of a root file system, telling how it goes.
///
/// # Errors
/// As [`pull`].
pub async fn import(
    host: &Host,
    tar: impl AsyncRead + Send + Unpin,
    name: String,
    lines: Lines,
) -> Result<(), ErrorKind> {
    let imported = async {
        let reference = parse(&name)?;
        let steps = Steps::new(lines.clone());
        let image = host
            .images
            .import(&reference, tar, |step| steps.tell(step))
            .await;
        image
            .map(|image| vec![image])
            .map_err(|error| load_error(&error))
    };
    let outcome = imported.await;
    finish(host, outcome, &lines).await
}

async fn finish(
    host: &Host,
    outcome: Result<Vec<Image>, ApiError>,
    lines: &Lines,
) -> Result<(), ErrorKind> {
    let ended = outcome.as_ref().map(drop).map_err(|error| error.kind);
    let last: Vec<ApiProgress> = match outcome {
        Ok(images) => images
            .iter()
            .map(|image| {
                let image = shown(image);
                let (reference, digest) = (image.reference.clone(), image.digest.clone());
                host.events.emit(What::ImageReady { reference, digest });
                ApiProgress::Done { image }
            })
            .collect(),
        Err(error) => vec![ApiProgress::Failed { error }],
    };
    for line in last {
        if lines.send(line).await.is_err() {
            tracing::debug!("nobody waits for the outcome");
        }
    }
    ended
}

/// Progress of the layers of one image.
struct Steps {
    lines: Lines,
    worked_on: Mutex<HashSet<dyno_images::Digest>>,
}

impl Steps {
    fn new(lines: Lines) -> Self {
        Self {
            lines,
            worked_on: Mutex::new(HashSet::new()),
        }
    }

    fn tell(&self, step: Progress) {
        let mut worked_on = self
            .worked_on
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let digest = step.layer.to_string();
        let (done_bytes, total_bytes) = (step.done, step.total.unwrap_or(0));
        let line = match step.phase {
            Phase::Fetching | Phase::Verifying => ApiProgress::Download {
                digest,
                done_bytes,
                total_bytes,
            },
            Phase::Unpacking => ApiProgress::Unpack {
                digest,
                done_bytes,
                total_bytes,
            },
            Phase::Ready if !worked_on.contains(&step.layer) => ApiProgress::Exists { digest },
            Phase::Waiting | Phase::Ready => return,
        };
        worked_on.insert(step.layer);
        if let Err(mpsc::error::TrySendError::Closed(_)) = self.lines.try_send(line) {
            tracing::trace!("nobody watches");
        }
    }
}

fn parse(name: &str) -> Result<Reference, ApiError> {
    name.parse().map_err(|error: dyno_images::ReferenceError| {
        ApiError::new(
            ErrorKind::Invalid,
            format!("{name:?} is no image reference: {}", chain(&error)),
        )
    })
}

fn parse_platform(name: &str) -> Result<Platform, ApiError> {
    name.parse().map_err(|error: dyno_images::PlatformError| {
        ApiError::new(ErrorKind::Invalid, chain(&error))
    })
}

fn pull_error(error: &PullError) -> ApiError {
    classify(error, ErrorKind::Upstream)
}

fn load_error(error: &LoadError) -> ApiError {
    classify(error, ErrorKind::Invalid)
}

fn store_error(error: &StoreError) -> ApiError {
    classify(error, ErrorKind::Internal)
}

/// The kind is that of the cause that says most.
fn classify(error: &(dyn Error + 'static), otherwise: ErrorKind) -> ApiError {
    let mut kind = otherwise;
    let mut hint = None;
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(refusal) = error.downcast_ref::<RegistryError>() {
            kind = match refusal {
                RegistryError::NotFound { .. } => ErrorKind::NotFound,
                RegistryError::Denied { .. } => ErrorKind::Forbidden,
                _ => ErrorKind::Upstream,
            };
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let full = from_io("", error);
            if full.kind == ErrorKind::Exhausted {
                (kind, hint) = (full.kind, full.hint);
            }
        }
        if error.is::<StoreError>() && kind == otherwise {
            kind = ErrorKind::Internal;
        }
        cause = error.source();
    }
    ApiError {
        kind,
        message: chain(error),
        hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_full_disk_is_told_from_a_broken_registry() {
        let of = |number| {
            let error = io::Error::from_raw_os_error(number);
            classify(&Outer(error), ErrorKind::Upstream)
        };
        // ENOSPC, EIO.
        for disk in [28, 5].map(of) {
            assert_eq!(disk.kind, ErrorKind::Exhausted);
            assert!(disk.hint.is_some());
        }
        let other = of(104);
        assert_eq!(other.kind, ErrorKind::Upstream);
        assert!(other.message.starts_with("outer: "));
    }

    #[test]
    fn nonsense_is_no_reference() {
        assert_eq!(parse("UPPER/../x").unwrap_err().kind, ErrorKind::Invalid);
        assert!(parse("host").unwrap().is_built_in());
        assert!(parse_platform("linux").is_err());
    }
}
