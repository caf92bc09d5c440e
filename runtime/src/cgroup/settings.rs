//! `linux.resources` as values for the files of either version: pure.
//!
//! The OCI fields are named after v1; on v2 they are converted as runc does it
//! (`libcontainer/cgroups/utils.go`, `fs2/*.go`): zero is "not set" wherever zero is no
//! limit that could be meant. Whatever has no counterpart on this host is an error
//! here, before anything was made.

mod cpu;
mod io;
mod memory;
mod rest;

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
    /// None for a file that every group of the v2 tree has.
    pub(super) controller: Option<Controller>,
    pub(super) version: Version,
    /// The item of `linux.resources` that asks for it, for error messages.
    pub(super) field: String,
    /// Files and what they take; the first that exists is used.
    pub(super) choices: Vec<(String, String)>,
    pub(super) shows: Shows,
    /// The kernel takes any list here and silently uses what it can: the list is
    /// enforced only if this file then shows nothing beyond it.
    pub(super) effective: Option<&'static str>,
    pub(super) absent: Absent,
}

/// What the file reads as, from which the value before is put back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Shows {
    TheValue,
    /// One line per device, this one's perhaps; what is written takes it away.
    Lines(String),
    /// Several numbers, this one among them.
    Number(&'static str),
}

/// What it means if the kernel has none of the files.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Absent {
    /// The setting cannot be had.
    Refused,
    /// Nothing is lost.
    Harmless,
    /// Nothing is lost on a machine without swap.
    HarmlessWithoutSwap,
}

/// What `resources` ask for.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) writes: Vec<Setting>,
    /// The whole group shall die of an OOM, and nobody but the monitor can see to it.
    pub(super) monitor_kills_on_oom: bool,
}

/// What is in force in a group that is updated, where one value depends on another.
#[derive(Clone, Debug, Default)]
pub(super) struct Current {
    /// `cpu.max`, its first number.
    pub(super) quota: Option<String>,
    /// `memory.max`; `None` inside for no limit.
    pub(super) memory: Option<Option<i64>>,
    /// `memory.swap.max`; `None` inside for no limit.
    pub(super) swap: Option<Option<i64>>,
}

/// A file, or several by preference with `|` between them, and its value. `None`
/// where a version lacks the setting.
type Place = Option<Vec<(String, String)>>;

fn at(files: impl Into<Cow<'static, str>>, value: impl ToString) -> Place {
    let (files, value) = (files.into(), value.to_string());
    let choices = files.split('|');
    Some(
        choices
            .map(|file| (file.to_owned(), value.clone()))
            .collect(),
    )
}

struct Sheet<'a> {
    version: &'a dyn Fn(Controller) -> Option<Version>,
    /// Of a group that exists already.
    current: Option<&'a Current>,
    out: Settings,
}

/// Converts `resources` for a host on which `version` tells where a controller is.
///
/// # Errors
/// [`Error::Unenforceable`] for everything that cannot be had here.
pub(super) fn plan(
    resources: &LinuxResources,
    version: &dyn Fn(Controller) -> Option<Version>,
    current: Option<&Current>,
) -> Result<Settings> {
    let mut sheet = Sheet {
        version,
        current,
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
        sheet.pids(pids.limit())?;
    }
    if let Some(io) = resources.block_io() {
        sheet.io(io)?;
    }
    for page in resources.hugepage_limits().iter().flatten() {
        sheet.hugepages(page.page_size(), page.limit())?;
    }
    if let Some(network) = resources.network() {
        sheet.network(network)?;
    }
    if let Some(rdma) = resources.rdma() {
        let mut sorted: Vec<_> = rdma.iter().collect();
        sorted.sort_by_key(|(device, _)| *device);
        for (device, limits) in sorted {
            sheet.rdma(device, limits)?;
        }
    }
    // Last: what is given by its file's name overrides what was converted.
    if let Some(unified) = resources.unified() {
        let mut sorted: Vec<_> = unified.iter().collect();
        sorted.sort();
        for (file, value) in sorted {
            sheet.unified(file, value)?;
        }
    }
    Ok(sheet.out)
}

/// What of `resources` is not applied, as the kernel does it by another limit: a warning
/// for each. It has had no limit on kernel memory alone since 5.16 on v1, and never had
/// one on v2; runc has ignored both fields since 1.0.
#[must_use]
pub fn ignored(resources: &LinuxResources) -> Vec<String> {
    let Some(memory) = resources.memory() else {
        return Vec::new();
    };
    let fields = [
        ("memory.kernel", memory.kernel()),
        ("memory.kernelTCP", memory.kernel_tcp()),
    ];
    let warning = |(field, value): (&str, Option<i64>)| {
        let value = value.filter(|value| !matches!(value, -1 | 0))?;
        Some(format!(
            "{field} {value} is ignored: the kernel counts that memory in memory.limit"
        ))
    };
    fields.into_iter().filter_map(warning).collect()
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
        let value = |place: Place| {
            let first = place.and_then(|choices| choices.into_iter().next());
            first.map(|(_, value)| value).unwrap_or_default()
        };
        let Some(version) = (self.version)(controller) else {
            let value = value(v2.or(v1));
            let reason = format!(
                "this host has no {controller} controller; mount or enable it, or leave the limit out"
            );
            return Err(Error::unenforceable(field, value, reason));
        };
        let (here, other) = if version == Version::V1 {
            (v1, v2)
        } else {
            (v2, v1)
        };
        let Some(choices) = here else {
            let which = if version == Version::V1 { "v1" } else { "v2" };
            let reason = format!("cgroup {which} has no such setting; leave it out here");
            return Err(Error::unenforceable(field, value(other), reason));
        };
        let mut setting = Setting {
            controller: Some(controller),
            version,
            field: field.to_owned(),
            choices,
            shows: Shows::TheValue,
            effective: None,
            absent: Absent::Refused,
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
