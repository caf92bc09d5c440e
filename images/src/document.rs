//! The JSON documents of an image: index, manifest and config, of OCI and of Docker.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, LayerId};
use crate::image::{Healthcheck, ImageConfig};
use crate::platform::Platform;

/// P15: no index, manifest or config is read beyond this many bytes.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// More layers than overlayfs can stack.
const MAX_LAYERS: usize = 500;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// Points at content by digest, with the size and type it must turn out to have.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    pub(crate) annotations: HashMap<String, String>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            annotations: HashMap::new(),
        }
    }
}

/// What an image reference can resolve to.
#[derive(Clone, Debug)]
pub(crate) enum Document {
    /// A choice of manifests by platform.
    Index(Vec<Descriptor>),
    /// One image.
    Manifest(Box<Manifest>),
}

/// One image: its config and layers, lowest layer first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    pub(crate) media_type: Option<String>,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// What of an image's config document matters here.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) platform: Platform,
    pub(crate) created: Option<jiff::Timestamp>,
    /// Lowest layer first.
    pub(crate) diff_ids: Vec<LayerId>,
    pub(crate) config: ImageConfig,
}

/// Why a document is not one that can be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or not of the expected shape.
    #[error("{what} is not valid")]
    Parse {
        /// Which document.
        what: &'static str,
        /// Where parsing failed.
        source: serde_json::Error,
    },
    /// The document's own media type is not the one it was announced with.
    #[error("the document says it is `{inside}` but was announced as `{announced}`")]
    MediaType {
        /// `mediaType` inside the document.
        inside: String,
        /// Media type in the descriptor or the HTTP header.
        announced: String,
    },
    /// Fields of both an index and a manifest: readers would disagree about what it is.
    #[error("the document is an index and a manifest at once")]
    Ambiguous,
    /// Docker's schema 1, or a document of another kind.
    #[error(
        "document of type `{0}` is not an image (expected an OCI or Docker v2 manifest or index)"
    )]
    Unsupported(String),
    /// The manifest's config or a layer is of a type that no container image has.
    #[error("`{0}` is not part of a container image; is this another kind of artifact?")]
    NotAnImage(String),
    /// As many diffIDs as layers are required.
    #[error("the manifest has {layers} layers but the config has {diff_ids} diff ids")]
    LayerCount {
        /// Layers in the manifest.
        layers: usize,
        /// diffIDs in the config.
        diff_ids: usize,
    },
    /// Larger than any honest document.
    #[error("{what} has {size} bytes, the limit is 4 MiB")]
    TooLarge {
        /// Which document.
        what: &'static str,
        /// Its announced size.
        size: u64,
    },
    /// No entry of the index fits.
    #[error("no image for platform {wanted} (the index has: {available})")]
    NoPlatform {
        /// What was asked for.
        wanted: Platform,
        /// What there is, separated by commas.
        available: String,
    },
    /// Indexes within indexes.
    #[error("the index leads to another index more than {0} times")]
    Nested(usize),
}

impl Document {
    /// Reads an index or manifest that was announced as `announced`.
    ///
    /// P9: the inner media type must agree, and a document that could be read both ways is
    /// refused.
    pub(crate) fn parse(bytes: &[u8], announced: &str) -> Result<Document, DocumentError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Probe {
            media_type: Option<String>,
            schema_version: Option<u32>,
            manifests: Option<Vec<Descriptor>>,
            config: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
            fs_layers: Option<serde::de::IgnoredAny>,
        }
        let probe: Probe = parse_json("the manifest", bytes)?;
        if let Some(inside) = probe.media_type
            && inside != announced
        {
            return Err(DocumentError::MediaType {
                inside,
                announced: announced.to_owned(),
            });
        }
        let has_manifest_fields =
            probe.config.is_some() || probe.layers.is_some() || probe.fs_layers.is_some();
        if probe.manifests.is_some() && has_manifest_fields {
            return Err(DocumentError::Ambiguous);
        }
        match (announced, probe.schema_version, probe.manifests) {
            (OCI_INDEX | DOCKER_LIST, Some(2), Some(manifests)) => Ok(Document::Index(manifests)),
            (OCI_MANIFEST | DOCKER_MANIFEST, Some(2), None) => {
                let manifest: Manifest = parse_json("the manifest", bytes)?;
                manifest.check()?;
                Ok(Document::Manifest(Box::new(manifest)))
            }
            _ => Err(DocumentError::Unsupported(
                announced.chars().take(100).collect(),
            )),
        }
    }
}

