//! `checkpoint`: saves a running container's processes by CRIU, and removes it unless
//! it shall go on. Whatever fails, the container runs on.

use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oci_spec::runtime::{LinuxNamespaceType as Kind, Mount};

use super::{Failure, lifecycle};
use crate::cgroup::Cgroup;
use crate::criu::{self, Criu, External, Image, NETWORK, Outside, lock, word};
use crate::plan::made_by_the_hosts_root;
use crate::spec::Bundle;
use crate::state::{Record, StateDir, StateRoot, Status};

// Arguments of `checkpoint`: runc's.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Checkpoint {
    #[command(flatten)]
    pub(super) common: Common,
    /// Folder of an earlier --pre-dump, relative to the images
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// Let the container go on
    #[arg(long)]
    pub(super) leave_running: bool,
    /// Leave out TCP connections that are not yet established
    #[arg(long)]
    tcp_skip_in_flight: bool,
    /// Save files that are open and have no name any more by giving them one
    #[arg(long)]
    link_remap: bool,
    /// Save memory alone, for a later checkpoint to build on; the container goes on
    #[arg(long)]
    pre_dump: bool,
    /// Leave it stopped, to be killed or to go on with SIGCONT
    #[arg(skip)]
    pub(super) leave_stopped: bool,
    /// The container
    id: String,
}

/// What `checkpoint` and `restore` have in common.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Common {
    /// Folder of the images
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    pub(super) image_path: PathBuf,
    /// Folder of CRIU's log [default: that of the images]
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// With established TCP connections
    #[arg(long)]
    pub(super) tcp_established: bool,
    /// With Unix sockets whose other end is outside
    #[arg(long)]
    ext_unix_sk: bool,
    /// With the terminal of a shell that it was started from
    #[arg(long)]
    shell_job: bool,
    /// With locks of files
    #[arg(long)]
    file_locks: bool,
    /// Make the namespace anew without what is in it: network
    #[arg(long, value_name = "NAMESPACE")]
    pub(super) empty_ns: Vec<String>,
    /// Drop from older images what newer ones have
    #[arg(long)]
    pub(super) auto_dedup: bool,
    /// Only `ignore`: cgroups are always made as config.json says
    #[arg(long, value_name = "MODE")]
    manage_cgroups_mode: Option<String>,
    /// Refused
    #[arg(long, hide = true)]
    lazy_pages: bool,
    /// Refused
    #[arg(long, hide = true)]
    page_server: Option<String>,
    /// Refused
    #[arg(long, hide = true)]
    status_fd: Option<i32>,
}

impl Common {
    /// Refuses what is asked for and cannot be done, by its name.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let mode = self.manage_cgroups_mode.as_deref();
        let refused = match () {
            () if self.lazy_pages => "--lazy-pages: memory is brought back at once",
            () if self.page_server.is_some() => "--page-server: images go to a folder",
            () if self.status_fd.is_some() => "--status-fd: it tells of --lazy-pages",
            () if mode.is_some_and(|mode| mode != "ignore") => {
                "--manage-cgroups-mode other than ignore: cgroups are made as config.json says"
            }
            () if self.empty_ns.iter().any(|name| name != "network") => {
                "--empty-ns of anything but network"
            }
            () => return Ok(()),
        };
        Err(format!("not supported: {refused}").into())
    }

    /// CRIU's words for these, and where it writes its log.
    pub(super) fn say(&self, command: &mut Command, log: &str) -> Result<PathBuf, Failure> {
        let work = self.work_path.as_ref().unwrap_or(&self.image_path);
        make(work)?;
        let images = self.image_path.canonicalize()?;
        let log = criu::say_folders(command, &images, &work.canonicalize()?, log);
        for (asked, word) in [
            (self.tcp_established, "--tcp-established"),
            (self.ext_unix_sk, "--ext-unix-sk"),
            (self.shell_job, "--shell-job"),
            (self.file_locks, "--file-locks"),
            (self.auto_dedup, "--auto-dedup"),
            (!self.empty_ns.is_empty(), "--empty-ns=net"),
        ] {
            if asked {
                command.arg(word);
            }
        }
        Ok(log)
    }
}

impl Checkpoint {
    /// Refuses what `restore` could not use.
    fn fits(&self, bundle: &Bundle) -> Result<(), Failure> {
        let older = self.pre_dump || self.parent_path.is_some();
        if older && bundle.namespace(Kind::User).is_some() {
            let refused = "--pre-dump and --parent-path with a user namespace: its root would \
                have to walk to the older images";
            return Err(format!("not supported: {refused}").into());
        }
        Ok(())
    }

