//! `dyno volume export`.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use clap::Args;
use dyno_api::client::Download;
use dyno_api::query::ExportQuery;
use dyno_api::volume::VolumeSource;

use crate::command::Context;
use crate::failure::Failure;
use crate::value::volume;

/// Write a volume's files, or a snapshot's, as a tar archive
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Pack the volume as it is, instead of a copy that is made while its dynos are paused
    #[arg(long)]
    live: bool,
    /// The archive, which must not be there; - is the standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// The volume or snapshot
    #[arg(value_name = "VOLUME[@SNAPSHOT]", value_parser = volume::parse)]
    from: VolumeSource,
}

impl Export {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let to_stdout = self.output.as_os_str() == "-";
        if to_stdout && io::stdout().is_terminal() {
            return Err(Failure::usage("the standard output is a terminal")
                .hint("give a file, -o FILE, or pipe it on"));
        }
        let client = context.client().await?;
        let query = ExportQuery {
            snapshot: self.from.snapshot,
            live: self.live,
        };
        let archive = client
            .export_volume(self.from.volume.as_str(), &query)
            .await?;
        if to_stdout {
            copy(archive, io::stdout()).await?;
            return Ok(0);
        }
        let shown = self.output.display();
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.output)
            .map_err(|error| Failure::io(format!("cannot make {shown}"), &error))?;
        let written = copy(archive, file).await;
        if written.is_err() {
            // Half an archive is none.
            std::fs::remove_file(&self.output)
                .map_err(|error| Failure::io(format!("cannot remove {shown}"), &error))?;
        }
        written.map(|()| 0)
    }
}

async fn copy(mut archive: Download, mut to: impl Write) -> Result<(), Failure> {
    while let Some(bytes) = archive.next().await? {
        to.write_all(&bytes)?;
    }
    Ok(to.flush()?)
}
