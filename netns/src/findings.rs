//! What other people's firewalls do to dynos. A packet passes only if every
//! base chain of every table lets it: a foreign chain that drops by default
//! beats our accept, and the person should hear it from us.

use std::fs;

use crate::error::Result;
use crate::nft::{BaseChain, Rules, base_chains};
use crate::report::{Finding, Hook};

/// Looks at every foreign chain that judges packets of dynos.
pub(crate) fn foreign_firewalls(rules: &mut Rules) -> Result<Vec<Finding>> {
    let (own, socket) = rules.others();
    let own = own.to_owned();
    let mut findings: Vec<_> = base_chains(socket)?
        .into_iter()
        .filter(|chain| chain.drops && chain.table != own)
        .filter_map(drop_policy)
        .collect();
    for tables in ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"] {
        // Absent where the kernel has no legacy iptables.
        let names = fs::read_to_string(tables).unwrap_or_default();
        findings.extend(names.lines().filter(|name| *name == "filter").map(|name| {
            Finding::LegacyIptables {
                table: name.to_owned(),
            }
        }));
    }
    Ok(findings)
}

fn drop_policy(chain: BaseChain) -> Option<Finding> {
    let hook = match chain.hook {
        1 => Hook::Input,
        2 => Hook::Forward,
        _ => return None,
    };
    Some(Finding::DropPolicy {
        family: chain.family.to_owned(),
        table: chain.table,
        chain: chain.name,
        hook,
    })
}
