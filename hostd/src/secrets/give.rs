//! What a dyno is given at a start: files in memory that its bundle mounts, and a
//! list of variables that its monitor reads at each of its starts.
//!
//! ```text
//!  run/secrets/ID/      0700, hostd's
//!    0, 1, …            the secrets of the specification, in its order
//!    env.json           NAME=value, for the monitor
//! ```

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;
use std::sync::PoisonError;

use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::secret::SecretName;
use dyno_images::identity::Identity;

use super::{SecretError, memory};
use crate::desired::Record;
use crate::durable::{self, from_io};
use crate::host::Host;
use crate::paths::DynoPaths;

/// P19: bytes of all secrets of one dyno.
const MAX_BYTES: usize = 1 << 20;
/// Bytes of one variable, execve(2).
const MAX_VARIABLE: usize = 128 << 10;

/// Writes the current values where the dyno's bundle and monitor look for them.
///
/// # Errors
/// NotFound for a secret that is gone; why another cannot be given.
pub(crate) fn give(host: &Host, record: &Record, user: &Identity) -> Result<(), ApiError> {
    let own = host.paths.dyno(&record.id);
    take_back(&own)?;
    let spec = &record.spec;
    if spec.secrets.is_empty() && spec.secret_env.is_empty() {
        return Ok(());
    }
    let folder = host.paths.run_secrets();
    {
        let mounting = host.secrets.mounting.lock();
        let _mounting = mounting.unwrap_or_else(PoisonError::into_inner);
        memory::ensure(&folder)
            .map_err(|error| from_io("cannot make a file system in memory for secrets", &error))?;
    }
    let made = DirBuilder::new().mode(0o700).create(&own.secrets);
    made.map_err(|error| from_io("cannot make a folder for secrets", &error))?;
    let mut left = MAX_BYTES;
    let mut value = |name: &SecretName| {
        let value = host.secrets.value(name).map_err(missing)?;
        let Some(rest) = left.checked_sub(value.len()) else {
            let message = format!("the secrets of one dyno have at most {MAX_BYTES} bytes in all");
            return Err(ApiError::new(ErrorKind::Invalid, message));
        };
        left = rest;
        Ok(value)
    };
    for (number, file) in spec.secrets.iter().enumerate() {
        let path = own.secret(number);
        let value = value(&file.name)?;
        let inside = (file.uid.unwrap_or(user.uid), file.gid.unwrap_or(user.gid));
        let owner = (record.uid_base + inside.0, record.uid_base + inside.1);
        write(&path, &value, file.mode.unwrap_or(0o400), owner)
            .map_err(|error| from_io(&format!("cannot give the secret {}", file.name), &error))?;
    }
    if spec.secret_env.is_empty() {
        return Ok(());
    }
    let mut lines = Vec::new();
    for (variable, name) in &spec.secret_env {
        lines.push(line(variable, name, value(name)?)?);
    }
    let json = serde_json::to_vec(&lines).map_err(|error| durable::internal(&error))?;
    write(&own.secret_env(), &json, 0o600, (0, 0))
        .map_err(|error| from_io("cannot give secrets as variables", &error))
}

/// A start that lacks a secret is refused as what it is: nothing is there to be found
/// by its client.
fn missing(error: SecretError) -> ApiError {
    let is_missing = matches!(error, SecretError::Missing(_));
    let mut refusal = ApiError::from(error);
    if is_missing {
        refusal.kind = ErrorKind::Conflict;
    }
    refusal
}

fn line(variable: &str, name: &SecretName, value: Vec<u8>) -> Result<String, ApiError> {
    let refused = |why: &str| {
        let message = format!("the secret {name} cannot be the variable {variable}: {why}");
        ApiError::new(ErrorKind::Invalid, message).hint("give it as a file: --secret")
    };
    if variable.len() + value.len() + 2 > MAX_VARIABLE {
        return Err(refused("it is too long for one"));
    }
    match String::from_utf8(value) {
        Ok(value) if !value.contains('\0') => Ok(format!("{variable}={value}")),
        _ => Err(refused("it is no text")),
    }
}

/// Owner first: nobody else ever sees the content.
fn write(path: &Path, bytes: &[u8], mode: u32, owner: (u32, u32)) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    fchown(&file, Some(owner.0), Some(owner.1))?;
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)
}

/// The variables of a dyno that runs, for one more process in it.
///
/// # Errors
/// When they are not there although it is given some.
pub(crate) fn variables(own: &DynoPaths, record: &Record) -> Result<Vec<String>, ApiError> {
    if record.spec.secret_env.is_empty() {
        return Ok(Vec::new());
    }
    let read = std::fs::read(own.secret_env())
        .map_err(|error| from_io("cannot read the dyno's secrets", &error))?;
    // What is wrong with it is not told: that would show a part of it.
    serde_json::from_slice(&read)
        .map_err(|_secret| ApiError::new(ErrorKind::Internal, "the dyno's secrets are damaged"))
}

/// Removes what a dyno was given.
///
/// # Errors
/// What the file system says.
pub(crate) fn take_back(own: &DynoPaths) -> Result<(), ApiError> {
    durable::remove_tree(&own.secrets)
        .map_err(|error| from_io(&format!("cannot remove {}", own.secrets.display()), &error))
}
