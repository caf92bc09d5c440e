//! What our processes take: proc(5).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

/// Which of our programs a process is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Program {
    Hostd,
    Monitor,
    Edge,
}

impl Program {
    /// By a command line as in `/proc/PID/cmdline`.
    fn of(arguments: &str) -> Option<Self> {
        let mut words = arguments.split('\0');
        let name = words.next()?.rsplit('/').next()?;
        match (name, words.next()?) {
            ("hostd", "serve") => Some(Self::Hostd),
            ("dyno-runtime", "monitor") => Some(Self::Monitor),
            ("dyno-edge", _) => Some(Self::Edge),
            _ => None,
        }
    }
}

/// The processes of our programs in this pid namespace.
pub(super) fn all() -> Result<Vec<(Program, PathBuf)>> {
    let mut all = Vec::new();
    for process in std::fs::read_dir("/proc")? {
        let process = process?.path();
        // What has ended meanwhile, and the kernel's own, have none.
        let arguments = std::fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        if let Some(program) = Program::of(&arguments) {
            all.push((program, process));
        }
    }
    Ok(all)
}

/// What they have had of the processors so far, by program.
pub(super) fn processor_time() -> Result<BTreeMap<Program, Duration>> {
    let mut all_of_them = BTreeMap::new();
    for (program, process) in all()? {
        for thread in std::fs::read_dir(process.join("task"))? {
            // Nanoseconds that it ran, those that it waited, and how often it did.
            let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            let ran = text.split(' ').next().context("an empty schedstat")?;
            *all_of_them.entry(program).or_default() += Duration::from_nanos(ran.parse()?);
        }
    }
    Ok(all_of_them)
}

/// The resident set of hostd, in bytes.
pub(super) fn resident_hostd() -> Result<u64> {
    let all = all()?;
    let hostd = all.iter().find(|(program, _)| *program == Program::Hostd);
    let (_, process) = hostd.context("no hostd")?;
    let status = std::fs::read_to_string(process.join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.context("no VmRSS")?.trim().trim_end_matches(" kB");
    Ok(kib.parse::<u64>()? * 1024)
}

/// The proportional set size of each monitor that has a dyno, in bytes:
/// proc_pid_smaps(5).
pub(super) fn monitors_shares() -> Result<Vec<u64>> {
    let all = all()?.into_iter();
    let monitors = all.filter(|(program, _)| *program == Program::Monitor);
    let mut shares = Vec::new();
    for (_, process) in monitors {
        if std::fs::read_to_string(process.join("cmdline"))?.contains("\0--spare\0") {
            continue;
        }
        let rollup = std::fs::read_to_string(process.join("smaps_rollup"))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.context("no Pss")?.trim().trim_end_matches(" kB");
        shares.push(kib.parse::<u64>()? * 1024);
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_programs_are_known_by_their_command_lines() {
        let of = |words: &[&str]| Program::of(&words.join("\0"));
        assert_eq!(of(&["/a/hostd", "serve", "--x"]), Some(Program::Hostd));
        assert_eq!(of(&["dyno-runtime", "monitor", ""]), Some(Program::Monitor));
        assert_eq!(of(&["dyno-edge", "--folder"]), Some(Program::Edge));
        assert_eq!(of(&["/bin/sleep", "600"]), None);
        assert_eq!(of(&["hostd", "doctor"]), None);
        assert_eq!(of(&[""]), None);
    }
}
