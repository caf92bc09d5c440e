//! `dyno limit`: other limits, at once.

use clap::Args;
use dyno_api::dyno::{IoLimits, LimitRequest, Ulimit};

use super::Context;
use crate::failure::Failure;
use crate::value::limit::{self, or_none};
use crate::value::{io, size, ulimit};

/// Change the limits of a dyno: at once where it runs, and for every later start
///
/// What is not given stays; none takes a limit away.
#[derive(Debug, Args)]
pub(crate) struct Limit {
    #[command(flatten)]
    limits: LimitArgs,
    /// Id or name
    dyno: String,
}

/// At least one of them is given.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct LimitArgs {
    /// Memory, such as 64M or 1G
    #[arg(short, long, value_name = "SIZE|none", value_parser = or_none(size::parse_memory))]
    memory: Option<u64>,
    /// CPUs, such as 0.5 or 2
    #[arg(long, value_name = "CPUS|none", value_parser = or_none(limit::parse_cpu))]
    cpu: Option<u32>,
    /// Processes and threads; none is the default of 4096
    #[arg(long, value_name = "N|none", value_parser = or_none(parse_pids))]
    pids: Option<u32>,
    /// Of the disk each second, such as read=10M,write=5M,reads=200,writes=none
    #[arg(long, value_name = "LIMITS|none", value_parser = parse_io)]
    io: Option<IoLimits>,
    /// What it writes to its own /, on disk, such as 1G
    #[arg(long, value_name = "SIZE|none", value_parser = or_none(size::parse))]
    disk: Option<u64>,
    /// Open files of each process, soft and hard: 1024 or 1024:2048; none is the default
    #[arg(long, value_name = "N[:M]|none", value_parser = or_none(parse_nofile))]
    nofile: Option<Ulimit>,
}

fn parse_nofile(text: &str) -> Result<Ulimit, String> {
    match ulimit::parse_values(text).map_err(|error| error.to_string())? {
        Ulimit { soft: 0, .. } => Err("not a number of open files above 0".to_owned()),
        limit => Ok(limit),
    }
}

fn parse_io(text: &str) -> Result<IoLimits, io::IoError> {
    match text {
        "none" => Ok(io::NONE),
        text => io::parse(text),
    }
}

fn parse_pids(text: &str) -> Result<u32, &'static str> {
    let pids = text.parse().ok().filter(|pids| *pids > 0);
    pids.ok_or("not a number of processes above 0")
}

impl Limit {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let request = LimitRequest {
            memory_bytes: self.limits.memory,
            cpu_millis: self.limits.cpu,
            pids: self.limits.pids,
            io: self.limits.io,
            disk_bytes: self.limits.disk,
            nofile: self.limits.nofile,
        };
        let dyno = context.client().await?.limit(&self.dyno, &request).await?;
        if context.output.json {
            context.output.document(&dyno)?;
        } else {
            context.output.line(&self.dyno)?;
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        limit: Limit,
    }

    #[test]
    fn a_limit_is_a_value_or_none_and_one_is_needed() {
        let parsed = |words: &[&str]| {
            let line = Line::try_parse_from(["limit"].iter().chain(words)).ok()?;
            let limits = line.limit.limits;
            Some((limits.memory, limits.cpu, limits.pids))
        };
        let some = ["-m", "64M", "--cpu", "none", "--pids", "9", "web"];
        assert_eq!(parsed(&some), Some((Some(64 << 20), Some(0), Some(9))));
        assert_eq!(
            parsed(&["--cpu", "0.5", "web"]),
            Some((None, Some(500), None))
        );
        let nofile = |text| {
            let line = Line::try_parse_from(["limit", "--nofile", text, "web"]).ok()?;
            line.limit
                .limits
                .nofile
                .map(|limit| (limit.soft, limit.hard))
        };
        assert_eq!(nofile("1024:2048"), Some((1024, 2048)));
        assert_eq!(nofile("none"), Some((0, 0)));
        for wrong in ["0", "2:1", "many"] {
            assert_eq!(nofile(wrong), None, "{wrong}");
        }
        for wrong in [&["web"][..], &["-m", "1", "web"], &["--pids", "0", "web"]] {
            assert_eq!(parsed(wrong), None, "{wrong:?}");
        }
    }
}
