//! The program that a child becomes.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::PlanError;
use crate::sys::process::{CStringArray, execve, fexecve};

/// `PATH` where the environment has none, as `execvp(3)` has it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program with its arguments and environment, ready for `execve(2)`.
#[derive(Debug)]
pub(crate) struct Program {
    /// Where it may be.
    pub(crate) file: ProgramFile,
    /// Arguments, its own name first.
    pub(crate) argv: CStringArray,
    /// Environment.
    pub(crate) envp: CStringArray,
}

/// Where a program is.
#[derive(Debug)]
pub(crate) enum ProgramFile {
    /// Tried in this order, inside the root.
    Candidates(Vec<CString>),
    /// Opened before the root was changed.
    Open(OwnedFd),
}

impl Program {
    /// The program `args[0]`, searched in `PATH` unless it names a folder.
    pub(crate) fn search(args: &[String], env: &[String]) -> Result<Self, PlanError> {
        let name = args.first().map_or("", String::as_str);
        let candidates = if name.contains('/') {
            vec![c_string(name.to_owned())?]
        } else {
            let path = env
                .iter()
                .rev()
                .find_map(|entry| entry.strip_prefix("PATH="));
            let folders = path.unwrap_or(DEFAULT_PATH).split(':');
            let folders = folders.map(|folder| if folder.is_empty() { "." } else { folder });
            folders
                .map(|folder| c_string(format!("{folder}/{name}")))
                .collect::<Result<_, _>>()?
        };
        Self::new(ProgramFile::Candidates(candidates), args, env)
    }

    /// The program at `path`, whatever `args[0]` calls it.
    pub(crate) fn at(path: &str, args: &[String], env: &[String]) -> Result<Self, PlanError> {
        let candidates = vec![c_string(path.to_owned())?];
        Self::new(ProgramFile::Candidates(candidates), args, env)
    }

    /// The program that is open on `file`.
    pub(crate) fn open(file: OwnedFd, args: &[String], env: &[String]) -> Result<Self, PlanError> {
        Self::new(ProgramFile::Open(file), args, env)
    }

    fn new(file: ProgramFile, args: &[String], env: &[String]) -> Result<Self, PlanError> {
        let array = |strings: &[String]| {
            let strings = strings.iter().map(|string| c_string(string.clone()));
            Ok::<_, PlanError>(CStringArray::new(strings.collect::<Result<_, _>>()?))
        };
        Ok(Self {
            file,
            argv: array(args)?,
            envp: array(env)?,
        })
    }

    /// Becomes it; returns only when no candidate could be executed. As `execvp(3)` does,
    /// a permission problem is reported over a missing file. Nothing is allocated.
    pub(crate) fn execute(&self) -> Errno {
        match &self.file {
            ProgramFile::Open(file) => fexecve(file.as_fd(), &self.argv, &self.envp),
            ProgramFile::Candidates(candidates) => {
                let mut worst = Errno::NOENT;
                for candidate in candidates {
                    match execve(candidate, &self.argv, &self.envp) {
                        Errno::NOENT | Errno::NOTDIR => {}
                        Errno::ACCESS => worst = Errno::ACCESS,
                        errno => return errno,
                    }
                }
                worst
            }
        }
    }

    /// The program's name as it was given.
    pub(crate) fn name(&self) -> String {
        let name = self.argv.strings().first();
        name.map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }
}

fn c_string(text: String) -> Result<CString, PlanError> {
    CString::new(text).map_err(|_nul| PlanError::Nul("an argument or environment variable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(name: &str, env: &[&str]) -> Vec<CString> {
        let env: Vec<String> = env.iter().map(|&entry| entry.to_owned()).collect();
        match Program::search(&[name.to_owned()], &env).unwrap().file {
            ProgramFile::Candidates(candidates) => candidates,
            ProgramFile::Open(_) => panic!("a search opens nothing"),
        }
    }

    #[test]
    fn a_bare_name_is_searched_in_the_last_path_given() {
        let found = candidates("sh", &["PATH=/x", "PATH=/bin::/opt"]);
        assert_eq!(
            found,
            [c"/bin/sh".into(), c"./sh".into(), CString::from(c"/opt/sh")]
        );
    }

    #[test]
    fn a_name_with_a_slash_is_taken_as_it_is() {
        assert_eq!(
            candidates("./run", &["PATH=/bin"]),
            [CString::from(c"./run")]
        );
    }
}
