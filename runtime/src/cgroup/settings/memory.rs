//! `linux.resources.memory`.

use oci_spec::runtime::LinuxMemory;

use super::super::error::{Error, Result};
use super::super::layout::Controller;
use super::{Sheet, amount, at, max};

/// The kernel counts memory in pages: less than one would be rounded to none.
const PAGE: i64 = 4096;

impl Sheet<'_> {
    pub(super) fn memory(&mut self, memory: &LinuxMemory) -> Result<()> {
        const MEMORY: Controller = Controller::Memory;
        let field = "memory.limit";
        let limit = memory
            .limit()
            .map(|limit| amount(field, limit, PAGE))
            .transpose()?;
        if let Some(limit) = limit {
            self.both(MEMORY, field, "memory.limit_in_bytes", "memory.max", limit)?;
        }
        if let Some(swap) = memory.swap() {
            self.swap(amount("memory.swap", swap, 0)?, limit)?;
        }
        if let Some(low) = memory.reservation() {
            let field = "memory.reservation";
            let low = amount(field, low, 0)?;
            self.both(
                MEMORY,
                field,
                "memory.soft_limit_in_bytes",
                "memory.low",
                low,
            )?;
        }
        if let Some(tcp) = memory.kernel_tcp() {
            let value = amount("memory.kernelTCP", tcp, 0)?
                .unwrap_or(-1)
                .to_string();
            let v1 = at("memory.kmem.tcp.limit_in_bytes", value);
            self.put(MEMORY, "memory.kernelTCP", v1, None)?;
        }
        if let Some(swappiness) = memory.swappiness() {
            let v1 = at("memory.swappiness", swappiness);
            self.put(MEMORY, "memory.swappiness", v1, None)?;
        }
        if memory.disable_oom_killer() == Some(true) {
            let v1 = at("memory.oom_control", 1);
            self.put(MEMORY, "memory.disableOOMKiller", v1, None)?;
        }
        if memory.use_hierarchy() == Some(false) {
            let reason = "memory is always accounted hierarchically";
            return Err(Error::unenforceable("memory.useHierarchy", false, reason));
        }
        match memory.kernel() {
            None | Some(-1) => Ok(()),
            Some(limit) => {
                let reason = "the kernel has no separate limit any more; it counts in memory.limit";
                Err(Error::unenforceable("memory.kernel", limit, reason))
            }
        }
    }

    /// OCI's (and v1's) swap limit is memory and swap together, v2's is swap alone.
    fn swap(&mut self, together: Option<i64>, limit: Option<Option<i64>>) -> Result<()> {
        let field = "memory.swap";
        let v1 = at("memory.memsw.limit_in_bytes", together.unwrap_or(-1));
        let alone = match (together, limit.flatten()) {
            (None, _) => None,
            (Some(together), Some(limit)) if together >= limit => Some(together - limit),
            (Some(together), limit) => {
                let reason = match limit {
                    Some(_) => "it counts memory and swap together: give at least memory.limit",
                    None => "it counts memory and swap together: set memory.limit too",
                };
                return Err(Error::unenforceable(field, together, reason));
            }
        };
        self.put(
            Controller::Memory,
            field,
            v1,
            at("memory.swap.max", max(alone)),
        )
    }
}