    /// CRIU's words for what is of `checkpoint` alone.
    fn words(&self) -> Vec<OsString> {
        let asked = [
            (self.pre_dump || self.parent_path.is_some(), "--track-mem"),
            (self.leave_running && !self.pre_dump, "--leave-running"),
            (self.leave_stopped, "--leave-stopped"),
            (self.tcp_skip_in_flight, "--skip-in-flight"),
            (self.link_remap, "--link-remap"),
        ];
        let asked = asked.into_iter().filter(|(asked, _)| *asked);
        let mut words: Vec<OsString> = asked.map(|(_, word)| word.into()).collect();
        let parent = self.parent_path.as_ref();
        words.extend(parent.map(|parent| word("--prev-images-dir=", parent)));
        words
    }
}

/// Saves a container.
pub(super) fn checkpoint(states: &StateRoot, args: &Checkpoint) -> Result<(), Failure> {
    let (state, record, bundle) = saved(states, args).map_err(|error| {
        let error = super::words(error.as_ref());
        format!("cannot checkpoint: {error}; the container is left as it is")
    })?;
    match args.leave_running || args.pre_dump {
        true => Ok(()),
        false => lifecycle::remove(state, &record, Some(&bundle)),
    }
}

fn saved(states: &StateRoot, args: &Checkpoint) -> Result<(StateDir, Record, Bundle), Failure> {
    args.common.check()?;
    let state = states.open(&args.id)?;
    let record = state.read()?;
    match record.status(&state)? {
        Status::Running => {}
        status => return Err(format!("it is {}, not running", status.as_str()).into()),
    }
    let bundle = lifecycle::bundle(&state, &record)?;
    fits(&bundle)?;
    args.fits(&bundle)?;
    let criu = Criu::ready()?;
    let cgroup = Cgroup::open(record.cgroup.clone())?;
    has_only_descendants(&cgroup, record.pid)?;
    promises_alike(&bundle, &cgroup)?;
    dump(&criu, &bundle, record.pid, args)?;
    Ok((state, record, bundle))
}

/// Refuses a container of which CRIU, as it is driven here, would lose something.
pub(crate) fn fits(bundle: &Bundle) -> Result<(), criu::Error> {
    let unfit = |what: &str| Err(criu::Error::Unfit(what.to_owned()));
    let process = bundle.spec().process().as_ref();
    if process.and_then(|process| process.terminal()) == Some(true) {
        return unfit("process.terminal is true: nobody would hold the other end");
    }
    let mounts = bundle.spec().mounts().as_deref().unwrap_or_default();
    let on_root = |mount: &Mount| mount.destination() == Path::new("/");
    if mounts.iter().skip(1).any(on_root) {
        return unfit("config.json mounts something on /, and not first");
    }
    for kind in [Kind::Pid, Kind::Mount] {
        if bundle.namespace(kind) != Some(None) {
            return unfit("it has not a pid and a mount namespace of its own");
        }
    }
    for kind in [Kind::User, Kind::Ipc, Kind::Uts, Kind::Cgroup, Kind::Time] {
        if bundle.namespace(kind).flatten().is_some() {
            return unfit("it has joined a namespace that is not a network");
        }
    }
    Ok(())
}

/// CRIU 3.17 does not save `no_new_privs`: `restore` sets it for all processes or none.
pub(super) fn promises_alike(bundle: &Bundle, cgroup: &Cgroup) -> Result<(), Failure> {
    let process = bundle.spec().process().as_ref();
    if process.and_then(|process| process.no_new_privileges()) == Some(true) {
        return Ok(());
    }
    for pid in cgroup.procs()? {
        let pid = pid.as_raw_nonzero();
        // One that has ended needs no saving.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let promise = status
            .lines()
            .find_map(|line| line.strip_prefix("NoNewPrivs:"));
        if promise.is_some_and(|promise| promise.trim() != "0") {
            return Err(format!(
                "process {pid} has given up gaining privileges (no_new_privs), which would not \
                 come back: process.noNewPrivileges in config.json gives them up for all"
            )
            .into());
        }
    }
    Ok(())
}

/// CRIU saves the first process and those below it: one of `exec` is below nobody.
pub(super) fn has_only_descendants(cgroup: &Cgroup, init: i32) -> Result<(), Failure> {
    for pid in cgroup.procs()? {
        let mut above = pid.as_raw_nonzero().get();
        while above > 1 && above != init {
            let stat = std::fs::read_to_string(format!("/proc/{above}/stat")).unwrap_or_default();
            let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
            let parent = fields.split_ascii_whitespace().nth(1);
            above = parent.and_then(|pid| pid.parse().ok()).unwrap_or(init);
        }
        if above != init {
            let pid = pid.as_raw_nonzero();
            return Err(format!("process {pid} came by exec and could not be saved").into());
        }
    }
    Ok(())
}

