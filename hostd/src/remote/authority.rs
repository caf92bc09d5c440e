//! The host's own certificates.
//!
//! ```text
//! key file, apart from the state     state/remote/ca.pem           in memory
//!   private key of the authority ───▶ its certificate, made once ──▶ leaf, 90 days
//!                                       sha256 of it = what clients trust
//! ```
//! No other authority is asked: a client is told the hash of this one's certificate by the
//! way it is told its token, and trusts what that certificate has signed, and nothing else.
//! The leaf and its key are made anew when hostd starts and again before it ends; its names
//! are those that the host knows of itself.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::ring::digest::{SHA256, digest};
use dyno_api::pem::pem;
use dyno_api::token::TokenId;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, date_time_ymd,
};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::{self, ServerConfig, version};

use super::client::{self, PublicKey};
use crate::durable::{self, Survives};

/// How long a leaf is good for, and how long before its end it is replaced.
const LEAF: SignedDuration = SignedDuration::from_hours(90 * 24);
const RENEWAL: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Clients' clocks may be behind so far.
pub(super) const SLOW_CLOCKS: SignedDuration = SignedDuration::from_hours(24);
/// P15: no key file is longer.
const MOST: u64 = 64 << 10;

/// Why the host cannot show who it is.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate is there and its key is not.
    #[error(
        "the key {key} of {certificate} is gone; put it back, or remove {certificate} to have \
         both made anew, which every client has to be told"
    )]
    Gone {
        /// The key file.
        key: PathBuf,
        /// The certificate.
        certificate: PathBuf,
    },
    /// Key and certificate do not belong together.
    #[error("{key} is not the key of {certificate}; put the right one back")]
    Another {
        /// The key file.
        key: PathBuf,
        /// The certificate.
        certificate: PathBuf,
    },
    /// Others may read the key.
    #[error(
        "the key {path} is not root's alone (owner {uid}, mode {mode:04o}); chown it to root and chmod it to 600"
    )]
    Loose {
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// A file cannot be used.
    #[error("cannot use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is no PEM of its kind.
    #[error("{path} is not what hostd has written there")]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PemError,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// It cannot be served with.
    #[error("cannot serve with a certificate")]
    Serve(#[from] rustls::Error),
}

/// Where an authority is kept.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What signs the host's certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    names: Vec<String>,
    serving: Mutex<Serving>,
}

#[derive(Clone)]
struct Serving {
    config: Arc<ServerConfig>,
    until: Timestamp,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("pin", &self.pin())
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// That of this host, made where there is none.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn open(place: &Place, host: &str, names: Vec<String>) -> Result<Self, AuthorityError> {
        let written = read_certificate(&place.certificate)?;
        let key = match (read_key(&place.key)?, &written) {
            (Some(key), _) => key,
            (None, None) => make_key(&place.key)?,
            (None, Some(_)) => {
                return Err(AuthorityError::Gone {
                    key: place.key.clone(),
                    certificate: place.certificate.clone(),
                });
            }
        };
        let params = authority(host);
        let certificate = match written {
            Some(certificate) => certificate,
            None => make_certificate(&place.certificate, &params, &key)?,
        };
        let public = key.der_bytes();
        if !certificate.windows(public.len()).any(|part| part == public) {
            return Err(AuthorityError::Another {
                key: place.key.clone(),
                certificate: place.certificate.clone(),
            });
        }
        let issuer = Issuer::new(params, key);
        let serving = serving(&issuer, &certificate, &names, Timestamp::now())?;
        Ok(Self {
            issuer,
            certificate,
            names,
            serving: Mutex::new(serving),
        })
    }

    /// What clients know it by: `sha256:HEX` of its certificate.
    pub fn pin(&self) -> String {
        let mut pin = "sha256:".to_owned();
        for byte in digest(&SHA256, &self.certificate).as_ref() {
            // To a String it cannot fail.
            write!(pin, "{byte:02x}").unwrap_or_default();
        }
        pin
    }

    /// The certificate (DER) of a client's key, for a token that ends then.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn sign(
        &self,
        key: &PublicKey,
        token: &TokenId,
        until: Option<Timestamp>,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        client::sign(&self.issuer, key, token, Timestamp::now(), until)
    }

    /// What a connection that begins now is served with.
    pub fn config(&self, now: Timestamp) -> Arc<ServerConfig> {
        let mut current = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        if current.is_due(now) {
            match serving(&self.issuer, &self.certificate, &self.names, now) {
                Ok(renewed) => *current = renewed,
                Err(error) => {
                    tracing::error!(%error, "the host's certificate is not renewed");
                }
            }
        }
        current.config.clone()
    }
}

