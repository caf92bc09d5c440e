//! `linux.resources` as values for the files of either version: pure.
//!
//! The OCI fields are named after v1; on v2 they are converted as the field
//! does it. Whatever has no counterpart on this host is an error here, before
//! anything was made.

mod cpu;
mod io;
mod memory;

use std::borrow::Cow;

use oci_spec::runtime::LinuxResources;

use super::error::{Error, Result};
use super::layout::Controller;

/// Which version a controller is mounted as.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Version {
    V1,
    V2,
}

/// One write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Setting {
    pub(super) controller: Controller,
    pub(super) version: Version,
    /// The item of `linux.resources` that asks for it, for error messages.
    pub(super) field: String,
    /// The first of these that exists takes the value.
    pub(super) files: Vec<String>,
    pub(super) value: String,
    /// A file keeps one line per device: what removes this one's.
    pub(super) device_reset: Option<String>,
    /// The kernel takes any list here and silently uses what it can: the list is
    /// enforced only if this file then shows nothing beyond it.
    pub(super) effective: Option<&'static str>,
}

/// What `resources` ask for.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) writes: Vec<Setting>,
    /// The whole group shall die of an OOM, and nobody but the monitor can see to it.
    pub(super) monitor_kills_on_oom: bool,
}

/// A file, or several by preference with `|` between them, and its value. `None`
/// where a version lacks the setting.
type Place = Option<(Cow<'static, str>, String)>;

fn at(files: impl Into<Cow<'static, str>>, value: impl ToString) -> Place {
    Some((files.into(), value.to_string()))
}

struct Sheet<'a> {
    version: &'a dyn Fn(Controller) -> Option<Version>,
    out: Settings,
}

