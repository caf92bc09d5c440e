//! A picture of the machine, to compare before and after.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// All that a dyno is made of, as the kernel and the file system show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Mounts, cgroups, processes, namespaces, files, lines of `ip` and `nft`.
    things: BTreeSet<String>,
}

impl Machine {
    /// Looks at the mounts, cgroups and processes that bear this mark in their
    /// names, and at all files below `folders`. Other tests run at the same time.
    pub fn look(mark: &str, folders: &[&Path]) -> Self {
        let mut machine = Self {
            things: BTreeSet::new(),
        };
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
        for mount in mounts.lines().filter(|mount| mount.contains(mark)) {
            machine.add("mount", mount.split(' ').nth(4).unwrap_or(mount));
        }
        for cgroup in cgroups(Path::new("/sys/fs/cgroup"), mark) {
            machine.add("cgroup", &cgroup);
        }
        for (process, namespaces) in processes(mark) {
            machine.add("process", &process);
            for namespace in namespaces {
                machine.add("namespace", &namespace);
            }
        }
        for folder in folders {
            for file in files(folder) {
                machine.add("file", &file);
            }
        }
        machine
    }

    /// Looks at the calling thread's network as well, which must be its own.
    #[must_use]
    pub fn with_network(mut self) -> Self {
        let commands = [
            ("ip", ["-o", "link"]),
            ("ip", ["-o", "route"]),
            ("nft", ["list", "ruleset"]),
        ];
        for (program, args) in commands {
            let output = Command::new(program)
                .args(args)
                .output()
                .expect("run ip and nft");
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                // Interface numbers grow for ever; counters and states flicker.
                let line = line.split_once(": ").map_or(line, |(_, rest)| rest);
                self.add(program, line.split(" mtu ").next().unwrap_or(line));
            }
        }
        self
    }

    /// The same without what is not to be compared.
    #[must_use]
    pub fn without(mut self, is_left_out: impl Fn(&str) -> bool) -> Self {
        self.things.retain(|thing| !is_left_out(thing));
        self
    }

    /// Whether anything there has this in its name.
    pub fn contains(&self, part: &str) -> bool {
        self.things.iter().any(|thing| thing.contains(part))
    }

    fn add(&mut self, kind: &str, thing: &str) {
        self.things.insert(format!("{kind} {thing}"));
    }

    /// What is there now and was not, and what was there and is not any more.
    pub fn difference(&self, before: &Self) -> Vec<String> {
        let new = self
            .things
            .difference(&before.things)
            .map(|thing| format!("+ {thing}"));
        let gone = before
            .things
            .difference(&self.things)
            .map(|thing| format!("- {thing}"));
        new.chain(gone).collect()
    }
}

fn cgroups(folder: &Path, mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else {
        return found;
    };
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        let path = entry.path();
        if path.to_string_lossy().contains(mark) {
            found.push(path.display().to_string());
        }
        found.extend(cgroups(&path, mark));
    }
    found
}

/// Processes with the mark in their command line, with their namespaces.
fn processes(mark: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if !command.contains(mark) {
            continue;
        }
        let pid = entry.file_name().to_string_lossy().into_owned();
        let namespaces = std::fs::read_dir(entry.path().join("ns"))
            .into_iter()
            .flatten()
            .flatten();
        let links = namespaces.filter_map(|namespace| std::fs::read_link(namespace.path()).ok());
        found.push((
            format!("{pid} {command}"),
            links.map(|link| link.display().to_string()).collect(),
        ));
    }
    found
}

fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else {
        return found;
    };
    for entry in entries.flatten() {
        found.push(entry.path().display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files(&entry.path()));
        }
    }
    found
}
