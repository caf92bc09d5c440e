//! `dyno info`: the host.

use clap::Args;
use dyno_api::host::{CgroupLayout, HostInfo};

use super::Context;
use crate::failure::Failure;
use crate::output::table::Cell;
use crate::output::{Table, style};
use crate::value::size;

/// Show the host: what it has, and what it cannot do
#[derive(Debug, Args)]
pub(crate) struct Info {}

impl Info {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let info = context.client().await?.info().await?;
        if context.output.json {
            context.output.document(&info)?;
        } else {
            context.output.table(&table(&info))?;
        }
        Ok(0)
    }
}

fn table(info: &HostInfo) -> Table {
    let mut table = Table::facts();
    table.fact("Host", info.id.as_str());
    table.fact("hostd", format!("{}, pid {}", info.version, info.pid));
    table.fact("Kernel", info.kernel.as_str());
    table.fact("cgroups", layout(info.cgroups));
    table.fact("CPUs", info.cpus.to_string());
    table.fact("Memory", size::human(info.memory_bytes));
    table.fact("State", info.state_dir.as_str());
    table.fact("Sockets", info.run_dir.as_str());
    let subnets = [Some(&info.subnet), info.subnet6.as_ref()];
    let subnets: Vec<&str> = subnets.into_iter().flatten().map(String::as_str).collect();
    table.fact("Network", subnets.join(", "));
    table.fact("Dynos", format!("{}, {} running", info.dynos, info.running));
    for warning in &info.warnings {
        table.fact(
            "Warning",
            Cell::from(warning.as_str()).style(style::WARNING),
        );
    }
    table
}

fn layout(layout: CgroupLayout) -> &'static str {
    match layout {
        CgroupLayout::Unified => "v2",
        CgroupLayout::Hybrid => "hybrid: limits by v1, tracking by v2",
        CgroupLayout::Legacy => "v1",
    }
}
