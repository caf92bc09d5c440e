//! What the tests of this crate share: a store in a temporary folder with the real jail, hostile
//! and honest tars, canaries.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

pub(crate) mod server;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dyno_images::{Digest, Jail, Limits, Progress, Reference, Store};
use serde_json::json;
use tar::{EntryType, Header};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The real jail. `dyno-runtime` belongs to another crate, so Cargo does not build it for these
/// tests: it must lie where the workspace's programs do.
pub(crate) fn jail() -> Jail {
    let unpack = PathBuf::from(env!("CARGO_BIN_EXE_dyno-unpack"));
    let runtime = unpack.with_file_name("dyno-runtime");
    assert!(
        runtime.exists(),
        "build it first: cargo build -p dyno-runtime"
    );
    Jail {
        runtime,
        unpack,
        uid_base: 0x7000_0000,
    }
}

/// A store in a folder of its own.
pub(crate) struct Rig {
    pub(crate) store: Store,
    pub(crate) root: PathBuf,
    _folder: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn new() -> Rig {
        Rig::with_limits(Limits::default())
    }

    pub(crate) fn with_limits(limits: Limits) -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("images");
        let store = Store::open_with_limits(&root, jail(), limits).unwrap();
        Rig {
            store,
            root,
            _folder: folder,
        }
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Nothing unfinished is left lying about; what is removed in the background may take a
    /// moment.
    #[track_caller]
    pub(crate) fn assert_tidy(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.count("tmp") > 0 {
            assert!(Instant::now() < deadline, "tmp is not empty");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn count(&self, folder: &str) -> usize {
        fs::read_dir(self.root.join(folder)).unwrap().count()
    }
}

/// Builds a tar block by block, so that it can hold what no honest tar does.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn dir(self, path: &str) -> Tar {
        self.raw(EntryType::Directory, path, "", &[], |header| {
            header.set_mode(0o755)
        })
    }

