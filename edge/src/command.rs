//! The command line of `dyno-edge`.

use std::path::PathBuf;

/// Serves the DNS of a host's networks; started by hostd.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "dyno-edge", version)]
pub struct Command {
    /// The tables that hostd keeps; their folder must exist
    #[arg(long, value_name = "FILE")]
    pub tables: PathBuf,

    /// Where the control socket is made
    #[arg(long, value_name = "SOCKET")]
    pub control: PathBuf,

    /// The user to become
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..u32::MAX as i64))]
    pub uid: u32,

    /// The group to become
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..u32::MAX as i64))]
    pub gid: u32,

    /// Take the sockets over from the edge that runs now, then stop it
    #[arg(long)]
    pub replace: bool,
}
