//! `dyno volume set`.

use clap::Args;
use dyno_api::name::DynoName;
use dyno_api::volume::{Volume, VolumeChange, VolumeQuota};

use super::{BackupArgs, written};
use crate::command::Context;
use crate::failure::Failure;
use crate::value::limit::or_none;
use crate::value::size;

/// Change a volume while dynos use it
///
/// What is not given stays; none takes a limit or a command away. A quota may be less than what the
/// volume takes up: files stay, and nothing more is written until it is below.
#[derive(Debug, Args)]
pub(crate) struct Set {
    #[command(flatten)]
    change: ChangeArgs,
    /// Its name
    #[arg(value_name = "VOLUME")]
    volume: DynoName,
}

/// At least one of them is given.
#[derive(Debug, Args)]
#[group(
    required = true,
    multiple = true,
    args = ["quota", "inodes", "before_backup", "after_backup", "backup_timeout"]
)]
struct ChangeArgs {
    /// What it may take up on disk, such as 10G; the file system has to enforce it
    #[arg(long, value_name = "SIZE|none", value_parser = or_none(size::parse))]
    quota: Option<u64>,
    /// How many files, folders and links it may have
    #[arg(long, value_name = "N|none", value_parser = or_none(parse_inodes))]
    inodes: Option<u64>,
    #[command(flatten)]
    backup: BackupArgs,
}

fn parse_inodes(text: &str) -> Result<u64, &'static str> {
    let inodes = text.parse().ok().filter(|inodes| *inodes > 0);
    inodes.ok_or("not a number above 0")
}

impl Set {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let change = VolumeChange {
            quota: VolumeQuota {
                bytes: self.change.quota,
                inodes: self.change.inodes,
            },
            backup: self.change.backup.into(),
        };
        let client = context.client().await?;
        let volume = client.set_volume(self.volume.as_str(), &change).await?;
        if let Some(warning) = beyond(&volume) {
            eprintln!("note: {warning}");
        }
        written(context, &volume)
    }
}

/// What it means to take up more than the quota.
fn beyond(volume: &Volume) -> Option<String> {
    let usage = volume
        .usage
        .filter(|usage| volume.quota.is_exceeded(*usage))?;
    let (name, used) = (&volume.name, size::human(usage.bytes));
    Some(format!(
        "{name} takes up {used} in {} files, more than its quota: nothing more can be written \
         to it until files are removed",
        usage.inodes
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        set: Set,
    }

    #[test]
    fn a_limit_is_a_value_or_none_and_one_is_needed() {
        let parsed = |words: &[&str]| {
            let line = Line::try_parse_from(["set"].iter().chain(words)).ok()?;
            Some((line.set.change.quota, line.set.change.inodes))
        };
        assert_eq!(
            parsed(&["--quota", "1G", "--inodes", "none", "data"]),
            Some((Some(1 << 30), Some(0)))
        );
        for words in [["--after-backup", "sync"], ["--backup-timeout", "none"]] {
            let words = [&words[..], &["data"]].concat();
            assert_eq!(parsed(&words), Some((None, None)));
        }
        for wrong in [
            &["data"][..],
            &["--quota", "x", "data"],
            &["--inodes", "0", "data"],
        ] {
            assert_eq!(parsed(wrong), None, "{wrong:?}");
        }
    }
}