    pub(crate) fn file(self, path: &str, content: &str) -> Tar {
        self.raw(EntryType::Regular, path, "", content.as_bytes(), |_| {})
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Tar {
        self.raw(EntryType::Symlink, path, target, &[], |_| {})
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Tar {
        self.raw(EntryType::Link, path, target, &[], |_| {})
    }

    /// A member exactly as given: no name is checked or cleaned.
    pub(crate) fn raw(
        mut self,
        kind: EntryType,
        path: &str,
        link: &str,
        content: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Tar {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A pax header for the next member.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let mut data = Vec::new();
        for (key, value) in records {
            let body = key.len() + value.len() + 3;
            let digits = (1..9).find(|n| (body + n).to_string().len() == *n).unwrap();
            data.extend(format!("{} {key}=", body + digits).into_bytes());
            data.extend(*value);
            data.push(b'\n');
        }
        self.raw(EntryType::XHeader, "pax", "", &data, |_| {})
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// An OCI layout being written: blobs, and an index that names images.
pub(crate) struct Layout {
    pub(crate) folder: tempfile::TempDir,
    index: Vec<serde_json::Value>,
}

impl Layout {
    pub(crate) fn new() -> Layout {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        write(
            &folder.path().join("oci-layout"),
            br#"{"imageLayoutVersion":"1.0.0"}"#,
        );
        Layout {
            folder,
            index: Vec::new(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path().join("blobs/sha256").join(digest.hex())
    }

    pub(crate) fn blob(&self, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        write(&self.blob_path(&digest), content);
        digest
    }

    /// Adds an image of these layers: (bytes as stored, bytes of the tar).
    pub(crate) fn image(&mut self, name: &str, layers: &[(Vec<u8>, Vec<u8>)]) -> Digest {
        let diff_ids: Vec<_> = layers.iter().map(|(_, tar)| Digest::of(tar)).collect();
        self.image_with(
            name,
            layers,
            &diff_ids,
            "linux",
            &json!({"Cmd": ["/bin/serve"]}),
        )
    }

    pub(crate) fn image_with(
        &mut self,
        name: &str,
        layers: &[(Vec<u8>, Vec<u8>)],
        diff_ids: &[Digest],
        os: &str,
        run: &serde_json::Value,
    ) -> Digest {
        let (digest, size) = self.manifest(layers, diff_ids, os, run);
        self.add(name, OCI_MANIFEST, digest, size);
        digest
    }

    pub(crate) fn manifest(
        &self,
        layers: &[(Vec<u8>, Vec<u8>)],
        diff_ids: &[Digest],
        os: &str,
        run: &serde_json::Value,
    ) -> (Digest, usize) {
        let config = json!({
            "architecture": dyno_images::Platform::host().architecture, "os": os,
            "config": run, "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string();
        let descriptors: Vec<_> = layers
            .iter()
            .map(|(stored, _)| {
                let digest = self.blob(stored);
                let kind = match stored.get(..2) {
                    Some([0x1f, 0x8b]) => "+gzip",
                    Some([0x28, 0xb5]) => "+zstd",
                    _ => "",
                };
                json!({"mediaType": format!("{OCI_LAYER}{kind}"), "digest": digest, "size": stored.len()})
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": self.blob(config.as_bytes()), "size": config.len()},
            "layers": descriptors,
        })
        .to_string();
        (self.blob(manifest.as_bytes()), manifest.len())
    }

    pub(crate) fn add(&mut self, name: &str, media_type: &str, digest: Digest, size: usize) {
        self.index.push(json!({
            "mediaType": media_type, "digest": digest, "size": size,
            "annotations": {"org.opencontainers.image.ref.name": name},
        }));
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self.index});
        write(
            &self.path().join("index.json"),
            index.to_string().as_bytes(),
        );
    }

    /// The layout as an oci-archive.
    pub(crate) fn archive(&self) -> Vec<u8> {
        let tar = Command::new("tar")
            .arg("-C")
            .arg(self.path())
            .args(["-cf", "-", "."])
            .output();
        tar.unwrap().stdout
    }
}

pub(crate) fn write(path: &Path, content: &[u8]) {
    fs::File::create(path).unwrap().write_all(content).unwrap();
}

/// A folder outside the store, which nothing may change.
pub(crate) struct Canary {
    pub(crate) folder: tempfile::TempDir,
    before: Snapshot,
}

type Snapshot = BTreeMap<PathBuf, (u32, u64, u32, i64, i64, Vec<u8>)>;

impl Canary {
    pub(crate) fn new() -> Canary {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("etc")).unwrap();
        write(
            &folder.path().join("etc/passwd"),
            b"root:x:0:0::/:/bin/sh\n",
        );
        write(&folder.path().join("file"), b"untouched");
        let before = snapshot(folder.path());
        Canary { folder, before }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn is_unchanged(&self) -> bool {
        snapshot(self.path()) == self.before
    }
}

/// Everything about a tree that a change would show in.
pub(crate) fn snapshot(root: &Path) -> Snapshot {
    fn walk(path: &Path, into: &mut Snapshot) {
        let metadata = path.symlink_metadata().unwrap();
        let content = match metadata.is_file() {
            true => fs::read(path).unwrap(),
            false => Vec::new(),
        };
        let about = (
            metadata.mode(),
            metadata.nlink(),
            metadata.uid(),
            metadata.ctime(),
            metadata.ctime_nsec(),
            content,
        );
        into.insert(path.to_owned(), about);
        if metadata.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                walk(&entry.unwrap().path(), into);
            }
        }
    }
    let mut all = Snapshot::new();
    walk(root, &mut all);
    all
}

/// What the helper said last, and the tree it wrote.
pub(crate) struct Unpacked {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) last: serde_json::Value,
    pub(crate) success: bool,
}

impl Unpacked {
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("tree").join(path)
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Why it was refused.
    #[track_caller]
    pub(crate) fn refusal(&self) -> &str {
        assert!(!self.success, "it was accepted: {}", self.last);
        self.last["failed"].as_str().unwrap()
    }

    #[track_caller]
    pub(crate) fn done(&self) -> &serde_json::Value {
        assert!(self.success, "it was refused: {}", self.last);
        &self.last["done"]
    }
}

/// Runs the real helper in the real jail on a layer.
pub(crate) fn unpack(layer: &[u8], limits: Limits) -> Unpacked {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let jail = jail();
    let mut child = Command::new(&jail.runtime)
        .args(["jail", "--root"])
        .arg(&tree)
        .args(["--uid-base", &jail.uid_base.to_string(), "--"])
        .arg(&jail.unpack)
        .args(
            [
                limits.bytes,
                limits.entries,
                limits.depth.into(),
                limits.path_bytes.into(),
            ]
            .map(|n| n.to_string()),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It may stop reading when it has seen enough.
    let fed = child.stdin.take().unwrap().write_all(layer);
    let mut output = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut output)
        .unwrap();
    let success = child.wait().unwrap().success();
    assert!(fed.is_ok() || !success);
    let last = output
        .lines()
        .last()
        .unwrap_or_else(|| panic!("the helper said nothing"));
    Unpacked {
        last: serde_json::from_str(last).unwrap(),
        folder,
        success,
    }
}

pub(crate) fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// A layer as (stored, tar).
pub(crate) fn layer(tar: Tar) -> (Vec<u8>, Vec<u8>) {
    let tar = tar.end();
    (gzip(&tar), tar)
}

pub(crate) fn ignore(_: Progress) {}

/// The error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
