//! The small files that a dyno gets in `/etc`, as text.

use std::fmt::Write;
use std::net::IpAddr;

use dyno_api::name::DynoName;

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

/// The domains that a dyno looks a bare name up in: those of its app come before all others.
pub fn search(app: Option<&DynoName>) -> Vec<String> {
    let own = app.map(|app| format!("{app}.{DOMAIN}"));
    own.into_iter().chain([DOMAIN.to_owned()]).collect()
}

/// resolv.conf(5) for a dyno whose names these servers resolve.
pub fn resolv_conf(servers: &[IpAddr], search: &[String]) -> String {
    let mut text = String::new();
    for server in servers.iter().take(3) {
        line(&mut text, &format!("nameserver {server}"));
    }
    line(&mut text, &format!("search {}", search.join(" ")));
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
        let text = resolv_conf(&servers, &search(None));
        assert_eq!(text.matches("nameserver").count(), 3);
        assert!(text.ends_with("search dyno.internal\n"));
    }

    #[test]
    fn a_dyno_of_an_app_looks_there_first() {
        let text = resolv_conf(&[], &search(Some(&"shop".parse().unwrap())));
        assert_eq!(text, "search shop.dyno.internal dyno.internal\n");
    }
}