impl Serving {
    /// Also where the clock was set back to before it begins.
    fn is_due(&self, now: Timestamp) -> bool {
        let left = self.until.duration_since(now);
        left < RENEWAL || left > LEAF + SLOW_CLOCKS
    }
}

/// The authority's own words, always the same ones: its certificate is made of them once,
/// and what it signs refers to them.
fn authority(host: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("dyno host {host}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = date_time_ymd(2000, 1, 1);
    // It has no end of its own, RFC 5280 section 4.1.2.5.
    params.not_after = date_time_ymd(9999, 12, 31);
    params
}

/// A certificate for these names from a day ago until then, and its key.
fn leaf(
    issuer: &Issuer<'static, KeyPair>,
    names: &[String],
    now: Timestamp,
    until: Timestamp,
) -> Result<(CertificateDer<'static>, KeyPair), AuthorityError> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "hostd");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(now.checked_sub(SLOW_CLOCKS).unwrap_or(now));
    params.not_after = epoch + since_epoch(until);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    Ok((certificate.der().clone(), key))
}

/// Whole seconds, as certificates have them.
pub(super) fn since_epoch(time: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(time.as_second()).unwrap_or_default())
}

fn serving(
    issuer: &Issuer<'static, KeyPair>,
    authority: &CertificateDer<'static>,
    names: &[String],
    now: Timestamp,
) -> Result<Serving, AuthorityError> {
    let until = now.checked_add(LEAF).unwrap_or(now);
    let (certificate, key) = leaf(issuer, names, now, until)?;
    let chain = vec![certificate, authority.clone()];
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let provider = Arc::new(ring::default_provider());
    let clients = client::verifier(authority, provider.clone())?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key.into())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Nothing is kept of a connection that has ended.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Serving {
        config: Arc::new(config),
        until,
    })
}

/// What a host that listens there knows itself by.
pub fn names(host_name: &str, listens: SocketAddr) -> Vec<String> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    let is_name = host_name.len() <= 253 && host_name.split('.').all(is_label);
    let address = listens.ip().to_canonical();
    let address = (!address.is_unspecified()).then(|| address.to_string());
    let host_name = is_name.then(|| host_name.to_ascii_lowercase());
    for name in host_name.into_iter().chain(address) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> AuthorityError {
    move |source| AuthorityError::Io {
        path: path.to_owned(),
        source,
    }
}

fn format_error(path: &Path) -> impl FnOnce(PemError) -> AuthorityError {
    move |source| AuthorityError::Format {
        path: path.to_owned(),
        source,
    }
}

/// The first bytes of a file that is there.
fn read(path: &Path) -> Result<Option<(fs::Metadata, Vec<u8>)>, AuthorityError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(io_error(path))?,
    };
    let meta = file.metadata().map_err(io_error(path))?;
    let mut bytes = Vec::new();
    let read = file.take(MOST).read_to_end(&mut bytes);
    read.map_err(io_error(path))?;
    Ok(Some((meta, bytes)))
}

fn read_certificate(path: &Path) -> Result<Option<CertificateDer<'static>>, AuthorityError> {
    let Some((_, text)) = read(path)? else {
        return Ok(None);
    };
    let certificate = CertificateDer::from_pem_slice(&text);
    certificate.map(Some).map_err(format_error(path))
}

fn read_key(path: &Path) -> Result<Option<KeyPair>, AuthorityError> {
    let Some((meta, text)) = read(path)? else {
        return Ok(None);
    };
    let mode = meta.mode() & 0o7777;
    let own = rustix::process::geteuid().as_raw();
    if !meta.is_file() || ![0, own].contains(&meta.uid()) || mode & 0o077 != 0 {
        return Err(AuthorityError::Loose {
            path: path.to_owned(),
            uid: meta.uid(),
            mode,
        });
    }
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(format_error(path))?;
    Ok(Some(KeyPair::try_from(&key)?))
}

fn make_key(path: &Path) -> Result<KeyPair, AuthorityError> {
    let key = KeyPair::generate()?;
    write(path, "PRIVATE KEY", key.serialized_der())?;
    Ok(key)
}

