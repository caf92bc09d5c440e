//! An image as files in a folder: an OCI layout, or what `docker save` packs.
//!
//! The folder may be unpacked from a stranger's archive, so files in it are opened beneath it
//! only (P1) and must be regular.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use serde::Deserialize;
use tokio::io::AsyncReadExt;

use crate::digest::{Digest, Hasher};
use crate::document::{
    DOCKER_LIST, DOCKER_MANIFEST, Descriptor, MAX_DOCUMENT_BYTES, Manifest, OCI_CONFIG, OCI_INDEX,
    OCI_LAYER, OCI_MANIFEST,
};
use crate::reference::Reference;
use crate::store::{BlobWriter, StoreError};

/// Annotation by which containerd and Docker give an entry of an index its full reference.
const FULL_NAME: &str = "io.containerd.image.name";
/// Annotation of the OCI image spec: a tag, or a whole reference, as the writer likes.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Why an image cannot be read from a folder.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file cannot be opened or read.
    #[error("cannot read {file} of {}", folder.display())]
    Read {
        /// The folder.
        folder: PathBuf,
        /// The file in it.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// One of the files that say what is where.
    #[error("{file} is not valid")]
    Parse {
        /// The file.
        file: &'static str,
        /// Where parsing failed.
        source: serde_json::Error,
    },
    /// Neither an `index.json` nor a `manifest.json`.
    #[error("this is no image: it has neither index.json (OCI) nor manifest.json (docker save)")]
    NoImage,
    /// An image without a usable name.
    #[error("an image in it has no usable name (`{0}`); give one")]
    Unnamed(String),
    /// One name was given but there are several images.
    #[error("it holds {0} images, so one name is not enough")]
    Several(usize),
    /// The store could not take its content.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Files of images, found by digest.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    root: OwnedFd,
    /// Of `docker save`, where files are not named by digest.
    files: HashMap<Digest, String>,
}

/// An image found in a folder.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) reference: Reference,
    pub(crate) top: (Descriptor, Bytes),
}

