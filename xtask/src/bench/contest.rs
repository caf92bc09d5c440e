//! Who is compared with whom, by which command lines.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::host::Host;
use super::root::Root;
use super::runner::Commands;
use super::stage::done;
use super::statistics::Samples;

/// Rounds before the measured ones: caches fill, daemons settle.
const WARM_UP: usize = 3;

/// Contestants that do the same job.
pub(super) struct Comparison {
    /// What the job is.
    pub(super) title: &'static str,
    /// Ours first.
    pub(super) contestants: Vec<Contestant>,
    /// The peer that the target is about, and how much of its time we may take.
    pub(super) target: Option<(&'static str, f64)>,
}

/// One of them.
pub(super) struct Contestant {
    pub(super) name: &'static str,
    /// The command lines as people would type them.
    pub(super) shown: &'static str,
    /// What makes one sample.
    pub(super) commands: Commands,
    /// Runs only where /sys/fs/cgroup is the v2 tree.
    pub(super) needs_v2: bool,
    set_up: Option<Commands>,
}

impl Contestant {
    fn new(name: &'static str, shown: &'static str, commands: Commands) -> Self {
        Self {
            name,
            shown,
            commands,
            needs_v2: false,
            set_up: None,
        }
    }

    /// Whether it is the one that the others are compared with.
    pub(super) fn is_ours(&self) -> bool {
        self.name.starts_with("dyno")
    }

    /// Does what is done once.
    pub(super) fn set_up(&self) -> Result<()> {
        for command in self.set_up.iter().flatten() {
            let (program, arguments) = command.split_first().context("an empty command")?;
            done(Command::new(program).args(arguments))?;
        }
        Ok(())
    }
}

impl Comparison {
    /// The contestants' samples, in the order of the contestants. Every round
    /// runs them all and begins with another one, so that whatever one leaves
    /// behind for the kernel to clean up is not always the same neighbour's.
    pub(super) fn measure(
        &self,
        rounds: usize,
        mut time: impl FnMut(&Contestant) -> Result<Duration>,
    ) -> Result<Vec<Samples>> {
        let mut samples = vec![Samples::default(); self.contestants.len()];
        for round in 0..WARM_UP + rounds {
            let first = round % self.contestants.len();
            let all = self.contestants.iter().zip(&mut samples).enumerate();
            let (mut late, mut early) = (Vec::new(), Vec::new());
            for (index, pair) in all {
                if index < first {
                    late.push(pair)
                } else {
                    early.push(pair)
                }
            }
            for (contestant, samples) in early.into_iter().chain(late) {
                let sample = time(contestant)
                    .with_context(|| format!("{} in round {round}", contestant.name))?;
                if round >= WARM_UP {
                    samples.push(sample);
                }
            }
        }
        Ok(samples)
    }
}

/// All comparisons; those of the daemon only where there is a host.
pub(super) fn comparisons(
    programs: &Path,
    root: &Root,
    host: Option<&Host>,
) -> Result<Vec<Comparison>> {
    let bundle = text(&root.bundle_folder())?;
    let state = |name: &str| text(&root.folder().join(name));
    let runtime = text(&programs.join("dyno-runtime"))?;
    let crun_options = ["--cgroup-manager=disabled"];
    let [ours, runc, crun] = [
        Oci {
            program: &runtime,
            options: &[],
            state: state("dyno-runtime")?,
            bundle: &bundle,
        },
        Oci {
            program: "runc",
            options: &[],
            state: state("runc")?,
            bundle: &bundle,
        },
        Oci {
            program: "crun",
            options: &crun_options,
            state: state("crun")?,
            bundle: &bundle,
        },
    ];
    let podman = Podman::new(root)?;
    let mut all = vec![Comparison {
        title: "an OCI bundle: create, start, delete",
        contestants: vec![
            Contestant::new(
                "dyno-runtime",
                "dyno-runtime create, start, delete",
                ours.life(),
            ),
            Contestant::new("runc", "runc create, start, delete", runc.life()),
            crun.over_v2("crun create, start, delete", crun.life()),
        ],
        target: None,
    }];
    let dyno = |shown, options: &[&str]| {
        host.map(|host| Contestant::new("dyno", shown, vec![host.run(options)]))
    };
    let run = ["run", "--bundle", &bundle, "bench"];
    let mut without_network = vec![
        Contestant::new("runc", "runc run", vec![runc.command(&run)]),
        crun.over_v2("crun run", vec![crun.command(&run)]),
        podman.run(
            "podman run --rm --net none IMAGE /bin/true",
            &["--net", "none"],
        ),
    ];
    without_network.splice(
        0..0,
        dyno(
            "dyno run --rm --net none IMAGE /bin/true",
            &["--net", "none"],
        ),
    );
    let mut with_network = vec![podman.run("podman run --rm IMAGE /bin/true", &[])];
    with_network.splice(0..0, dyno("dyno run --rm IMAGE /bin/true", &[]));
    all.push(Comparison {
        title: "run /bin/true, without a network",
        contestants: without_network,
        target: Some(("runc", 0.5)),
    });
    all.push(Comparison {
        title: "run /bin/true, with a network",
        contestants: with_network,
        target: Some(("podman", 0.15)),
    });
    Ok(all)
}

/// A runtime with the OCI command line.
struct Oci<'a> {
    program: &'a str,
    options: &'a [&'a str],
    state: String,
    bundle: &'a str,
}