/// Converts `resources` for a host on which `version` tells where a controller is.
///
/// # Errors
/// [`Error::Unenforceable`] for everything that cannot be had here.
pub(super) fn plan(
    resources: &LinuxResources,
    version: &dyn Fn(Controller) -> Option<Version>,
) -> Result<Settings> {
    let mut sheet = Sheet {
        version,
        out: Settings::default(),
    };
    if let Some(memory) = resources.memory() {
        sheet.memory(memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        sheet.cpu(cpu)?;
        sheet.cpuset(cpu)?;
    }
    if let Some(pids) = resources.pids() {
        let field = "pids.limit";
        let limit = amount(field, pids.limit(), 1)?;
        sheet.both(Controller::Pids, field, "pids.max", "pids.max", limit)?;
    }
    if let Some(io) = resources.block_io() {
        sheet.io(io)?;
    }
    for page in resources.hugepage_limits().iter().flatten() {
        sheet.hugepages(page.page_size(), page.limit())?;
    }
    if let Some(unified) = resources.unified() {
        let mut sorted: Vec<_> = unified.iter().collect();
        sorted.sort();
        for (file, value) in sorted {
            sheet.unified(file, value)?;
        }
    }
    let network = resources.network().as_ref();
    if network.is_some_and(|n| n.class_id().is_some() || n.priorities().is_some()) {
        let reason = "cgroup v2 has neither net_cls nor net_prio; use nftables";
        return Err(Error::unenforceable(
            "network",
            "classID/priorities",
            reason,
        ));
    }
    if resources
        .rdma()
        .as_ref()
        .is_some_and(|rdma| !rdma.is_empty())
    {
        return Err(Error::unenforceable(
            "rdma",
            "limits",
            "the rdma controller is not supported",
        ));
    }
    Ok(sheet.out)
}

/// `-1` is "no limit"; anything else must be at least `least`.
fn amount(field: &str, value: i64, least: i64) -> Result<Option<i64>> {
    match value {
        -1 => Ok(None),
        value if value >= least => Ok(Some(value)),
        _ => Err(Error::unenforceable(
            field,
            value,
            format!("the least is {least}; -1 means no limit"),
        )),
    }
}

fn max(value: Option<i64>) -> String {
    value.map_or_else(|| "max".into(), |value| value.to_string())
}

impl Sheet<'_> {
    fn put(&mut self, controller: Controller, field: &str, v1: Place, v2: Place) -> Result<()> {
        self.put_with(controller, field, v1, v2, |_| {})
    }

    fn put_with(
        &mut self,
        controller: Controller,
        field: &str,
        v1: Place,
        v2: Place,
        adjust: impl FnOnce(&mut Setting),
    ) -> Result<()> {
        let Some(version) = (self.version)(controller) else {
            let value = v2.or(v1).map(|(_, value)| value).unwrap_or_default();
            let reason = format!("this host has no {controller} controller");
            return Err(Error::unenforceable(field, value, reason));
        };
        let (here, other) = if version == Version::V1 {
            (v1, v2)
        } else {
            (v2, v1)
        };
        let Some((files, value)) = here else {
            let value = other.map(|(_, value)| value).unwrap_or_default();
            let which = if version == Version::V1 { "v1" } else { "v2" };
            let reason = format!("cgroup {which} has no such setting");
            return Err(Error::unenforceable(field, value, reason));
        };
        let mut setting = Setting {
            controller,
            version,
            field: field.to_owned(),
            files: files.split('|').map(str::to_owned).collect(),
            value,
            device_reset: None,
            effective: None,
        };
        adjust(&mut setting);
        self.out.writes.push(setting);
        Ok(())
    }

    /// A limit that both versions have; unlimited is `-1` on v1 (but in pids), `max` on v2.
    fn both(
        &mut self,
        controller: Controller,
        field: &str,
        v1: &'static str,
        v2: &'static str,
        limit: Option<i64>,
    ) -> Result<()> {
        let unlimited = if controller == Controller::Pids {
            "max"
        } else {
            "-1"
        };
        let old = limit.map_or_else(|| unlimited.to_owned(), |limit| limit.to_string());
        self.put(controller, field, at(v1, old), at(v2, max(limit)))
    }

    fn hugepages(&mut self, page_size: &str, limit: i64) -> Result<()> {
        let field = format!("hugepageLimits[{page_size}]");
        let digits = page_size.trim_end_matches(|c: char| c.is_ascii_uppercase());
        let unit = &page_size[digits.len()..];
        let number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        // The size becomes part of a file's name.
        if !number || !matches!(unit, "KB" | "MB" | "GB") {
            return Err(Error::unenforceable(
                field,
                limit,
                "a page size looks like 2MB",
            ));
        }
        let limit = amount(&field, limit, 0)?;
        let v1 = at(
            format!("hugetlb.{page_size}.limit_in_bytes"),
            limit.unwrap_or(-1),
        );
        let v2 = at(format!("hugetlb.{page_size}.max"), max(limit));
        self.put(Controller::Hugetlb, &field, v1, v2)
    }

    /// A v2 file by its own name. The exception on v1 is `memory.oom.group`,
    /// which the monitor sees to.
    fn unified(&mut self, file: &str, value: &str) -> Result<()> {
        let field = format!("unified[{file}]");
        let refused = |reason: &str| Err(Error::unenforceable(field.as_str(), value, reason));
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'_';
        let known = Controller::ALL.into_iter().find(|controller| {
            file.strip_prefix(controller.name())
                .is_some_and(|rest| rest.starts_with('.'))
        });
        let Some(controller) = known.filter(|_| file.bytes().all(plain)) else {
            return refused("only files of a resource controller can be set");
        };
        match (self.version)(controller) {
            Some(Version::V2) => {}
            Some(Version::V1) if file == "memory.oom.group" => {
                self.out.monitor_kills_on_oom = value.trim() == "1";
                return Ok(());
            }
            Some(Version::V1) => return refused("it needs cgroup v2; here the controller is v1"),
            None => return refused("this host has no such controller"),
        }
        for line in value.lines() {
            self.put(controller, &field, None, at(file.to_owned(), line))?;
        }
        Ok(())
    }
}

/// A list of CPUs or memory nodes, cpuset(7): `0-3,7`.
pub(super) fn parse_list(list: &str) -> Option<Vec<std::ops::RangeInclusive<u32>>> {
    list.split(',')
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = first.trim().parse().ok()?..=last.trim().parse().ok()?;
            (range.start() <= range.end()).then_some(range)
        })
        .collect()
}

#[cfg(test)]
mod tests;
