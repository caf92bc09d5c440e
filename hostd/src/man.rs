//! `hostd man`: manual pages of hostd and of dyno-runtime, made from the same words as
//! `--help`.
//!
//! Those of the runtime are made here: it is executed for each dyno, and has nothing that
//! it does not need for that.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man as Page;

use crate::config;

/// `hostd man`.
#[derive(Debug, Clone, Args)]
pub struct Man {
    /// The program
    #[arg(value_parser = ["hostd", "dyno-runtime"], default_value = "hostd", conflicts_with = "to")]
    program: String,
    /// Write the pages of both programs and all their commands as files into this folder
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

impl Man {
    /// Writes the page of a program, or all of them.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self) -> io::Result<()> {
        match (&self.to, self.program.as_str()) {
            (None, "dyno-runtime") => page(runtime()).render(&mut io::stdout()),
            (None, _) => page(hostd()).render(&mut io::stdout()),
            (Some(folder), _) => {
                fs::create_dir_all(folder)?;
                pages(hostd(), folder)?;
                pages(runtime(), folder)
            }
        }
    }
}

fn hostd() -> Command {
    config::Command::command().disable_help_subcommand(true)
}

fn runtime() -> Command {
    // Its own has a second line, for programs.
    dyno_runtime::command::definition()
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
}

/// Administrators' commands are in section 8, man-pages(7).
fn page(command: Command) -> Page {
    Page::new(command).section("8")
}

/// `hostd.8`, `hostd-serve.8`, …
fn pages(mut whole: Command, folder: &Path) -> io::Result<()> {
    whole.build();
    let inner = whole.get_subcommands().filter(|inner| !inner.is_hide_set());
    for command in std::iter::once(&whole).chain(inner) {
        page(command.clone()).generate_to(folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_of_both_programs_has_a_page_that_names_its_flags() {
        let folder = tempfile::tempdir().unwrap();
        let man = Man {
            program: "hostd".to_owned(),
            to: Some(folder.path().to_owned()),
        };
        man.write().unwrap();
        for (name, flags) in [
            ("hostd", &[][..]),
            ("hostd-serve", &["state\\-dir", "listen"]),
            ("dyno-runtime", &["root", "systemd\\-cgroup"]),
            ("dyno-runtime-create", &["bundle", "pid\\-file"]),
            ("dyno-runtime-update", &["pids\\-limit"]),
            ("dyno-runtime-checkpoint", &["image\\-path"]),
        ] {
            let page = fs::read_to_string(folder.path().join(format!("{name}.8"))).unwrap();
            assert!(page.contains(&format!(".TH {name} 8")), "{page}");
            let mut rest = page.lines().skip_while(|line| !line.starts_with(".TH"));
            assert_eq!(rest.nth(1), Some(".SH NAME"), "{page}");
            for flag in flags {
                assert!(
                    page.contains(&format!("\\-\\-{flag}")),
                    "{name} --{flag}: {page}"
                );
            }
        }
        // What a program of ours says to itself is nobody's command.
        let is_there = |name: &str| folder.path().join(name).exists();
        assert!(!is_there("dyno-runtime-log-writer.8") && !is_there("hostd-hold.8"));
        let count = fs::read_dir(folder.path()).unwrap().count();
        assert!(count > 25, "{count} pages");
    }
}
