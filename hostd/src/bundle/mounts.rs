//! What a dyno sees as its file system.

use std::path::Path;

use dyno_api::dyno::{Mount as Wanted, NetMode};
use dyno_api::error::ApiError;
use dyno_api::secret::SecretFile;
use oci_spec::runtime::{Mount, MountBuilder};

use super::{BundleError, Inputs};
use crate::admission::invalid;
use crate::paths::text;

/// Where a dyno says how it is, inside.
pub(super) const NOTIFY_SOCKET: &str = "/run/notify.sock";
const DEFAULT_SHM: u64 = 64 << 20;
const DEFAULT_TMPFS: u64 = 64 << 20;
/// How a single file of the host's is shown.
const SMALL_FILE: [&str; 6] = ["bind", "rprivate", "ro", "nosuid", "noexec", "nodev"];

pub(super) fn mounts(inputs: &Inputs<'_>) -> Result<Vec<Mount>, BundleError> {
    let mut mounts = vec![root(inputs)?];
    mounts.extend(kernel_file_systems(inputs)?);
    for folder in &inputs.record.image.binds {
        let options = ["bind", "rprivate", "ro", "nosuid", "nodev"];
        mounts.push(bind(&text(&folder.source), &folder.target, &options)?);
    }
    mounts.extend(wanted(inputs)?);
    mounts.extend(small_files(inputs)?);
    mounts.extend(given(inputs)?);
    if inputs.record.spec.health.notify {
        let socket = text(&inputs.paths.dyno(&inputs.record.id).notify_socket());
        mounts.push(bind(&socket, NOTIFY_SOCKET, &SMALL_FILE)?);
    }
    Ok(mounts)
}

/// Overlay of the image's layers and the dyno's own; the runtime idmaps every layer (P3).
fn root(inputs: &Inputs<'_>) -> Result<Mount, BundleError> {
    let own = inputs.paths.dyno(&inputs.record.id);
    let mut layers = Vec::new();
    for layer in &inputs.record.image.folders {
        layers.push(layer_text(layer)?);
    }
    let mut options = vec![
        format!("lowerdir={}", layers.join(":")),
        format!("upperdir={}", layer_text(&own.upper())?),
        format!("workdir={}", layer_text(&own.work())?),
        "userxattr".to_owned(),
    ];
    if inputs.record.spec.rm {
        // What is removed at its end needs no sync of the whole disk before.
        options.push("volatile".to_owned());
    }
    Ok(MountBuilder::default()
        .destination("/")
        .typ("overlay")
        .source("overlay")
        .options(options)
        .build()?)
}

/// A path that the option string can carry.
fn layer_text(path: &Path) -> Result<String, ApiError> {
    match path.to_str() {
        Some(text) if !text.contains([':', ',', '\\']) => Ok(text.to_owned()),
        _ => Err(invalid(format!(
            "the state folder's path {} cannot be used by overlayfs",
            path.display()
        ))
        .hint("choose a state folder without `:`, `,` and `\\` in its path")),
    }
}