impl Manifest {
    /// The manifest as a document with its descriptor.
    pub(crate) fn to_document(&self) -> Result<(Descriptor, Bytes), serde_json::Error> {
        let bytes = serde_json::to_vec(self)?;
        let descriptor = Descriptor::new(OCI_MANIFEST, Digest::of(&bytes), bytes.len() as u64);
        Ok((descriptor, bytes.into()))
    }

    fn check(&self) -> Result<(), DocumentError> {
        let refuse = |descriptor: &Descriptor| {
            DocumentError::NotAnImage(descriptor.media_type.chars().take(100).collect())
        };
        if !matches!(self.config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
            return Err(refuse(&self.config));
        }
        check_size("the image config", &self.config)?;
        let is_layer = |media_type: &str| {
            let rest = media_type
                .strip_prefix(OCI_LAYER)
                .or_else(|| media_type.strip_prefix(DOCKER_LAYER));
            matches!(rest, Some("" | "+gzip" | "+zstd" | ".gzip" | ".zstd"))
        };
        match self
            .layers
            .iter()
            .find(|layer| !is_layer(&layer.media_type))
        {
            Some(other) => Err(refuse(other)),
            None if self.layers.len() > MAX_LAYERS => Err(DocumentError::LayerCount {
                layers: self.layers.len(),
                diff_ids: MAX_LAYERS,
            }),
            None => Ok(()),
        }
    }
}

/// P15: refuses a document by its announced size before a byte is fetched.
pub(crate) fn check_size(what: &'static str, descriptor: &Descriptor) -> Result<(), DocumentError> {
    match descriptor.size {
        size if size > MAX_DOCUMENT_BYTES => Err(DocumentError::TooLarge { what, size }),
        _ => Ok(()),
    }
}