impl Folder {
    pub(crate) fn open(path: &Path) -> Result<Folder, FolderError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| FolderError::Read {
                folder: path.to_owned(),
                file: ".".to_owned(),
                source: errno.into(),
            })?;
        Ok(Folder {
            path: path.to_owned(),
            root,
            files: HashMap::new(),
        })
    }

    /// The images in it. `name` names the only one; without it each must have its own name.
    pub(crate) fn images(&mut self, name: Option<&Reference>) -> Result<Vec<Found>, FolderError> {
        // New `docker save` archives are both; the OCI side has the digests of the registry.
        if let Some(index) = self.optional("index.json")? {
            self.oci_images(&index, name)
        } else if let Some(manifest) = self.optional("manifest.json")? {
            self.docker_images(&manifest, name)
        } else {
            Err(FolderError::NoImage)
        }
    }

    fn oci_images(
        &self,
        index: &[u8],
        name: Option<&Reference>,
    ) -> Result<Vec<Found>, FolderError> {
        #[derive(Deserialize)]
        struct Index {
            manifests: Vec<Descriptor>,
        }
        let Index { mut manifests } = parse("index.json", index)?;
        let is_image = |entry: &Descriptor| {
            [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].contains(&&*entry.media_type)
        };
        manifests.retain(is_image);
        one_name_for_one_image(name, manifests.len())?;
        manifests
            .into_iter()
            .map(|entry| {
                let reference = match name {
                    Some(name) => name.clone(),
                    None => name_of(&entry)?,
                };
                let bytes = self.document(&entry)?;
                Ok(Found {
                    reference,
                    top: (entry, bytes),
                })
            })
            .collect()
    }

    /// Docker's older format has no manifests, so one is made: all digests come from hashing.
    fn docker_images(
        &mut self,
        list: &[u8],
        name: Option<&Reference>,
    ) -> Result<Vec<Found>, FolderError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Entry {
            config: String,
            repo_tags: Option<Vec<String>>,
            layers: Vec<String>,
        }
        let entries: Vec<Entry> = parse("manifest.json", list)?;
        one_name_for_one_image(name, entries.len())?;
        let mut found = Vec::new();
        for entry in entries {
            let config = self.describe(&entry.config, OCI_CONFIG)?;
            let layers: Result<Vec<_>, _> = entry
                .layers
                .iter()
                .map(|layer| self.describe(layer, OCI_LAYER))
                .collect();
            let manifest = Manifest {
                schema_version: 2,
                media_type: Some(OCI_MANIFEST.to_owned()),
                config,
                layers: layers?,
            };
            let top = manifest
                .to_document()
                .map_err(|source| FolderError::Parse {
                    file: "manifest.json",
                    source,
                })?;
            let tags = entry.repo_tags.unwrap_or_default();
            let names = match name {
                Some(name) => vec![name.clone()],
                None if tags.is_empty() => return Err(FolderError::Unnamed(String::new())),
                None => tags.into_iter().map(parse_name).collect::<Result<_, _>>()?,
            };
            found.extend(names.into_iter().map(|reference| Found {
                reference,
                top: top.clone(),
            }));
        }
        Ok(found)
    }

    /// Hashes a file and remembers where it is.
    fn describe(&mut self, file: &str, media_type: &str) -> Result<Descriptor, FolderError> {
        let mut reader = self
            .regular(file)
            .map_err(|source| self.unreadable(file, source))?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match reader
                .read(&mut buffer)
                .map_err(|source| self.unreadable(file, source))?
            {
                0 => break,
                n => hasher.update(&buffer[..n]),
            }
        }
        let size = hasher.length();
        let digest = hasher.finish();
        self.files.insert(digest, file.to_owned());
        Ok(Descriptor::new(media_type, digest, size))
    }

    /// A small document; the caller checks it against its descriptor.
    pub(crate) fn document(&self, wanted: &Descriptor) -> Result<Bytes, FolderError> {
        let file = self.file_of(wanted);
        self.small(&file)
            .map_err(|source| self.unreadable(&file, source))
    }

    /// Copies a layer into the store; the caller checks what arrived.
    pub(crate) async fn blob(
        &self,
        wanted: &Descriptor,
        writer: &mut BlobWriter,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), FolderError> {
        let name = self.file_of(wanted);
        let file = self
            .regular(&name)
            .map_err(|source| self.unreadable(&name, source))?;
        let mut file = tokio::fs::File::from_std(file);
        file.set_max_buf_size(1 << 20);
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file
                .read(&mut buffer)
                .await
                .map_err(|source| self.unreadable(&name, source))?
            {
                0 => return Ok(()),
                n => writer.write(&buffer[..n]).await?,
            }
            progress(writer.length());
            if writer.length() > wanted.size {
                return Ok(());
            }
        }
    }

    /// P9: a path is made from a checked digest, or was in the archive's own list.
    fn file_of(&self, wanted: &Descriptor) -> String {
        match self.files.get(&wanted.digest) {
            Some(file) => file.clone(),
            None => format!("blobs/sha256/{}", wanted.digest.hex()),
        }
    }

    fn optional(&self, file: &str) -> Result<Option<Bytes>, FolderError> {
        match self.small(file) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.unreadable(file, source)),
        }
    }

    fn small(&self, file: &str) -> io::Result<Bytes> {
        let mut content = Vec::new();
        self.regular(file)?
            .take(MAX_DOCUMENT_BYTES + 1)
            .read_to_end(&mut content)?;
        match content.len() as u64 > MAX_DOCUMENT_BYTES {
            true => Err(io::Error::other("it has more than 4 MiB")),
            false => Ok(content.into()),
        }
    }

    /// P1: beneath the folder whatever symlinks say; never a device or fifo that would block.
    fn regular(&self, file: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let confined = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let fd = rustix::fs::openat2(&self.root, file, flags, Mode::empty(), confined)?;
        match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
            FileType::RegularFile => Ok(fd.into()),
            _ => Err(io::Error::other("it is not a regular file")),
        }
    }

    fn unreadable(&self, file: &str, source: io::Error) -> FolderError {
        FolderError::Read {
            folder: self.path.clone(),
            file: file.chars().take(200).collect(),
            source,
        }
    }
}

fn one_name_for_one_image(name: Option<&Reference>, images: usize) -> Result<(), FolderError> {
    match (name, images) {
        (_, 0) => Err(FolderError::NoImage),
        (Some(_), 2..) => Err(FolderError::Several(images)),
        _ => Ok(()),
    }
}

/// The name an index gives an entry. A bare tag, as some writers leave, names nothing.
fn name_of(entry: &Descriptor) -> Result<Reference, FolderError> {
    let full = entry.annotations.get(FULL_NAME);
    let short = entry
        .annotations
        .get(REF_NAME)
        .filter(|name| name.contains(['/', ':']));
    match full.or(short) {
        Some(name) => parse_name(name.clone()),
        None => Err(FolderError::Unnamed(
            entry.annotations.get(REF_NAME).cloned().unwrap_or_default(),
        )),
    }
}

fn parse_name(name: String) -> Result<Reference, FolderError> {
    match name.parse::<Reference>() {
        Ok(reference) if !reference.is_built_in() => Ok(reference),
        _ => Err(FolderError::Unnamed(name.chars().take(200).collect())),
    }
}

fn parse<'a, T: Deserialize<'a>>(file: &'static str, bytes: &'a [u8]) -> Result<T, FolderError> {
    serde_json::from_slice(bytes).map_err(|source| FolderError::Parse { file, source })
}
