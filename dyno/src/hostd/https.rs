//! hostd of another machine that listens with TLS itself: which authority it has to be
//! signed by, and the token or certificate that is shown to it.
//!
//! ```text
//! context   its authority in the list, its token in tokens/NAME (0600), or a file of the user's
//! --host    DYNO_CA, DYNO_TOKEN or DYNO_CERT
//! ```
//! A token goes to the machine that it was given for: variables are not for contexts.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use dyno_api::client::{Client, Identity, Pin, Proof, Remote, Secret};
use tokio::process::Command;
use tokio::time::timeout;

use super::contexts::{Entry, Name};
use super::machine::Address;
use super::private;
use crate::failure::{Failure, code};

/// Who knows the addresses of names, as this machine is configured: a static program
/// must not ask libc, nsswitch.conf(5).
const GETENT: &str = "getent";

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A hash of an authority, or a file of its certificate.
pub(crate) const CA: &str = "DYNO_CA";

/// A token's secret.
pub(crate) const TOKEN: &str = "DYNO_TOKEN";

/// A file of a certificate and its key.
const CERT: &str = "DYNO_CERT";

/// The way to a hostd that listens with TLS.
#[derive(Debug)]
pub(crate) struct Https {
    to: Address,
    authority: Pin,
    proof: Proof,
}

impl Https {
    /// With what the environment has for it.
    ///
    /// # Errors
    /// A [`Failure`] where that is not enough.
    pub(super) fn from_variables(
        to: Address,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Failure> {
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
        let missing = |what: &str, hint: &str| {
            Failure::usage(format!("{to} needs {what}"))
                .hint(format!("{hint}, or give it a name: dyno ctx add NAME {to}"))
        };
        let ca = text(CA).ok_or_else(|| {
            missing(
                "the hash of its authority",
                "DYNO_CA=sha256:…, as `dyno token create` tells it",
            )
        })?;
        let proof = match (text(TOKEN), variable(CERT)) {
            (Some(secret), None) => Proof::Secret(secret_of(&secret, TOKEN)?),
            (None, Some(path)) => Proof::Certificate(identity(Path::new(&path))?),
            (Some(_), Some(_)) => {
                return Err(missing(
                    "one of both, a token or a certificate",
                    "unset DYNO_CERT",
                ));
            }
            (None, None) => return Err(missing("a token", "DYNO_TOKEN=…, or DYNO_CERT=FILE")),
        };
        Ok(Self {
            authority: authority(&ca)?,
            proof,
            to,
        })
    }

    /// With what was kept for a context.
    ///
    /// # Errors
    /// A [`Failure`] where that is gone.
    pub(super) fn of_context(name: &Name, to: Address, entry: &Entry) -> Result<Self, Failure> {
        let authority = entry.ca.ok_or_else(|| {
            Failure::new(format!("{name}: its authority is not known"))
                .hint(format!("dyno ctx rm {name}, and dyno ctx add {name} {to}"))
        })?;
        let proof = match &entry.cert {
            Some(path) => Proof::Certificate(identity(path)?),
            None => {
                let path = token_file(name).ok_or_else(no_folder)?;
                Proof::Secret(secret_in(&path)?)
            }
        };
        Ok(Self {
            to,
            authority,
            proof,
        })
    }

    /// A client of the hostd there.
    ///
    /// # Errors
    /// A [`Failure`] where it cannot be reached, or is another one.
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        let client = Client::at(Remote {
            name: self.to.to_string(),
            addresses: addresses(&self.to).await?,
            authority: self.authority,
            proof: self.proof.clone(),
        })?;
        Ok(client.connected().await?)
    }
}

/// An authority: its hash, or a file of its certificate.
///
/// # Errors
/// A [`Failure`] where it is neither.
pub(crate) fn authority(text: &str) -> Result<Pin, Failure> {
    let wrong = |why: &dyn std::fmt::Display| Failure::usage(format!("{text}: {why}"));
    if text.starts_with("sha256:") {
        return text.parse().map_err(|why| wrong(&why));
    }
    let pem = match private::read(Path::new(text)) {
        Ok(Some(pem)) => pem,
        Ok(None) => return Err(wrong(&"no such file, and no hash: sha256:…")),
        Err(error) => return Err(Failure::io(format!("cannot read {text}"), &error)),
    };
    Pin::of_pem(&pem).map_err(|_no_pem| wrong(&"no certificate in PEM"))
}

/// The secret in a text, which is that of a file or variable of this name.
///
/// # Errors
/// A [`Failure`] that does not repeat it.
pub(crate) fn secret_of(text: &str, name: &str) -> Result<Secret, Failure> {
    let secret = text.parse();
    secret.map_err(|why| Failure::usage(format!("{name}: {why}")))
}

