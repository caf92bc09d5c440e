//! The few settings of the host's network namespace that routing needs.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::{Error, Result};
use crate::model::Config;
use crate::report::Repair;

const FORWARD4: &str = "/proc/sys/net/ipv4/ip_forward";
const FORWARD6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// Whether the kernel knows IPv6 at all.
pub(crate) fn kernel_has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Whether this namespace uses IPv6: links that there are, and those that we make.
pub(crate) fn uses_ipv6() -> Result<bool> {
    const ALL: &str = "/proc/sys/net/ipv6/conf/all/disable_ipv6";
    const NEW: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
    Ok(kernel_has_ipv6() && read(ALL)? == "0" && read(NEW)? == "0")
}

/// Turns forwarding on where it is off, and says so.
pub(crate) fn forward(config: &Config) -> Result<Vec<Repair>> {
    let mut repairs = Vec::new();
    let wanted = [(FORWARD4, true), (FORWARD6, config.subnet6.is_some())];
    for (path, wanted) in wanted {
        if wanted && read(path)? == "0" {
            if path == FORWARD6 {
                keep_router_advertisements()?;
            }
            write(path, "1")?;
            repairs.push(Repair::Forwarding(path.to_owned()));
        }
    }
    Ok(repairs)
}

/// P13: the host takes no router's word from a dyno. The rules drop it, too;
/// this holds while somebody has flushed them.
pub(crate) fn distrust(link: &str) -> Result<()> {
    for setting in ["accept_ra", "accept_redirects"] {
        write(&format!("/proc/sys/net/ipv6/conf/{link}/{setting}"), "0")?;
    }
    Ok(())
}

/// A forwarding host ignores router advertisements unless told otherwise, and
/// would lose the default route it has learnt from one.
fn keep_router_advertisements() -> Result<()> {
    const ROUTES: &str = "/proc/net/ipv6_route";
    for link in advertised_defaults(&read(ROUTES)?) {
        let path = format!("/proc/sys/net/ipv6/conf/{link}/accept_ra");
        if read(&path)? == "1" {
            write(&path, "2")?;
        }
    }
    Ok(())
}

/// Links with a default route from a router advertisement, in the form of
/// `/proc/net/ipv6_route`: ten columns, the last two flags and link.
fn advertised_defaults(routes: &str) -> Vec<&str> {
    const DEFAULT_BY_ADVERTISEMENT: u32 = 0x0005_0000; // RTF_DEFAULT | RTF_ADDRCONF
    routes
        .lines()
        .filter_map(|line| {
            let mut columns = line.split_whitespace().skip(8);
            let flags = u32::from_str_radix(columns.next()?, 16).ok()?;
            let link = columns.next()?;
            (flags & DEFAULT_BY_ADVERTISEMENT == DEFAULT_BY_ADVERTISEMENT).then_some(link)
        })
        .collect()
}

pub(crate) fn read(path: &str) -> Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim_end().to_owned()),
        Err(source) => Err(failed("read", path, source)),
    }
}

fn write(path: &str, value: &str) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "a sysctl, not a state file")]
    fs::write(path, value).map_err(|source| failed("write", path, source))
}

fn failed(operation: &'static str, path: &str, source: io::Error) -> Error {
    Error::Sysctl {
        operation,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_default_routes_from_advertisements_count() {
        let zero = "0".repeat(32);
        let routes = format!(
            "{zero} 00 {zero} 00 fe80 00000400 00000001 00000000 00450003 eth0\n\
             {zero} 00 {zero} 00 {zero} 00000400 00000001 00000000 00000003 eth1\n\
             {zero} 40 {zero} 00 {zero} 00000100 00000001 00000000 00040001 eth2\n"
        );
        assert_eq!(advertised_defaults(&routes), ["eth0"]);
    }
}
