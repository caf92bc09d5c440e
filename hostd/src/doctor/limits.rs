//! Numbers that the kernel does not let us pass, and that many dynos reach.

use std::fs;

use dyno_api::doctor::HostCheck;
use rustix::process::{Resource, getrlimit};

/// Descriptors of a hostd with a thousand dynos, some of them followed.
const OPEN_FILES: u64 = 16_384;

/// In how far a table may be full, in percent.
const NEARLY_FULL: u64 = 80;

/// Settings of sysctl(8): below the first number dynos run out of it soon. The
/// third is what it is for.
const SETTINGS: [(&str, u64, &str); 5] = [
    ("kernel.pid_max", 32_768, "processes of all dynos"),
    (
        "fs.inotify.max_user_instances",
        128,
        "programs that watch files",
    ),
    (
        "kernel.keys.root_maxkeys",
        10_000,
        "session keyrings, one for each dyno",
    ),
    (
        "net.ipv4.neigh.default.gc_thresh3",
        1024,
        "addresses of dynos side by side",
    ),
    ("vm.max_map_count", 65_530, "databases that map their files"),
];

pub(super) fn checks() -> Vec<HostCheck> {
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let connections = (
        super::number(proc_file("net.netfilter.nf_conntrack_count")),
        super::number(proc_file("net.netfilter.nf_conntrack_max")),
    );
    let set = SETTINGS.map(|(name, ..)| super::number(proc_file(name)));
    vec![
        open_files(files),
        settings(&set),
        tracked(connections),
        pressure(&fs::read_to_string("/proc/pressure/memory").ok()),
    ]
}

fn proc_file(setting: &str) -> String {
    format!("/proc/sys/{}", setting.replace('.', "/"))
}

fn open_files(limit: u64) -> HostCheck {
    const NAME: &str = "open files";
    match limit {
        u64::MAX => HostCheck::ok(NAME, "no limit"),
        limit if limit < OPEN_FILES => HostCheck::warning(
            NAME,
            format!("at most {limit} for hostd: some hundred dynos need {OPEN_FILES}"),
        )
        .advise("hostd install sets LimitNOFILE=; by hand: ulimit -Hn 1048576"),
        limit => HostCheck::ok(NAME, format!("at most {limit}")),
    }
}

fn settings(set: &[Option<u64>]) -> HostCheck {
    const NAME: &str = "sysctls";
    let low: Vec<_> = SETTINGS
        .iter()
        .zip(set)
        .filter_map(|((name, least, what), set)| Some((name, least, what, (*set)?)))
        .filter(|(_, least, _, set)| set < *least)
        .collect();
    if low.is_empty() {
        return HostCheck::ok(NAME, "high enough");
    }
    let found = low
        .iter()
        .map(|(name, _, what, set)| format!("{name} is {set}, for {what}"));
    let advice = low
        .iter()
        .map(|(name, least, ..)| format!("{name}={least}"));
    HostCheck::warning(NAME, found.collect::<Vec<_>>().join("; ")).advise(format!(
        "sysctl -w {}, and in /etc/sysctl.d to stay",
        advice.collect::<Vec<_>>().join(" ")
    ))
}

fn tracked((count, most): (Option<u64>, Option<u64>)) -> HostCheck {
    const NAME: &str = "tracked connections";
    match (count, most) {
        (Some(count), Some(most)) if count.saturating_mul(100) >= most * NEARLY_FULL => {
            HostCheck::warning(
                NAME,
                format!("{count} of {most}: new ones are dropped when it is full"),
            )
            .advise(format!(
                "sysctl -w net.netfilter.nf_conntrack_max={}",
                most * 2
            ))
        }
        (Some(count), Some(most)) => HostCheck::ok(NAME, format!("{count} of {most}")),
        _ => HostCheck::ok(NAME, "none yet"),
    }
}

/// `/proc/pressure/memory`, Documentation/accounting/psi.rst.
fn pressure(text: &Option<String>) -> HostCheck {
    const NAME: &str = "memory pressure";
    let Some(text) = text else {
        return HostCheck::warning(
            NAME,
            "the kernel does not measure it: dyno stats has no PSI",
        )
        .advise("boot with psi=1 on the kernel's command line");
    };
    let of_a_minute = text
        .lines()
        .find_map(|line| line.strip_prefix("full "))
        .and_then(|line| {
            line.split(' ')
                .find_map(|field| field.strip_prefix("avg60="))
        })
        .and_then(|value| value.parse::<f64>().ok());
    match of_a_minute {
        Some(percent) if percent >= 10.0 => HostCheck::warning(
            NAME,
            format!("everything waited for memory in {percent} % of the last minute"),
        )
        .advise("run less here, or give the machine more memory: dyno stats shows who uses it"),
        _ => HostCheck::ok(NAME, "none to speak of"),
    }
}

#[cfg(test)]
mod tests {
    use dyno_api::doctor::CheckState::{Ok, Warning};

    use super::*;

    #[test]
    fn what_is_low_is_named_with_what_to_set() {
        let enough = SETTINGS.map(|(_, least, _)| Some(least));
        assert_eq!(settings(&enough).state, Ok);
        assert_eq!(settings(&[None; 5]).state, Ok, "an older kernel's");
        let mut low = enough;
        low[0] = Some(4096);
        let check = settings(&low);
        assert_eq!(check.state, Warning);
        assert!(check.found.contains("kernel.pid_max is 4096"), "{check:?}");
        let advice = check.advice.unwrap();
        assert!(
            advice.starts_with("sysctl -w kernel.pid_max=32768,"),
            "{advice}"
        );
    }

    #[test]
    fn the_settings_are_those_of_this_kernel() {
        let present = SETTINGS
            .iter()
            .filter(|(name, ..)| super::super::number(proc_file(name)).is_some());
        assert!(present.count() >= 4, "some names are wrong");
    }

    #[test]
    fn a_table_is_nearly_full_at_four_fifths() {
        assert_eq!(tracked((Some(79), Some(100))).state, Ok);
        assert_eq!(tracked((Some(80), Some(100))).state, Warning);
        assert_eq!(tracked((None, None)).state, Ok);
        assert_eq!(open_files(1024).state, Warning);
        assert_eq!(open_files(u64::MAX).state, Ok);
    }

    #[test]
    fn pressure_is_what_everything_waited_in_a_minute() {
        let line = |percent: &str| {
            let full = format!("full avg10=0.00 avg60={percent} avg300=0.00 total=1\n");
            Some(format!(
                "some avg10=99.00 avg60=99.00 avg300=99.00 total=2\n{full}"
            ))
        };
        assert_eq!(pressure(&line("0.50")).state, Ok);
        assert_eq!(pressure(&line("12.75")).state, Warning);
        assert_eq!(pressure(&None).state, Warning);
    }
}
