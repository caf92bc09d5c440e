//! `dyno man`: manual pages, made from the same words as `--help`.

use std::fs;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_mangen::Man as Page;

use super::Context;
use crate::cli::Cli;
use crate::failure::Failure;

/// Write manual pages, as roff
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The command, such as `volume create` [default: dyno itself]
    #[arg(value_name = "COMMAND", conflicts_with = "to")]
    command: Vec<String>,
    /// Write the pages of all commands as files into this folder
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

impl Man {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut whole = Cli::command();
        whole.build();
        if let Some(folder) = &self.to {
            fs::create_dir_all(folder)?;
            // `dyno.1`, `dyno-run.1`, `dyno-volume-create.1`, …
            clap_mangen::generate_to(whole, folder)?;
            return Ok(0);
        }
        let mut command = &whole;
        for word in &self.command {
            command = command.find_subcommand(word).ok_or_else(|| {
                Failure::usage(format!("there is no command {}", self.command.join(" ")))
            })?;
        }
        let mut text = Vec::new();
        Page::new(command.clone()).render(&mut text)?;
        context.output.bytes(&text)?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_command_has_a_page_that_names_its_flags() {
        let folder = tempfile::tempdir().unwrap();
        let mut whole = Cli::command();
        whole.build();
        clap_mangen::generate_to(whole.clone(), folder.path()).unwrap();
        let names: BTreeSet<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        for command in whole.get_subcommands() {
            let name = format!("dyno-{}.1", command.get_name());
            assert!(names.contains(&name), "no {name} among {names:?}");
        }
        let page = fs::read_to_string(folder.path().join("dyno-run.1")).unwrap();
        assert!(page.contains(".TH dyno-run 1"), "{page}");
        for flag in ["detach", "restart", "publish"] {
            assert!(page.contains(&format!("\\-\\-{flag}")), "no {flag}: {page}");
        }
    }
}
