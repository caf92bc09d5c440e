//! Where everything of one host lives on disk.
//!
//! ```text
//! state_dir (0700)              survives a reboot
//!   host.json                   who this host is
//!   sequence                    the event number that was reserved last
//!   images/                     the image store
//!   dynos/<id>/dyno.json        desired state
//!   dynos/<id>/once.json        the key that it was created with, if any
//!   dynos/<id>/{upper,work}     the dyno's own layer
//!   dynos/<id>/checkpoints/     what its processes were, see `checkpoints`
//!   dynos/<id>/log*             its output, see runtime's `monitor::log::folder`
//!   drains/<name>/              where output is sent, and how much of it was
//!   volumes/<name>/             see `volumes::folders`
//!   secrets/<name>.json         encrypted
//!   tokens/<id>.json            who may ask from elsewhere; no secrets
//!   audit/<number>.jsonl        who changed what
//!   remote/ca.pem               what certificates of this host are signed by
//!   trash/                      what is being removed
//! run_dir (0711)                belongs to one boot
//!   hostd.sock hostd.lock boot
//!   dynos/<id>/                 bundle, monitor's socket and state
//!   secrets/<id>/               what dynos are given, in memory
//!   edge/
//!   trash/                      what is being removed
//! ```

use std::path::{Path, PathBuf};

use dyno_api::name::{DynoId, DynoName};

/// The two folders of one host, and the names within.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// State that outlives a reboot.
    pub state_dir: PathBuf,
    /// Sockets and bundles of this boot.
    pub run_dir: PathBuf,
}

impl Paths {
    /// Who this host is.
    pub fn host_record(&self) -> PathBuf {
        self.state_dir.join("host.json")
    }

    /// The event number that was reserved last.
    pub fn sequence(&self) -> PathBuf {
        self.state_dir.join("sequence.json")
    }

    /// Root of the image store.
    pub fn images(&self) -> PathBuf {
        self.state_dir.join("images")
    }

    /// One folder per drain.
    pub fn drains(&self) -> PathBuf {
        self.state_dir.join("drains")
    }

    /// What outlives a reboot of one drain.
    pub fn drain(&self, name: &DynoName) -> PathBuf {
        self.drains().join(name.as_str())
    }

    /// One folder per dyno.
    pub fn dynos(&self) -> PathBuf {
        self.state_dir.join("dynos")
    }

    /// What outlives a reboot of one dyno.
    pub fn dyno(&self, id: &DynoId) -> DynoPaths {
        DynoPaths {
            state: self.dynos().join(id.as_str()),
            run: self.run_dynos().join(id.as_str()),
            secrets: self.run_secrets().join(id.as_str()),
        }
    }

    /// All volumes, see `volumes::folders`.
    pub fn volumes(&self) -> PathBuf {
        self.state_dir.join("volumes")
    }

    /// A named volume.
    pub fn volume(&self, name: &DynoName) -> PathBuf {
        self.volumes().join(name.as_str())
    }

    /// Encrypted secrets.
    pub fn secrets(&self) -> PathBuf {
        self.state_dir.join("secrets")
    }

    /// Tokens, one file each.
    pub fn tokens(&self) -> PathBuf {
        self.state_dir.join("tokens")
    }

    /// Who changed what, see `audit`.
    pub fn audit(&self) -> PathBuf {
        self.state_dir.join("audit")
    }

    /// The certificate that those of the listener are signed by.
    pub fn authority(&self) -> PathBuf {
        self.state_dir.join("remote/ca.pem")
    }

    /// What dynos are given of them: a file system in memory, one folder per dyno.
    pub fn run_secrets(&self) -> PathBuf {
        self.run_dir.join("secrets")
    }

    /// One bundle folder per dyno.
    pub fn run_dynos(&self) -> PathBuf {
        self.run_dir.join("dynos")
    }

    /// Where folders of `state_dir` go to be removed.
    pub fn trash(&self) -> PathBuf {
        self.state_dir.join("trash")
    }

    /// Where folders of `run_dir` go to be removed.
    pub fn run_trash(&self) -> PathBuf {
        self.run_dir.join("trash")
    }

    /// Held while a hostd uses this run folder; the state folder is locked itself.
    pub fn lock(&self) -> PathBuf {
        self.run_dir.join("hostd.lock")
    }

    /// The boot that `run_dir` belongs to.
    pub fn boot(&self) -> PathBuf {
        self.run_dir.join("boot")
    }

    /// Where the API listens unless told otherwise.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("hostd.sock")
    }

    /// The edge's folder.
    pub fn edge(&self) -> PathBuf {
        self.run_dir.join("edge")
    }
}

/// The two folders of one dyno.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynoPaths {
    /// Desired state, own layer, logs.
    pub state: PathBuf,
    /// Bundle, socket, status.
    pub run: PathBuf,
    /// Secrets that it is given, in memory.
    pub secrets: PathBuf,
}

impl DynoPaths {
    /// Desired state.
    pub fn record(&self) -> PathBuf {
        self.state.join("dyno.json")
    }

    /// With which `Idempotency-Key` it was created.
    pub fn once(&self) -> PathBuf {
        self.state.join("once.json")
    }

    /// Overlay's writable layer.
    pub fn upper(&self) -> PathBuf {
        self.state.join("upper")
    }

    /// Overlay's scratch folder.
    pub fn work(&self) -> PathBuf {
        self.state.join("work")
    }

    /// One folder per checkpoint.
    pub fn checkpoints(&self) -> PathBuf {
        self.state.join("checkpoints")
    }

    /// Its log: a link to the newest file, which the files are named after.
    pub fn log(&self) -> PathBuf {
        self.state.join("log")
    }

    /// The OCI bundle's configuration.
    pub fn config(&self) -> PathBuf {
        self.run.join("config.json")
    }

    /// The monitor's configuration.
    pub fn monitor_config(&self) -> PathBuf {
        self.run.join("monitor.json")
    }

    /// The monitor's socket.
    pub fn monitor_socket(&self) -> PathBuf {
        self.run.join("monitor.sock")
    }

    /// What the monitor last wrote about its dyno.
    pub fn monitor_state(&self) -> PathBuf {
        self.run.join("state.json")
    }

    /// It is there once a hostd has begun to take down what is left of the dyno.
    pub fn condemned(&self) -> PathBuf {
        self.run.join("condemned")
    }

    /// Where the dyno says how it is.
    pub fn notify_socket(&self) -> PathBuf {
        self.run.join("notify.sock")
    }

    /// What its checks said.
    pub fn health(&self) -> PathBuf {
        self.run.join("health.json")
    }

    /// The empty folder that the root file system is mounted over.
    pub fn rootfs(&self) -> PathBuf {
        self.run.join("rootfs")
    }

    /// A secret that it is given as a file, by its place in the specification.
    pub fn secret(&self, number: usize) -> PathBuf {
        self.secrets.join(number.to_string())
    }

    /// Secrets that it is given as variables.
    pub fn secret_env(&self) -> PathBuf {
        self.secrets.join("env.json")
    }

    /// A configuration file, by its place in the specification.
    pub fn config_file(&self, number: usize) -> PathBuf {
        self.file(&format!("config-{number}"))
    }

    /// Generated small files: hosts, resolv.conf, hostname.
    pub fn file(&self, name: &str) -> PathBuf {
        self.run.join("files").join(name)
    }
}

/// The text of a path; lossy only for paths that the configuration, which is
/// checked for UTF-8, cannot name.
pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