/// Chooses the entry of an index for `wanted`: the first that fits.
pub(crate) fn choose(
    manifests: Vec<Descriptor>,
    wanted: &Platform,
) -> Result<Descriptor, DocumentError> {
    let fits = |entry: &Descriptor| match &entry.platform {
        Some(offered) => wanted.accepts(offered),
        // An index without platforms has one meaning only if it has one entry.
        None => manifests.len() == 1,
    };
    match manifests.iter().position(fits) {
        Some(at) => Ok(manifests
            .into_iter()
            .nth(at)
            .unwrap_or_else(|| unreachable!())),
        None => Err(DocumentError::NoPlatform {
            wanted: wanted.clone(),
            available: manifests
                .iter()
                .take(20)
                .map(|entry| match &entry.platform {
                    Some(platform) => platform.to_string(),
                    None => "unnamed".to_owned(),
                })
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}

impl Config {
    /// Reads an image config (OCI image spec, config.md; Docker's is the same).
    pub(crate) fn parse(bytes: &[u8]) -> Result<Config, DocumentError> {
        #[derive(Deserialize)]
        struct Raw {
            architecture: String,
            os: String,
            variant: Option<String>,
            created: Option<String>,
            config: Option<RawConfig>,
            rootfs: RawRootfs,
        }
        #[derive(Deserialize)]
        struct RawRootfs {
            diff_ids: Option<Vec<LayerId>>,
        }
        let raw: Raw = parse_json("the image config", bytes)?;
        Ok(Config {
            platform: Platform {
                os: raw.os,
                architecture: raw.architecture,
                variant: raw.variant.filter(|v| !v.is_empty()),
            },
            created: raw.created.and_then(|created| created.parse().ok()),
            diff_ids: raw.rootfs.diff_ids.unwrap_or_default(),
            config: raw.config.unwrap_or_default().into(),
        })
    }

    /// Checks that the config belongs to a manifest with this many layers.
    pub(crate) fn check_layers(&self, manifest: &Manifest) -> Result<(), DocumentError> {
        let (layers, diff_ids) = (manifest.layers.len(), self.diff_ids.len());
        match layers == diff_ids {
            true => Ok(()),
            false => Err(DocumentError::LayerCount { layers, diff_ids }),
        }
    }
}

/// `config.config` as it is written: Go's nil slices and maps arrive as null.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawConfig {
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
    healthcheck: Option<serde_json::Value>,
}

/// Other fields, `StartPeriod` among them, say nothing that is needed.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawHealthcheck {
    test: Vec<String>,
    interval: i64,
    timeout: i64,
    retries: i64,
}

/// P6: nonsense of an image's author is no check, and keeps nobody from
/// running the image.
fn healthcheck(raw: serde_json::Value) -> Option<Healthcheck> {
    let raw: RawHealthcheck = serde_json::from_value(raw).ok()?;
    Some(Healthcheck {
        test: raw.test,
        interval: raw.interval,
        timeout: raw.timeout,
        retries: raw.retries,
    })
}

impl From<RawConfig> for ImageConfig {
    fn from(raw: RawConfig) -> ImageConfig {
        let keys = |map: Option<BTreeMap<String, _>>| -> BTreeSet<String> {
            map.unwrap_or_default().into_keys().collect()
        };
        ImageConfig {
            entrypoint: raw.entrypoint.unwrap_or_default(),
            cmd: raw.cmd.unwrap_or_default(),
            env: raw.env.unwrap_or_default(),
            user: raw.user.unwrap_or_default(),
            workdir: raw.working_dir.unwrap_or_default(),
            stop_signal: raw.stop_signal.filter(|signal| !signal.is_empty()),
            volumes: keys(raw.volumes),
            exposed_ports: keys(raw.exposed_ports),
            labels: raw.labels.unwrap_or_default(),
            healthcheck: raw.healthcheck.and_then(healthcheck),
        }
    }
}

fn parse_json<'a, T: Deserialize<'a>>(
    what: &'static str,
    bytes: &'a [u8],
) -> Result<T, DocumentError> {
    serde_json::from_slice(bytes).map_err(|source| DocumentError::Parse { what, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> String {
        Digest::of(&[n]).to_string()
    }

    fn manifest() -> serde_json::Value {
        serde_json::json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": digest(1), "size": 10},
            "layers": [{"mediaType": format!("{OCI_LAYER}+gzip"), "digest": digest(2), "size": 20}],
        })
    }

    fn parse(value: &serde_json::Value, announced: &str) -> Result<Document, DocumentError> {
        Document::parse(value.to_string().as_bytes(), announced)
    }

    // P6
    #[test]
    fn a_healthcheck_is_read_and_a_nonsensical_one_refuses_no_image() {
        let config = |check: serde_json::Value| {
            let raw = serde_json::json!({"Cmd": ["x"], "Healthcheck": check});
            ImageConfig::from(serde_json::from_value::<RawConfig>(raw).unwrap())
        };
        let check = serde_json::json!({
            "Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000_i64, "StartPeriod": 1, "Retries": 2,
        });
        let expected = Healthcheck {
            test: vec!["CMD-SHELL".to_owned(), "true".to_owned()],
            interval: 5_000_000_000,
            timeout: 0,
            retries: 2,
        };
        assert_eq!(config(check).healthcheck, Some(expected));
        for nonsense in [
            "x".into(),
            serde_json::json!({"Test": 7}),
            serde_json::Value::Null,
        ] {
            let config = config(nonsense);
            assert_eq!((config.healthcheck, config.cmd.len()), (None, 1));
        }
    }

    #[test]
    fn reads_a_manifest() {
        let Document::Manifest(manifest) = parse(&manifest(), OCI_MANIFEST).unwrap() else {
            panic!("not a manifest")
        };
        assert_eq!(manifest.layers[0].digest, Digest::of(&[2]));
    }

    // P9
    #[test]
    fn refuses_a_document_that_is_announced_as_something_else() {
        let refused = parse(&manifest(), OCI_INDEX).unwrap_err();
        assert!(
            matches!(refused, DocumentError::MediaType { .. }),
            "{refused}"
        );
    }

    // P9: CVE-2021-41190
    #[test]
    fn refuses_a_document_that_is_index_and_manifest_at_once() {
        let mut both = manifest();
        both["manifests"] = serde_json::json!([]);
        for announced in [OCI_MANIFEST, OCI_INDEX] {
            both["mediaType"] = announced.into();
            let refused = parse(&both, announced).unwrap_err();
            assert!(matches!(refused, DocumentError::Ambiguous), "{refused}");
        }
    }

    #[test]
    fn refuses_artifacts_and_old_schemas() {
        let mut chart = manifest();
        chart["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into();
        assert!(matches!(
            parse(&chart, OCI_MANIFEST),
            Err(DocumentError::NotAnImage(_))
        ));
        let mut layer = manifest();
        layer["layers"][0]["mediaType"] = "text/html".into();
        assert!(matches!(
            parse(&layer, OCI_MANIFEST),
            Err(DocumentError::NotAnImage(_))
        ));
        let schema1 = serde_json::json!({"schemaVersion": 1, "fsLayers": []});
        let announced = "application/vnd.docker.distribution.manifest.v1+json";
        assert!(matches!(
            parse(&schema1, announced),
            Err(DocumentError::Unsupported(_))
        ));
    }

    #[test]
    fn refuses_a_huge_config_before_fetching_it() {
        let mut huge = manifest();
        huge["config"]["size"] = (MAX_DOCUMENT_BYTES + 1).into();
        assert!(matches!(
            parse(&huge, OCI_MANIFEST),
            Err(DocumentError::TooLarge { .. })
        ));
    }

    #[test]
    fn chooses_by_platform_and_says_what_there_is() {
        let entry = |n, platform: Option<&str>| Descriptor {
            media_type: OCI_MANIFEST.to_owned(),
            digest: Digest::of(&[n]),
            size: 1,
            platform: platform.map(|p| p.parse().unwrap()),
            annotations: HashMap::new(),
        };
        let index = vec![
            entry(1, Some("linux/arm64")),
            entry(2, Some("linux/amd64")),
            entry(3, None),
        ];
        let wanted: Platform = "linux/amd64".parse().unwrap();
        assert_eq!(
            choose(index.clone(), &wanted).unwrap().digest,
            Digest::of(&[2])
        );
        let refused = choose(index, &"linux/riscv64".parse().unwrap())
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("linux/riscv64") && refused.contains("linux/arm64"),
            "{refused}"
        );
        assert_eq!(
            choose(vec![entry(9, None)], &wanted).unwrap().digest,
            Digest::of(&[9])
        );
    }

    #[test]
    fn reads_a_config_with_nulls_for_empty_lists() {
        let config = Config::parse(
            br#"{"architecture":"amd64","os":"linux","created":"2024-01-01T00:00:00Z",
                "config":{"Cmd":["sh"],"Entrypoint":null,"Env":null,"Volumes":{"/data":{}},
                "ExposedPorts":{"80/tcp":{}},"Labels":null,"User":"","WorkingDir":"/w"},
                "rootfs":{"type":"layers","diff_ids":[]},"history":[]}"#,
        )
        .unwrap();
        assert_eq!(config.config.cmd, ["sh"]);
        assert!(config.config.volumes.contains("/data"));
        assert_eq!(config.created.unwrap().to_string(), "2024-01-01T00:00:00Z");
    }
}
