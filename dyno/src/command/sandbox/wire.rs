//! `dyno sandbox partition`, `loss` and `heal`.

use clap::Args;

use super::Which;
use crate::failure::Failure;

/// Keep two hosts from reaching each other
#[derive(Debug, Args)]
pub(super) struct Partition {
    #[command(flatten)]
    which: Which,
    /// Only what the first sends
    #[arg(long)]
    one_way: bool,
    /// A host
    #[arg(value_name = "HOST")]
    from: String,
    /// Another one
    #[arg(value_name = "OTHER")]
    to: String,
}

impl Partition {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let mut sandbox = self.which.open()?;
        sandbox.cut(&self.from, &self.to)?;
        if !self.one_way {
            sandbox.cut(&self.to, &self.from)?;
        }
        Ok(0)
    }
}

/// Have the wire of a host lose packets
#[derive(Debug, Args)]
pub(super) struct Loss {
    #[command(flatten)]
    which: Which,
    /// The host
    #[arg(value_name = "HOST")]
    of: String,
    /// How many of a hundred; 0 for none
    #[arg(value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    percent: u8,
}

impl Loss {
    pub(super) fn run(self) -> Result<u8, Failure> {
        self.which.open()?.lose(&self.of, self.percent)?;
        Ok(0)
    }
}

/// Let all hosts reach each other again
#[derive(Debug, Args)]
pub(super) struct Heal {
    #[command(flatten)]
    which: Which,
}

impl Heal {
    pub(super) fn run(self) -> Result<u8, Failure> {
        self.which.open()?.heal()?;
        Ok(0)
    }
}