/// Has CRIU save a container's first process and those below it.
pub(super) fn dump(
    criu: &Criu,
    bundle: &Bundle,
    pid: i32,
    args: &Checkpoint,
) -> Result<(), Failure> {
    make(&args.common.image_path)?;
    let mountinfo = std::fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    let mounts = bundle.spec().mounts().as_deref().unwrap_or_default();
    let network = bundle.namespace(Kind::Network).flatten().is_some();
    let external = External::of(&mountinfo, mounts, &made_by_the_hosts_root(bundle)?)?;
    let saved = criu::saved(&mountinfo, &external);
    let mut image = Image::new(
        external,
        saved,
        Outside::of(pid, &criu::ids(&mountinfo))?,
        network,
    );
    image.tcp_established = args.common.tcp_established;
    let verb = if args.pre_dump { "pre-dump" } else { "dump" };
    let mut command = Command::new(criu.path());
    command
        .arg(verb)
        .args(["--tree", &pid.to_string(), "--enable-external-masters"])
        // By its library: the other way executes programs of another package.
        .arg("--network-lock=nftables")
        .arg(word("--root=", bundle.rootfs().canonicalize()?))
        .stdin(Stdio::null());
    let log = args.common.say(&mut command, "dump.log")?;
    command.args(args.words());
    for external in &image.mounts {
        let (target, key) = (&external.target, &external.key);
        command.args(["--external", &format!("mnt[{target}]:{key}")]);
    }
    for stream in image
        .streams
        .iter()
        .filter(|stream| stream.name.starts_with("file["))
    {
        command.args(["--external", &stream.name]);
    }
    // Held open: nobody of the container may be left to name it by.
    let network = match network {
        true => Some(File::open(format!("/proc/{pid}/ns/net"))?),
        false => None,
    };
    if let Some(network) = &network {
        let inode = network.metadata()?.ino();
        command.args(["--external", &format!("net[{inode}]:{NETWORK}")]);
    }
    if args.pre_dump {
        Criu::run(verb, &mut command, log)?;
        return Ok(criu::close(&args.common.image_path)?);
    }
    // Before: once it is saved the container is gone, and this is needed.
    image.write(&args.common.image_path)?;
    // There may be no nftables yet.
    let tables = |network: &File| lock::tables(network.as_fd()).unwrap_or_default();
    let before = network.as_ref().map(tables).unwrap_or_default();
    Criu::run(verb, &mut command, log).inspect_err(|_| Image::remove(&args.common.image_path))?;
    if let Err(error) = criu::close(&args.common.image_path) {
        // Nobody but root walks through their folder.
        super::warn(&super::words(&error));
    }
    let Some(network) = network.filter(|_| !args.leave_running) else {
        return Ok(());
    };
    let locked = tables(&network).into_iter();
    for table in locked.filter(|table| !before.contains(table)) {
        let settled = match args.common.tcp_established {
            // Else the other ends would hear that their connections are gone.
            true => {
                image.lock = Some(table.clone());
                image
                    .write(&args.common.image_path)
                    .map_err(|error| super::words(&error))
            }
            false => lock::release(network.as_fd(), &table).map_err(|errno| errno.to_string()),
        };
        // It is saved, and there is no way back.
        if let Err(reason) = settled {
            super::warn(&format!(
                "the network that the container had joined stays locked by table inet {table}, \
                 which nft can delete: {reason}"
            ));
        }
    }
    Ok(())
}

/// Makes a folder for memory of processes, which is nobody else's business.
fn make(folder: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| format!("make {}: {error}", folder.display()).into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        checkpoint: Checkpoint,
    }

    /// What CRIU is told, without its folders.
    fn told(flags: &str, images: &Path) -> String {
        let images = images.to_str().unwrap();
        let words = ["checkpoint", "--image-path", images]
            .into_iter()
            .chain(flags.split_ascii_whitespace())
            .chain(["x"]);
        let args = Line::try_parse_from(words).unwrap().checkpoint;
        let mut command = Command::new("criu");
        args.common.say(&mut command, "log").unwrap();
        command.args(args.words());
        let told = command
            .get_args()
            .skip(5)
            .map(|word| word.to_str().unwrap());
        told.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_flag_becomes_the_word_that_criu_has_for_it() {
        let images = tempfile::tempdir().unwrap();
        for (flags, words) in [
            ("", ""),
            ("--tcp-established", "--tcp-established"),
            ("--tcp-skip-in-flight", "--skip-in-flight"),
            ("--ext-unix-sk", "--ext-unix-sk"),
            ("--shell-job", "--shell-job"),
            ("--file-locks", "--file-locks"),
            ("--link-remap", "--link-remap"),
            ("--auto-dedup", "--auto-dedup"),
            ("--empty-ns network", "--empty-ns=net"),
            ("--leave-running", "--leave-running"),
            ("--pre-dump", "--track-mem"),
            // It goes on in any case, and `criu pre-dump` does not know the word.
            ("--pre-dump --leave-running", "--track-mem"),
            ("--parent-path ../a", "--track-mem --prev-images-dir=../a"),
            ("--manage-cgroups-mode ignore", ""),
        ] {
            assert_eq!(told(flags, images.path()), words, "{flags}");
        }
    }
}