fn kernel_file_systems(inputs: &Inputs<'_>) -> Result<Vec<Mount>, BundleError> {
    let spec = &inputs.record.spec;
    let shm = format!("size={}", spec.shm_size_bytes.unwrap_or(DEFAULT_SHM));
    let quiet = ["nosuid", "noexec", "nodev"];
    // sysfs belongs to a network namespace; the host's own can only be shown.
    let sys = if spec.net == NetMode::Host {
        bind(
            "/sys",
            "/sys",
            &["rbind", "rprivate", "ro", "nosuid", "noexec", "nodev"],
        )?
    } else {
        kernel("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"])?
    };
    Ok(vec![
        kernel("proc", "/proc", &quiet)?,
        kernel(
            "tmpfs",
            "/dev",
            &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"],
        )?,
        kernel(
            "devpts",
            "/dev/pts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        )?,
        kernel(
            "tmpfs",
            "/dev/shm",
            &["nosuid", "noexec", "nodev", "mode=1777", &shm],
        )?,
        kernel("mqueue", "/dev/mqueue", &quiet)?,
        sys,
        // P16: its own cgroup, to read.
        kernel(
            "cgroup",
            "/sys/fs/cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        )?,
    ])
}

/// Parents before children, whatever the order of the request.
fn wanted(inputs: &Inputs<'_>) -> Result<Vec<Mount>, BundleError> {
    let mut mounts = Vec::new();
    for mount in &inputs.record.spec.mounts {
        mounts.push(match mount {
            Wanted::Volume {
                name,
                target,
                read_only,
            } => {
                let source = text(&inputs.paths.volume(name));
                bind(
                    &source,
                    target,
                    &[
                        "bind",
                        "rprivate",
                        "nosuid",
                        "nodev",
                        "idmap",
                        access(*read_only),
                    ],
                )?
            }
            Wanted::Bind {
                source,
                target,
                read_only,
            } => {
                let mut options = vec!["rbind", "rprivate", "nosuid", "nodev", access(*read_only)];
                if inputs.idmapped.contains(source) {
                    // With the mounts below it, which come along.
                    options.push("ridmap");
                }
                bind(source, target, &options)?
            }
            Wanted::Tmpfs { target, size_bytes } => {
                let size = format!("size={}", size_bytes.unwrap_or(DEFAULT_TMPFS));
                kernel("tmpfs", target, &["nosuid", "nodev", "mode=1777", &size])?
            }
        });
    }
    mounts.sort_by_key(|mount| mount.destination().components().count());
    Ok(mounts)
}

fn access(read_only: bool) -> &'static str {
    if read_only { "ro" } else { "rw" }
}

/// P19: generated on the host's tmpfs, read-only inside.
fn small_files(inputs: &Inputs<'_>) -> Result<Vec<Mount>, BundleError> {
    let own = inputs.paths.dyno(&inputs.record.id);
    let spec = &inputs.record.spec;
    let targets: Vec<String> = spec
        .mounts
        .iter()
        .map(|mount| target(mount).to_owned())
        .chain(spec.secrets.iter().map(SecretFile::path))
        .chain(spec.config_files.iter().map(|file| file.target.clone()))
        .collect();
    ["hosts", "resolv.conf", "hostname"]
        .iter()
        .map(|name| (name, format!("/etc/{name}")))
        // Who mounts their own file there wants that one.
        .filter(|(_, path)| !targets.contains(path))
        .map(|(name, path)| bind(&text(&own.file(name)), &path, &SMALL_FILE))
        .collect()
}

/// P19: secrets and configuration files, where the request has them.
fn given(inputs: &Inputs<'_>) -> Result<Vec<Mount>, BundleError> {
    let own = inputs.paths.dyno(&inputs.record.id);
    let spec = &inputs.record.spec;
    let secrets = spec.secrets.iter().enumerate();
    let secrets = secrets.map(|(number, file)| (own.secret(number), file.path()));
    let files = spec.config_files.iter().enumerate();
    let files = files.map(|(number, file)| (own.config_file(number), file.target.clone()));
    secrets
        .chain(files)
        .map(|(source, target)| bind(&text(&source), &target, &SMALL_FILE))
        .collect()
}

fn target(mount: &Wanted) -> &str {
    match mount {
        Wanted::Volume { target, .. }
        | Wanted::Bind { target, .. }
        | Wanted::Tmpfs { target, .. } => target,
    }
}

fn kernel(kind: &str, target: &str, options: &[&str]) -> Result<Mount, BundleError> {
    Ok(MountBuilder::default()
        .destination(target)
        .typ(kind)
        .source(kind)
        .options(owned(options))
        .build()?)
}

fn bind(source: &str, target: &str, options: &[&str]) -> Result<Mount, BundleError> {
    Ok(MountBuilder::default()
        .destination(target)
        .typ("bind")
        .source(source)
        .options(owned(options))
        .build()?)
}

fn owned(options: &[&str]) -> Vec<String> {
    options.iter().map(|option| (*option).to_owned()).collect()
}
