//! `save`: a checkpoint of a dyno, by a process of its monitor's. Its images get their
//! name when all of them are on the disk; its processes are left stopped then, or run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxNamespaceType as Kind;

use super::Failure;
use super::checkpoint::{Checkpoint, dump, fits, has_only_descendants, promises_alike};
use crate::cgroup::{self, Cgroup};
use crate::criu::{self, Criu};
use crate::monitor::protocol as monitor;
use crate::spec::Bundle;

/// How long a process of `exec`, as a check is, may take to end.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

// Arguments of `save`.
#[derive(Debug, clap::Args)]
pub(super) struct Save {
    /// The dyno's run folder
    dir: PathBuf,
    /// Its first process
    #[arg(long)]
    pid: i32,
    /// Record of its cgroup
    #[arg(long)]
    cgroup: String,
    /// What is wanted, as JSON
    #[arg(long)]
    wanted: String,
}

/// Saves it; why not is told as JSON on standard output.
pub(super) fn save(args: &Save) -> u8 {
    let Err(failure) = saved(args) else {
        return 0;
    };
    if let Err(error) = serde_json::to_writer(std::io::stdout(), &failure) {
        super::warn(&error.to_string());
    }
    1
}

fn saved(args: &Save) -> Result<(), monitor::Failure> {
    let wanted: monitor::Checkpoint =
        serde_json::from_str(&args.wanted).map_err(|error| internal(&error))?;
    let bundle = Bundle::load(&args.dir).map_err(|error| internal(&error))?;
    fits(&bundle).map_err(|error| monitor::Failure::from(&error))?;
    let criu = Criu::at(&wanted.criu).map_err(|error| monitor::Failure::from(&error))?;
    let record: cgroup::Record =
        serde_json::from_str(&args.cgroup).map_err(|error| internal(&error))?;
    let cgroup = Cgroup::open(record).map_err(|error| internal(&error))?;
    alone(&cgroup, args.pid).map_err(|failure| conflict(&failure))?;
    promises_alike(&bundle, &cgroup).map_err(|failure| conflict(&failure))?;
    let partial = wanted.images.with_extension("partial");
    let taken = take(&criu, &bundle, args.pid, &wanted, &partial);
    if taken.is_err() {
        // What is left of it is swept by whoever makes the next one.
        fs::remove_dir_all(&partial).ok();
    }
    taken
}

fn take(
    criu: &Criu,
    bundle: &Bundle,
    pid: i32,
    wanted: &monitor::Checkpoint,
    partial: &Path,
) -> Result<(), monitor::Failure> {
    if partial.exists() {
        fs::remove_dir_all(partial).map_err(|error| internal(&error))?;
    }
    let mut checkpoint = Checkpoint::default();
    checkpoint.leave_running = wanted.leave_running;
    checkpoint.leave_stopped = !wanted.leave_running;
    let common = &mut checkpoint.common;
    partial.clone_into(&mut common.image_path);
    common.tcp_established = wanted.tcp_established;
    if bundle.namespace(Kind::Network) == Some(None) {
        // It is made anew with the dyno, and plumbed.
        common.empty_ns.push("network".to_owned());
    }
    dump(criu, bundle, pid, &checkpoint).map_err(|failure| of_criu(&failure))?;
    keep(partial, &wanted.images).map_err(|error| internal(&error))
}

/// Brings images to the disk, then under their name.
fn keep(partial: &Path, images: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(partial)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(partial)?.sync_all()?;
    fs::rename(partial, images)?;
    match images.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Waits until there is nobody who came by `exec`.
fn alone(cgroup: &Cgroup, init: i32) -> Result<(), Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        match has_only_descendants(cgroup, init) {
            Err(_) if Instant::now() < until => std::thread::sleep(LOOK_AGAIN),
            found => return found,
        }
    }
}

fn internal(error: &dyn std::error::Error) -> monitor::Failure {
    monitor::Failure::new(monitor::FailureKind::Internal, super::words(error))
}

fn conflict(failure: &Failure) -> monitor::Failure {
    let message = super::words(failure.as_ref());
    monitor::Failure::new(monitor::FailureKind::Conflict, message)
}

/// CRIU could not save this dyno as it is now.
fn of_criu(failure: &Failure) -> monitor::Failure {
    match failure.downcast_ref::<criu::Error>() {
        Some(error) => error.into(),
        None => internal(failure.as_ref()),
    }
}
