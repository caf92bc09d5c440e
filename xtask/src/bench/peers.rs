//! Who is compared with whom, by which command lines.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::contest::{Comparison, Contestant, Limit};
use super::host::Host;
use super::programs;
use super::root::Root;
use super::runner::Commands;

/// How everybody calls the container; one after the other.
const NAME: &str = "bench";
/// Podman's name of the image.
const IMAGE: &str = "localhost/bench";
/// Given because Podman's defaults may be above a machine's.
const LIMITS: [&str; 2] = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"];
/// Podman's name of the large image.
const TREE: &str = "localhost/bench-tree";

/// Everybody, ready to be compared.
pub(super) struct Peers<'a> {
    root: &'a Root,
    host: Option<&'a Host>,
    floor: Vec<String>,
    runtime: Oci,
    runc: Oci,
    crun: Oci,
    podman: Podman,
}

impl<'a> Peers<'a> {
    /// Our programs are in `programs`; without a `host` the daemon takes no part.
    pub(super) fn new(programs: &Path, root: &'a Root, host: Option<&'a Host>) -> Result<Self> {
        let floor = programs::build(root.folder(), programs::FLOOR)?;
        Ok(Self {
            floor: vec![text(&floor)?, text(&root.rootfs())?, "/bin/true".into()],
            runtime: Oci::new(text(&programs.join("dyno-runtime"))?, &[], root)?,
            runc: Oci::new("runc".into(), &[], root)?,
            crun: Oci::new("crun".into(), &["--cgroup-manager=disabled"], root)?,
            podman: Podman::new(root)?,
            root,
            host,
        })
    }

    /// All comparisons.
    pub(super) fn comparisons(&self) -> Result<Vec<Comparison>> {
        let filtered = self.host.map(|host| self.filtered(host)).transpose()?;
        let mut all = vec![self.container()];
        all.extend(filtered);
        all.extend([self.bundle(), self.without_network(), self.with_network()]);
        all.push(self.import()?);
        Ok(all)
    }

    /// Podman's container in the background.
    pub(super) fn background(&self) -> Background {
        self.podman.background()
    }

    /// Our runtime's `run`, to be completed by a container's name.
    pub(super) fn run_unnamed(&self) -> Vec<String> {
        self.runtime.run_unnamed()
    }

    fn container(&self) -> Comparison {
        let run = |name, shown, oci: &Oci| Contestant::new(name, shown, vec![oci.run()]);
        let floor = Contestant::new("floor", "the kernel's part alone", vec![self.floor.clone()]);
        Comparison {
            title: "an OCI bundle: run".into(),
            rounds_divisor: 1,
            contestants: vec![
                run("dyno-runtime", "dyno-runtime run", &self.runtime),
                floor,
                run("runc", "runc run", &self.runc),
                over_v2(run("crun", "crun run, without cgroups", &self.crun)),
            ],
            target: Some(("floor", Limit::Share(1.4))),
            is_steady: true,
        }
    }

    /// The same with the seccomp profile that dynos get.
    fn filtered(&self, host: &Host) -> Result<Comparison> {
        let bundle = text(&self.root.filtered(&host.seccomp()?)?)?;
        let run = |name, shown, oci: &Oci| {
            let command = with(&oci.words, &["run", "--bundle", &bundle, NAME]);
            Contestant::new(name, shown, vec![command])
        };
        let plain = vec![self.runtime.run()];
        Ok(Comparison {
            title: "an OCI bundle with the seccomp profile of dynos: run".into(),
            rounds_divisor: 1,
            contestants: vec![
                run("dyno-runtime", "dyno-runtime run", &self.runtime),
                Contestant::new("plain", "dyno-runtime run, without a profile", plain),
                run("runc", "runc run", &self.runc),
                over_v2(run("crun", "crun run, without cgroups", &self.crun)),
            ],
            target: Some(("plain", Limit::More(Duration::from_micros(300)))),
            is_steady: true,
        })
    }