/// The secret in a file that nobody else may read.
///
/// # Errors
/// A [`Failure`] with its path.
pub(crate) fn secret_in(path: &Path) -> Result<Secret, Failure> {
    let bytes = private::read_secret(path)
        .map_err(|error| Failure::io(format!("cannot read {}", path.display()), &error))?;
    secret_of(&String::from_utf8_lossy(&bytes), &path.to_string_lossy())
}

/// The certificate and key in a file that nobody else may read.
///
/// # Errors
/// A [`Failure`] with its path.
pub(crate) fn identity(path: &Path) -> Result<Identity, Failure> {
    let bytes = private::read_secret(path)
        .map_err(|error| Failure::io(format!("cannot read {}", path.display()), &error))?;
    Identity::from_pem(&bytes).map_err(|why| Failure::usage(format!("{}: {why}", path.display())))
}

/// Keeps the token of a context.
///
/// # Errors
/// A [`Failure`] where it cannot be written.
pub(crate) fn keep(name: &Name, secret: &Secret) -> Result<(), Failure> {
    let path = token_file(name).ok_or_else(no_folder)?;
    private::write(&path, secret.expose().as_bytes())
        .map_err(|error| Failure::io(format!("cannot write {}", path.display()), &error))
}

/// Forgets the token of a context, if it has one.
///
/// # Errors
/// A [`Failure`] where it stays.
pub(crate) fn forget(name: &Name) -> Result<(), Failure> {
    let Some(path) = token_file(name) else {
        return Ok(());
    };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::io(
            format!("cannot remove {}", path.display()),
            &error,
        )),
        _ => Ok(()),
    }
}

fn token_file(name: &Name) -> Option<PathBuf> {
    Some(private::folder()?.join("tokens").join(name.as_str()))
}

fn no_folder() -> Failure {
    Failure::new("there is no folder for tokens").hint("set HOME or XDG_CONFIG_HOME")
}

/// Where a host listens; a name's addresses are those that this machine knows.
async fn addresses(to: &Address) -> Result<Vec<SocketAddr>, Failure> {
    if let Ok(address) = to.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, to.port)]);
    }
    let mut getent = Command::new(GETENT);
    getent
        .args(["ahosts", &to.host])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = match timeout(PATIENCE, getent.output()).await {
        Ok(Ok(output)) => output.stdout,
        Ok(Err(error)) => {
            let failure = Failure::io(format!("cannot run {GETENT}"), &error);
            let hint = format!("give an address instead of {}", to.host);
            return Err(failure.hint(hint).with_code(code::NO_HOSTD));
        }
        Err(_) => Vec::new(),
    };
    Ok(listed(&String::from_utf8_lossy(&output), to.port))
}

/// getent(1): an address begins each line, once for each type of socket.
fn listed(text: &str, port: u16) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let words = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    for address in words.filter_map(|word| word.parse().ok()) {
        let address = SocketAddr::new(address, port);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostd::machine::Machine;

    fn from(variables: &[(&str, &str)]) -> Result<Https, Failure> {
        let Ok(Machine::Https(to)) = "https://box:4410".parse() else {
            panic!("an address");
        };
        Https::from_variables(to, |name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn what_an_address_lacks_is_told_and_a_token_is_not() {
        let text = |failure: Failure| {
            let mut text = Vec::new();
            failure.render(&mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        let pin = format!("sha256:{}", "0".repeat(64));
        let told = text(from(&[(TOKEN, "dyno_x")]).unwrap_err());
        assert!(told.contains("DYNO_CA=sha256:"), "{told}");
        let told = text(from(&[(CA, &pin)]).unwrap_err());
        assert!(told.contains("DYNO_TOKEN="), "{told}");
        let told = text(from(&[(CA, &pin), (TOKEN, "hush hush")]).unwrap_err());
        assert!(told.contains(TOKEN) && !told.contains("hush"), "{told}");
        let way = from(&[(CA, &pin), (TOKEN, "hush")]).unwrap();
        assert!(!format!("{way:?}").contains("hush"), "{way:?}");
    }

    #[test]
    fn each_address_of_a_name_is_tried_once() {
        let text = "192.0.2.7       STREAM box\n192.0.2.7       DGRAM  \n\
                    2001:db8::1     STREAM \nnonsense\n\n";
        let expected = ["192.0.2.7:1", "[2001:db8::1]:1"].map(|text| text.parse().unwrap());
        assert_eq!(listed(text, 1), expected);
    }
}
