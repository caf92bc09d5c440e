//! The small files that a dyno gets in `/etc`, as text.

use std::fmt::Write;
use std::net::IpAddr;

/// The domain that a dyno's network is in.
pub const DOMAIN: &str = "dyno.internal";

/// hosts(5): loopback and the dyno itself.
pub fn hosts(hostname: &str, addresses: &[IpAddr]) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
    let short = hostname.split('.').next().unwrap_or(hostname);
    let names = if short == hostname {
        hostname.to_owned()
    } else {
        format!("{hostname} {short}")
    };
    for address in addresses {
        line(&mut text, &format!("{address} {names}"));
    }
    if addresses.is_empty() {
        line(&mut text, &format!("127.0.1.1 {names}"));
    }
    text
}

/// resolv.conf(5) for a dyno whose names these servers resolve.
pub fn resolv_conf(servers: &[IpAddr], search: Option<&str>) -> String {
    let mut text = String::new();
    for server in servers.iter().take(3) {
        line(&mut text, &format!("nameserver {server}"));
    }
    if let Some(domain) = search {
        line(&mut text, &format!("search {domain}"));
    }
    text
}

fn line(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    writeln!(text, "{line}").unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dyno_knows_itself_by_both_names() {
        let text = hosts("web.example", &["10.0.0.2".parse().unwrap()]);
        assert!(text.ends_with("10.0.0.2 web.example web\n"), "{text}");
        assert!(hosts("web", &[]).ends_with("127.0.1.1 web\n"));
    }

    #[test]
    fn at_most_three_servers_as_resolvers_allow() {
        let servers: Vec<IpAddr> = (1..=4).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        let text = resolv_conf(&servers, Some(DOMAIN));
        assert_eq!(text.matches("nameserver").count(), 3);
        assert!(text.ends_with("search dyno.internal\n"));
    }
}
