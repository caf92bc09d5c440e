//! Lines of a `schemata` file: `L3:0=fffff;1=3ff`, `MB:0=20;1=70`.

use std::collections::BTreeMap;

/// The resource of a line, and its value in each domain.
fn parsed(line: &str) -> Option<(&str, BTreeMap<&str, String>)> {
    let (resource, domains) = line.split_once(':')?;
    let resource = resource.trim();
    let mut values = BTreeMap::new();
    for domain in domains
        .split(';')
        .filter(|domain| !domain.trim().is_empty())
    {
        let (domain, value) = domain.split_once('=')?;
        values.insert(domain.trim(), plain(resource, value.trim()));
    }
    Some((resource, values))
}

/// Masks are hexadecimal, with as many leading zeros as somebody likes.
fn plain(resource: &str, value: &str) -> String {
    let mask = u64::from_str_radix(value, 16).ok();
    match mask.filter(|_| resource.starts_with('L')) {
        Some(mask) => format!("{mask:x}"),
        None => value.to_owned(),
    }
}

/// The first line that is asked for and that a class has otherwise: what it has, what
/// was asked for. Domains that a line leaves out are asked of nobody.
pub(super) fn difference(there: &str, wanted: &[&str]) -> Option<(String, String)> {
    wanted.iter().find_map(|line| {
        let same = same_resources(there, &[line]);
        let has = same.first().and_then(|line| parsed(line));
        let agrees = match (parsed(line), has) {
            (Some((_, wanted)), Some((_, has))) => wanted
                .iter()
                .all(|(domain, value)| has.get(domain) == Some(value)),
            _ => false,
        };
        let found = same.into_iter().next().unwrap_or_default();
        (!agrees).then(|| (found, (*line).to_owned()))
    })
}

/// The lines of a class that are of the resources of these.
pub(super) fn same_resources(there: &str, lines: &[&str]) -> Vec<String> {
    let of = |line: &str| line.split(':').next().map(|name| name.trim().to_owned());
    let named: Vec<_> = lines.iter().map(|line| of(line)).collect();
    there
        .lines()
        .filter(|line| named.contains(&of(line)))
        .map(|line| line.trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const THERE: &str = "    MB:0=100;1= 70\n    L3:0=0ff;1=7ff\nL3CODE:0=1\n";

    #[test]
    fn a_class_will_do_where_it_has_the_same_values_however_they_are_written() {
        for lines in [
            &["L3:0=ff;1=7ff"][..],
            &["L3: 1=07FF ; 0=ff;", "MB:1=70;0=100"],
            &["L3:0=ff"],
            &["L3CODE:0=0001"],
            &[],
        ] {
            assert_eq!(difference(THERE, lines), None, "{lines:?}");
        }
    }

    #[test]
    fn what_differs_is_told_by_the_line_that_the_class_has() {
        for (line, found) in [
            ("L3:0=f", "L3:0=0ff;1=7ff"),
            ("L3:2=ff", "L3:0=0ff;1=7ff"),
            ("MB:0=0100", "MB:0=100;1= 70"),
            ("L2:0=f", ""),
            ("nonsense", ""),
            ("L3:nonsense", "L3:0=0ff;1=7ff"),
        ] {
            let told = Some((found.to_owned(), line.to_owned()));
            assert_eq!(difference(THERE, &[line]), told, "{line}");
        }
    }
}
