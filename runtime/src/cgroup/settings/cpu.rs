//! `linux.resources.cpu`: time and placement.

use oci_spec::runtime::LinuxCpu;

use super::super::error::{Error, Result};
use super::super::layout::Controller;
use super::{Sheet, Version, at, max, parse_list};

const CPU: Controller = Controller::Cpu;

impl Sheet<'_> {
    /// Zero shares, quota or period are "not set", as in runc.
    pub(super) fn cpu(&mut self, cpu: &LinuxCpu) -> Result<()> {
        if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
            let field = "cpu.shares";
            // v1 would silently take the nearest; v2's conversion has ends, as in runc.
            if (self.version)(CPU) == Some(Version::V1) && !(2..=262_144).contains(&shares) {
                return Err(Error::unenforceable(field, shares, "it is 2 to 262144"));
            }
            let v1 = at("cpu.shares", shares);
            let v2 = at("cpu.weight", weight_of_shares(shares));
            self.put(CPU, field, v1, v2)?;
        }
        self.bandwidth(cpu)?;
        if let Some(burst) = cpu.burst() {
            let v1 = at("cpu.cfs_burst_us", burst);
            self.put(CPU, "cpu.burst", v1, at("cpu.max.burst", burst))?;
        }
        // After the shares: an idle group has none.
        if let Some(idle) = cpu.idle() {
            if !matches!(idle, 0 | 1) {
                return Err(Error::unenforceable("cpu.idle", idle, "it is 0 or 1"));
            }
            self.put(CPU, "cpu.idle", at("cpu.idle", idle), at("cpu.idle", idle))?;
        }
        if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
            let v1 = at("cpu.rt_period_us", period);
            self.put(CPU, "cpu.realtimePeriod", v1, None)?;
        }
        if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
            let v1 = at("cpu.rt_runtime_us", runtime);
            self.put(CPU, "cpu.realtimeRuntime", v1, None)?;
        }
        Ok(())
    }

    /// Quota and period. On v2 one file has both: it is written once, and of a group
    /// that lives what is not given stays.
    fn bandwidth(&mut self, cpu: &LinuxCpu) -> Result<()> {
        let period = cpu.period().filter(|period| *period != 0);
        let quota = cpu.quota().filter(|quota| *quota != 0);
        let one_file = (self.version)(CPU) == Some(Version::V2);
        if let Some(period) = period.filter(|_| quota.is_none() || !one_file) {
            let v1 = at("cpu.cfs_period_us", period);
            let quota = self.current.and_then(|current| current.quota.as_deref());
            let v2 = at("cpu.max", format!("{} {period}", quota.unwrap_or("max")));
            self.put(CPU, "cpu.period", v1, v2)?;
        }
        if let Some(quota) = quota {
            // Any negative quota is none, for runc and for the kernel.
            let quota = (quota > 0).then_some(quota);
            let v1 = at("cpu.cfs_quota_us", quota.unwrap_or(-1));
            let both = period.map(|period| format!("{} {period}", max(quota)));
            let v2 = at("cpu.max", both.unwrap_or_else(|| max(quota)));
            self.put(CPU, "cpu.quota", v1, v2)?;
        }
        Ok(())
    }

    pub(super) fn cpuset(&mut self, cpu: &LinuxCpu) -> Result<()> {
        let cpus = (
            "cpu.cpus",
            cpu.cpus(),
            "cpuset.cpus",
            "cpuset.cpus.effective",
        );
        let mems = (
            "cpu.mems",
            cpu.mems(),
            "cpuset.mems",
            "cpuset.mems.effective",
        );
        for (field, list, file, effective) in [cpus, mems] {
            let Some(list) = list.as_ref().filter(|list| !list.is_empty()) else {
                continue;
            };
            if parse_list(list).is_none() {
                return Err(Error::unenforceable(
                    field,
                    list,
                    "expected a list such as 0-3,7",
                ));
            }
            let place = at(file, list.clone());
            self.put_with(Controller::Cpuset, field, place.clone(), place, |setting| {
                setting.effective = (setting.version == Version::V2).then_some(effective);
            })?;
        }
        Ok(())
    }
}

/// The conversion that maps the range 2…262144 to 1…10000 and the default 1024 to
/// the default 100, as runc and crun have it since 2025.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "from 2…262144 to 1…10000"
)]
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    10_f64.powf(exponent).ceil() as u64
}
