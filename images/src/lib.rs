//! Images: from a reference or an archive to folders that overlayfs can mount.
//!
//! ```text
//!  registry ─┐                     ┌▶ blobs/sha256/<hex>   checked while written
//!  archive  ─┼▶ ingest: documents ─┤
//!  layout   ─┘   then layers       └▶ dyno-unpack in a jail ─▶ layers/<hex>/fs
//!                                           last of all: images/<hex>.json ─▶ Image
//! ```
//! The crate decides nothing about dynos. Everything that comes from outside is bounded, hashed
//! and parsed as hostile; file trees of images are written and parsed only by the helper.

pub mod identity;

mod archive;
mod digest;
mod document;
mod dump;
mod durable;
mod host_image;
mod image;
mod ingest;
mod jail;
mod layout;
mod limits;
mod pack;
mod platform;
mod progress;
mod pull;
mod reference;
mod registry;
mod store;
#[doc(hidden)]
pub mod unpack;

pub use archive::LoadError;
pub use digest::{Digest, DigestError, LayerId};
pub use document::DocumentError;
pub use image::{Bind, Healthcheck, Image, ImageConfig};
pub use ingest::IngestError;
pub use jail::{Jail, UnpackError};
pub use limits::Limits;
pub use platform::{Platform, PlatformError};
pub use progress::{Phase, Progress};
pub use pull::{PullError, PullOptions};
pub use reference::{Reference, ReferenceError};
pub use registry::{Credentials, RegistryError, ResolveError, machine_authorities, resolve};
pub use store::{BlobError, Collected, LayerError, Store, StoreError};