impl Oci<'_> {
    fn command(&self, arguments: &[&str]) -> Vec<String> {
        let words = [self.program, "--root", &self.state];
        words
            .iter()
            .chain(self.options)
            .chain(arguments)
            .map(ToString::to_string)
            .collect()
    }

    /// A container's whole life. The payload may still run when it is deleted:
    /// everybody kills it then.
    fn life(&self) -> Commands {
        vec![
            self.command(&["create", "--bundle", self.bundle, "bench"]),
            self.command(&["start", "bench"]),
            self.command(&["delete", "--force", "bench"]),
        ]
    }

    /// crun: Debian's refuses a hybrid hierarchy.
    fn over_v2(&self, shown: &'static str, commands: Commands) -> Contestant {
        Contestant {
            needs_v2: true,
            ..Contestant::new("crun", shown, commands)
        }
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
        let words = [
            "podman",
            "--root",
            &store,
            "--runroot",
            "/run/podman-bench",
            "--tmpdir",
            "/run/podman-tmp",
            "--storage-driver",
            "overlay",
            "--cgroup-manager",
            "cgroupfs",
            "--runtime",
            "runc",
            "--events-backend",
            "none",
        ];
        Ok(Self {
            words: words.map(ToOwned::to_owned).to_vec(),
            archive: text(&root.archive())?,
        })
    }

    fn command(&self, arguments: &[&str]) -> Vec<String> {
        self.words
            .iter()
            .cloned()
            .chain(arguments.iter().map(ToString::to_string))
            .collect()
    }

    /// The limits are given because Podman's defaults are above this machine's.
    fn run(&self, shown: &'static str, network: &[&str]) -> Contestant {
        let limits = [
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
        ];
        let arguments = [
            &["run", "--rm"],
            network,
            &limits,
            &["localhost/bench", "/bin/true"],
        ]
        .concat();
        let import = self.command(&["import", "--quiet", &self.archive, "localhost/bench"]);
        Contestant {
            set_up: Some(vec![import]),
            ..Contestant::new("podman", shown, vec![self.command(&arguments)])
        }
    }
}

/// Command lines travel as JSON, which has no other bytes than text's.
fn text(path: &Path) -> Result<String> {
    path.to_str()
        .map(ToOwned::to_owned)
        .with_context(|| format!("{path:?} is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_runs_everybody_and_begins_with_another() {
        let contestants = ["a", "b", "c"].map(|name| Contestant::new(name, name, Vec::new()));
        let comparison = Comparison {
            title: "",
            contestants: contestants.into(),
            target: None,
        };
        let mut order = String::new();
        let samples = comparison
            .measure(2, |contestant| {
                order.push_str(contestant.name);
                Ok(Duration::from_millis(1))
            })
            .unwrap();
        assert_eq!(
            order, "abcbcacababcbca",
            "three rounds of warming up, two measured"
        );
        assert!(samples.iter().all(|samples| samples.all().len() == 2));
    }
}
