//! `linux.resources` but for cpu, memory and blockIO: pids, huge pages, network, RDMA, and
//! v2 files by their own names.

use oci_spec::runtime::{LinuxNetwork, LinuxRdma};

use super::super::error::{Error, Result};
use super::super::layout::Controller;
use super::{Absent, Setting, Sheet, Shows, Version, amount, at, max};

/// Files of the v2 tree itself that limit. Others of it (`cgroup.procs`, `cgroup.kill`,
/// `cgroup.freeze`, `cgroup.subtree_control`) act, and are the runtime's.
const CORE: [&str; 3] = [
    "cgroup.max.depth",
    "cgroup.max.descendants",
    "cgroup.pressure",
];

impl Sheet<'_> {
    /// Zero was no limit in runc before 1.4 and is 1 since: neither is guessed.
    pub(super) fn pids(&mut self, limit: i64) -> Result<()> {
        let field = "pids.limit";
        let limit = amount(field, limit, 1)?;
        self.both(Controller::Pids, field, "pids.max", "pids.max", limit)
    }

    /// What is used and, where the kernel counts it, what is reserved, config-linux.md.
    pub(super) fn hugepages(&mut self, page_size: &str, limit: i64) -> Result<()> {
        const HUGETLB: Controller = Controller::Hugetlb;
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
        for (kind, absent) in [("", Absent::Refused), (".rsvd", Absent::Harmless)] {
            let v1 = format!("hugetlb.{page_size}{kind}.limit_in_bytes");
            let v2 = format!("hugetlb.{page_size}{kind}.max");
            let (v1, v2) = (at(v1, limit.unwrap_or(-1)), at(v2, max(limit)));
            self.put_with(HUGETLB, &field, v1, v2, |setting| setting.absent = absent)?;
        }
        Ok(())
    }

    /// v1 only: on v2 nftables and eBPF look at the group itself instead.
    pub(super) fn network(&mut self, network: &LinuxNetwork) -> Result<()> {
        let refused = |field: &str, value: String, name: &str| {
            let reason = format!(
                "cgroup v2 has no {name}; match the group's packets by `socket cgroupv2` of nftables"
            );
            Err(Error::unenforceable(field, value, reason))
        };
        let v1 = |sheet: &Self, controller| (sheet.version)(controller) == Some(Version::V1);
        if let Some(class) = network.class_id().filter(|class| *class != 0) {
            let field = "network.classID";
            if !v1(self, Controller::NetCls) {
                return refused(field, class.to_string(), "net_cls");
            }
            let place = at("net_cls.classid", class);
            self.put(Controller::NetCls, field, place, None)?;
        }
        for priority in network.priorities().iter().flatten() {
            let field = "network.priorities";
            let (name, value) = (priority.name(), priority.priority());
            // IFNAMSIZ, and what would end the field or the line.
            let valid = (1..16).contains(&name.len())
                && !name.contains(|c: char| c.is_whitespace() || c == '/');
            if !valid {
                return Err(Error::unenforceable(
                    field,
                    name,
                    "it is no name of an interface",
                ));
            }
            if !v1(self, Controller::NetPrio) {
                return refused(field, format!("{name} {value}"), "net_prio");
            }
            let place = at("net_prio.ifpriomap", format!("{name} {value}"));
            self.put_with(Controller::NetPrio, field, place, None, |setting| {
                setting.shows = Shows::Lines(format!("{name} 0"));
            })?;
        }
        Ok(())
    }

    pub(super) fn rdma(&mut self, device: &str, limits: &LinuxRdma) -> Result<()> {
        let field = format!("rdma[{device}]");
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(Error::unenforceable(field, "limits", "it names no device"));
        }
        let part = |name, limit: Option<u32>| limit.map(|limit| format!(" {name}={limit}"));
        let handles = part("hca_handle", limits.hca_handles());
        let objects = part("hca_object", limits.hca_objects());
        if handles.is_none() && objects.is_none() {
            let reason = "give hcaHandles or hcaObjects";
            return Err(Error::unenforceable(field, "without limits", reason));
        }
        let (handles, objects) = (handles.unwrap_or_default(), objects.unwrap_or_default());
        let place = at("rdma.max", format!("{device}{handles}{objects}"));
        self.put_with(Controller::Rdma, &field, place.clone(), place, |setting| {
            setting.shows = Shows::Lines(format!("{device} hca_handle=max hca_object=max"));
        })
    }

    /// A v2 file by its own name. The exception on v1 is `memory.oom.group`,
    /// which the monitor sees to.
    pub(super) fn unified(&mut self, file: &str, value: &str) -> Result<()> {
        let field = format!("unified[{file}]");
        let refused = |reason: &str| Err(Error::unenforceable(field.as_str(), value, reason));
        if CORE.contains(&file) {
            return self.core(file, &field, value);
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'_';
        let known = Controller::ALL.into_iter().find(|controller| {
            file.strip_prefix(controller.name())
                .is_some_and(|rest| rest.starts_with('.'))
        });
        let Some(controller) = known.filter(|_| file.bytes().all(plain)) else {
            return refused("only files of a resource controller can be set, such as memory.high");
        };
        match (self.version)(controller) {
            Some(Version::V2) => {}
            Some(Version::V1) if file == "memory.oom.group" => {
                self.out.monitor_kills_on_oom = value.trim() == "1";
                return Ok(());
            }
            Some(Version::V1) => {
                return refused(
                    "it needs cgroup v2; here the controller is v1: \
                     use the fields beside `unified`",
                );
            }
            None => return refused("this host has no such controller; leave the limit out"),
        }
        for line in value.lines() {
            let place = at(file.to_owned(), line);
            self.put_with(controller, &field, None, place, |setting| {
                setting.shows = shows(file, line);
            })?;
        }
        Ok(())
    }

    fn core(&mut self, file: &str, field: &str, value: &str) -> Result<()> {
        if (self.version)(Controller::Freezer) == Some(Version::V1) {
            let reason = "it needs cgroup v2, which this host has no tree of";
            return Err(Error::unenforceable(field, value, reason));
        }
        self.out.writes.push(Setting {
            controller: None,
            version: Version::V2,
            field: field.to_owned(),
            choices: vec![(file.to_owned(), value.to_owned())],
            shows: Shows::TheValue,
            effective: None,
            absent: Absent::Refused,
        });
        Ok(())
    }
}

/// Some files have a line for each device.
fn shows(file: &str, line: &str) -> Shows {
    let key = line.split_ascii_whitespace().next().unwrap_or_default();
    let none = match file {
        "io.max" => "rbps=max wbps=max riops=max wiops=max",
        "io.latency" => "target=0",
        "io.weight" | "io.bfq.weight" if key.contains(':') => "default",
        "io.weight" | "io.bfq.weight" => return Shows::Lines("default 100".into()),
        "rdma.max" => "hca_handle=max hca_object=max",
        "misc.max" => "max",
        _ => return Shows::TheValue,
    };
    Shows::Lines(format!("{key} {none}"))
}