fn make_certificate(
    path: &Path,
    params: &CertificateParams,
    key: &KeyPair,
) -> Result<CertificateDer<'static>, AuthorityError> {
    let certificate = params.clone().self_signed(key)?;
    write(path, "CERTIFICATE", certificate.der())?;
    Ok(certificate.der().clone())
}

/// Writes one object as PEM, 0600, in a folder of root's alone.
fn write(path: &Path, label: &str, der: &[u8]) -> Result<(), AuthorityError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(io_error(folder))?;
    let text = pem(label, der);
    durable::write(path, text.as_bytes(), Survives::PowerCut).map_err(io_error(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tokio_rustls::rustls::RootCertStore;
    use tokio_rustls::rustls::client::WebPkiServerVerifier;
    use tokio_rustls::rustls::client::danger::ServerCertVerifier;
    use tokio_rustls::rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    fn place(folder: &Path) -> Place {
        Place {
            certificate: folder.join("state/remote/ca.pem"),
            key: folder.join("etc/remote.key"),
        }
    }

    fn open(place: &Place) -> Result<Authority, AuthorityError> {
        let listens = "192.0.2.7:4410".parse().unwrap();
        Authority::open(place, "0badcafe", names("Box.example", listens))
    }

    #[test]
    fn an_authority_is_made_once_and_its_key_is_roots_alone() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        let pin = open(&place).unwrap().pin();
        assert!(pin.starts_with("sha256:") && pin.len() == 7 + 64, "{pin}");
        assert_eq!(open(&place).unwrap().pin(), pin);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&place.key), 0o600);
        assert_eq!(mode(place.key.parent().unwrap()), 0o700);
        fs::set_permissions(&place.key, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(open(&place), Err(AuthorityError::Loose { .. })));
    }

    #[test]
    fn what_clients_trust_is_not_exchanged_silently() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        let pin = open(&place).unwrap().pin();
        let other = Place {
            certificate: folder.path().join("other/ca.pem"),
            key: folder.path().join("other/key"),
        };
        open(&other).unwrap();
        let mixed = Place {
            key: other.key,
            ..place.clone()
        };
        assert!(matches!(open(&mixed), Err(AuthorityError::Another { .. })));
        let kept = folder.path().join("kept");
        fs::rename(&place.key, &kept).unwrap();
        assert!(matches!(open(&place), Err(AuthorityError::Gone { .. })));
        fs::rename(&kept, &place.key).unwrap();
        // A crash between the key and the certificate.
        assert_eq!(open(&place).unwrap().pin(), pin);
        fs::remove_file(&place.certificate).unwrap();
        open(&place).unwrap();
    }

    #[test]
    fn what_it_signs_is_verified_by_it_for_the_hosts_names() {
        let folder = tempfile::tempdir().unwrap();
        let authority = open(&place(folder.path())).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider);
        let verifier = verifier.build().unwrap();
        let (now, names) = (Timestamp::now(), &authority.names);
        let (leaf, _) = leaf(&authority.issuer, names, now, now + LEAF).unwrap();
        for (name, is_good) in [
            ("box.example", true),
            ("localhost", true),
            ("127.0.0.1", true),
            ("::1", true),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("example", false),
        ] {
            let server = ServerName::try_from(name).unwrap();
            let verified = verifier.verify_server_cert(&leaf, &[], &server, &[], UnixTime::now());
            assert_eq!(verified.is_ok(), is_good, "{name}: {verified:?}");
        }
    }

    #[test]
    fn a_leaf_is_renewed_before_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let authority = open(&place(folder.path())).unwrap();
        let now = Timestamp::now();
        let first = authority.config(now);
        let early = authority.config(now + SignedDuration::from_hours(59 * 24));
        assert!(Arc::ptr_eq(&first, &early));
        let late = authority.config(now + SignedDuration::from_hours(61 * 24));
        assert!(!Arc::ptr_eq(&first, &late));
        // A clock that is set back.
        let back = authority.config(now - SignedDuration::from_hours(48));
        assert!(!Arc::ptr_eq(&late, &back));
    }

    #[test]
    fn a_name_that_is_none_is_left_out() {
        let listens = "[::]:1".parse().unwrap();
        assert_eq!(
            names("under_score", listens),
            ["localhost", "127.0.0.1", "::1"]
        );
        assert_eq!(names("localhost", "127.0.0.1:1".parse().unwrap()).len(), 3);
    }
}