    /// `run` of those runtimes whose peak of memory is of interest, and whether
    /// /sys/fs/cgroup must be the v2 tree.
    pub(super) fn runs(&self) -> [(&'static str, Vec<String>, bool); 3] {
        [
            ("dyno-runtime", self.runtime.words.clone(), false),
            ("runc", self.runc.words.clone(), false),
            ("crun", self.crun.words.clone(), true),
        ]
    }

    fn bundle(&self) -> Comparison {
        let contestant = |name, shown, oci: &Oci| Contestant::new(name, shown, oci.life());
        let ours = contestant(
            "dyno-runtime",
            "dyno-runtime create, start, delete",
            &self.runtime,
        );
        let runc = contestant("runc", "runc create, start, delete", &self.runc);
        let crun = contestant("crun", "crun create, start, delete", &self.crun);
        Comparison {
            title: "an OCI bundle: create, start, delete".into(),
            rounds_divisor: 1,
            contestants: vec![ours, runc, over_v2(crun)],
            target: None,
            is_steady: false,
        }
    }

    fn without_network(&self) -> Comparison {
        let options = ["--net", "none"];
        let runc = Contestant::new("runc", "runc run", vec![self.runc.run()]);
        let crun = Contestant::new("crun", "crun run", vec![self.crun.run()]);
        let podman = self
            .podman
            .run("podman run --rm --net none IMAGE /bin/true", &options);
        let ours = self.dyno("dyno run --rm --net none IMAGE /bin/true", |host| {
            vec![host.run(&options)]
        });
        Comparison {
            title: "run /bin/true, without a network".into(),
            rounds_divisor: 1,
            contestants: ours
                .into_iter()
                .chain([runc, over_v2(crun), podman])
                .collect(),
            target: Some(("runc", Limit::Share(0.5))),
            is_steady: false,
        }
    }

    fn with_network(&self) -> Comparison {
        let podman = self.podman.run("podman run --rm IMAGE /bin/true", &[]);
        let ours = self.dyno("dyno run --rm IMAGE /bin/true", |host| vec![host.run(&[])]);
        Comparison {
            title: "run /bin/true, with a network".into(),
            rounds_divisor: 1,
            contestants: ours.into_iter().chain([podman]).collect(),
            target: Some(("podman", Limit::Share(0.15))),
            is_steady: false,
        }
    }

    fn import(&self) -> Result<Comparison> {
        let tree = self.root.tree()?;
        let archive = text(&tree.archive)?;
        let podman = self.podman.import("podman import and rmi", &archive);
        let ours = self.dyno("dyno import and rmi", |host| {
            host.import_and_remove(&archive)
        });
        Ok(Comparison {
            title: format!(
                "import an archive of {} MB in {} files",
                tree.megabytes, tree.files
            ),
            rounds_divisor: 8,
            contestants: ours.into_iter().chain([podman]).collect(),
            target: None,
            is_steady: false,
        })
    }

    fn dyno(
        &self,
        shown: &'static str,
        commands: impl FnOnce(&Host) -> Commands,
    ) -> Option<Contestant> {
        self.host
            .map(|host| Contestant::new("dyno", shown, commands(host)))
    }
}

/// A container in the background, as somebody else makes one.
pub(super) struct Background {
    pub(super) shown: &'static str,
    pub(super) start: Vec<String>,
    /// What is done after it was timed.
    pub(super) remove: Commands,
    /// So much faster ours shall be.
    pub(super) faster_by: Option<f64>,
}

/// Debian's crun refuses a hybrid hierarchy.
fn over_v2(contestant: Contestant) -> Contestant {
    Contestant {
        needs_v2: true,
        ..contestant
    }
}

/// A runtime with the OCI command line.
struct Oci {
    words: Vec<String>,
    bundle: String,
}

impl Oci {
    fn new(program: String, options: &[&str], root: &Root) -> Result<Self> {
        let name = Path::new(&program).file_name().context("no program")?;
        // Below /run, as by everybody's default: in memory.
        let state = text(&Path::new("/run/bench").join(name))?;
        let mut words = vec![program, "--root".into(), state];
        words.extend(options.iter().map(ToString::to_string));
        let bundle = text(&root.bundle_folder())?;
        Ok(Self { words, bundle })
    }

    fn run(&self) -> Vec<String> {
        with(&self.run_unnamed(), &[NAME])
    }

    fn run_unnamed(&self) -> Vec<String> {
        with(&self.words, &["run", "--bundle", &self.bundle])
    }

    /// A container's whole life. The payload may still run when it is deleted:
    /// everybody kills it then.
    fn life(&self) -> Commands {
        vec![
            with(&self.words, &["create", "--bundle", &self.bundle, NAME]),
            with(&self.words, &["start", NAME]),
            with(&self.words, &["delete", "--force", NAME]),
        ]
    }
}

/// Podman with a store of its own, and with runc as its runtime.
struct Podman {
    words: Vec<String>,
    archive: String,
}

impl Podman {
    fn new(root: &Root) -> Result<Self> {
        let store = text(&root.folder().join("podman"))?;
        let own = ["podman", "--root", &store, "--runroot", "/run/bench/podman"];
        let rest = [
            "--tmpdir=/run/podman-tmp",
            "--storage-driver=overlay",
            "--cgroup-manager=cgroupfs",
            "--runtime=runc",
            "--events-backend=none",
        ];
        Ok(Self {
            words: own.iter().chain(&rest).map(ToString::to_string).collect(),
            archive: text(&root.archive())?,
        })
    }

    fn run(&self, shown: &'static str, network: &[&str]) -> Contestant {
        let arguments = [&["run", "--rm"], network, &LIMITS, &[IMAGE, "/bin/true"]].concat();
        let import = with(&self.words, &["import", "--quiet", &self.archive, IMAGE]);
        Contestant {
            set_up: vec![import],
            ..Contestant::new("podman", shown, vec![with(&self.words, &arguments)])
        }
    }

    /// Its image is there once [`Self::run`] was set up.
    fn background(&self) -> Background {
        let run = [
            &["run", "-d", "--name", NAME],
            &LIMITS[..],
            &[IMAGE, "/bin/sleep", "60"],
        ];
        Background {
            shown: "podman run -d, with its bridge",
            start: with(&self.words, &run.concat()),
            remove: vec![with(&self.words, &["rm", "--force", "--time", "0", NAME])],
            faster_by: Some(12.0),
        }
    }

    fn import(&self, shown: &'static str, archive: &str) -> Contestant {
        let import = with(&self.words, &["import", "--quiet", archive, TREE]);
        let remove = with(&self.words, &["rmi", TREE]);
        Contestant::new("podman", shown, vec![import, remove])
    }
}

fn with(words: &[String], arguments: &[&str]) -> Vec<String> {
    let arguments = arguments.iter().map(ToString::to_string);
    words.iter().cloned().chain(arguments).collect()
}

/// Command lines travel as JSON, which has no other bytes than text's.
fn text(path: &Path) -> Result<String> {
    let text = path.to_str().map(ToOwned::to_owned);
    text.with_context(|| format!("{} is no text", path.display()))
}
