//! `linux.resources.memory`.

use oci_spec::runtime::LinuxMemory;

use super::super::error::{Error, Result};
use super::super::layout::Controller;
use super::{Absent, Sheet, Shows, Version, amount, at, max};

/// The kernel counts memory in pages: less than one would be rounded to none.
const PAGE: i64 = 4096;
const MEMORY: Controller = Controller::Memory;

impl Sheet<'_> {
    pub(super) fn memory(&mut self, memory: &LinuxMemory) -> Result<()> {
        let set = |value: Option<i64>| value.filter(|value| *value != 0);
        let field = "memory.limit";
        let limit = set(memory.limit())
            .map(|limit| amount(field, limit, PAGE))
            .transpose()?;
        let together = set(memory.swap())
            .map(|swap| amount("memory.swap", swap, PAGE))
            .transpose()?;
        if let (Some(Some(together)), Some(Some(limit))) = (together, limit)
            && together < limit
        {
            let reason = "it counts memory and swap together: give at least memory.limit";
            return Err(Error::unenforceable("memory.swap", together, reason));
        }
        // On v1 whichever of the two has to come first is found out by trying: the
        // kernel wants memory and swap together above memory at every moment.
        if let Some(limit) = limit {
            self.both(MEMORY, field, "memory.limit_in_bytes", "memory.max", limit)?;
        }
        self.swap(together, limit)?;
        if let Some(low) = set(memory.reservation()) {
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
        if memory.swappiness().is_some_and(|value| value > 100) {
            let value = memory.swappiness().unwrap_or_default();
            return Err(Error::unenforceable(
                "memory.swappiness",
                value,
                "it is 0 to 100",
            ));
        }
        if let Some(swappiness) = memory.swappiness() {
            let v1 = at("memory.swappiness", swappiness);
            self.put(MEMORY, "memory.swappiness", v1, None)?;
        }
        self.oom_killer(memory.disable_oom_killer())?;
        if memory.use_hierarchy() == Some(false) {
            let reason = "memory is always accounted hierarchically; leave it out";
            return Err(Error::unenforceable("memory.useHierarchy", false, reason));
        }
        Ok(())
    }

    fn oom_killer(&mut self, disable: Option<bool>) -> Result<()> {
        let field = "memory.disableOOMKiller";
        match (disable, (self.version)(MEMORY)) {
            (None, _) => Ok(()),
            (Some(disable), Some(Version::V1)) => {
                // A new group has it enabled.
                if disable || self.current.is_some() {
                    let v1 = at("memory.oom_control", u8::from(disable));
                    return self.put_with(MEMORY, field, v1, None, |setting| {
                        setting.shows = Shows::Number("oom_kill_disable");
                    });
                }
                Ok(())
            }
            (Some(true), _) => self.put(MEMORY, field, at("memory.oom_control", 1), None),
            (Some(false), _) => Ok(()),
        }
    }

    /// OCI's (and v1's) swap limit is memory and swap together, v2's is swap alone. The
    /// conversion is runc's (`ConvertMemorySwapToCgroupV2Value`); of a group that lives
    /// the half that is not given is what it was.
    fn swap(&mut self, together: Option<Option<i64>>, limit: Option<Option<i64>>) -> Result<()> {
        let field = "memory.swap";
        // No limit on memory alone means none on both, runc's `setMemoryAndSwap`.
        let together = match (together, limit) {
            (None, Some(None)) => Some(None),
            (together, _) => together,
        };
        if (self.version)(MEMORY) == Some(Version::V1) {
            let Some(together) = together else {
                return Ok(());
            };
            let v1 = at("memory.memsw.limit_in_bytes", together.unwrap_or(-1));
            let absent = match together {
                None => Absent::Harmless,
                Some(together) if limit == Some(Some(together)) => Absent::HarmlessWithoutSwap,
                Some(_) => Absent::Refused,
            };
            return self.put_with(MEMORY, field, v1, None, |setting| setting.absent = absent);
        }
        let Some(alone) = self.swap_alone(together, limit)? else {
            return Ok(());
        };
        let absent = match alone {
            None => Absent::Harmless,
            Some(0) => Absent::HarmlessWithoutSwap,
            Some(_) => Absent::Refused,
        };
        let v2 = at("memory.swap.max", max(alone));
        self.put_with(MEMORY, field, None, v2, |setting| setting.absent = absent)
    }

    /// The swap alone that v2 is told; outer `None` for nothing.
    fn swap_alone(
        &self,
        together: Option<Option<i64>>,
        limit: Option<Option<i64>>,
    ) -> Result<Option<Option<i64>>> {
        let before = self.current.and_then(|current| current.memory);
        let refused =
            |field: &str, value: i64, reason: &str| Err(Error::unenforceable(field, value, reason));
        match (together, limit.or(before)) {
            (Some(None), _) => Ok(Some(None)),
            (Some(Some(together)), Some(None)) => Ok(Some(Some(together))),
            (Some(Some(together)), Some(Some(limit))) if together >= limit => {
                Ok(Some(Some(together - limit)))
            }
            (Some(Some(together)), Some(_)) => refused(
                "memory.swap",
                together,
                "it counts memory and swap together: give at least memory.limit",
            ),
            (Some(Some(together)), None) => refused(
                "memory.swap",
                together,
                "it counts memory and swap together: set memory.limit too",
            ),
            (None, _) => {
                let swap = self.current.and_then(|current| current.swap);
                let (Some(Some(limit)), Some(Some(before)), Some(Some(swap))) =
                    (limit, before, swap)
                else {
                    return Ok(None);
                };
                match before.saturating_add(swap).checked_sub(limit) {
                    Some(rest) if rest >= 0 => Ok(Some(Some(rest))),
                    _ => refused(
                        "memory.limit",
                        limit,
                        "it is above the limit on memory and swap together: give memory.swap too",
                    ),
                }
            }
        }
    }
}
