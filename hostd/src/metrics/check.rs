//! A strict reader of both formats, for tests, those of the whole product among them: it
//! refuses what a lenient one lets pass.

use std::collections::{BTreeMap, BTreeSet};

/// Names and values.
pub type Labels = Vec<(String, String)>;

/// One line with a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its name, suffix included.
    pub name: String,
    /// Names and values of its labels, in order.
    pub labels: Labels,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// The value of this label.
    pub fn label(&self, name: &str) -> Option<&str> {
        let label = self.labels.iter().find(|(own, _)| own == name);
        label.map(|(_, value)| value.as_str())
    }
}

/// The samples of a page.
///
/// # Errors
/// The first line that is not as it should be.
pub fn parse(page: &str, open_metrics: bool) -> Result<Vec<Sample>, String> {
    let body = match open_metrics {
        false => page,
        true => page.strip_suffix("# EOF\n").ok_or("no # EOF at the end")?,
    };
    if !body.is_empty() && !body.ends_with('\n') {
        return Err("no newline at the end".to_owned());
    }
    let (mut samples, mut seen) = (Vec::new(), BTreeSet::new());
    let (mut families, mut helped) = (BTreeMap::new(), None::<String>);
    let mut current: Option<(String, String)> = None;
    for line in body.split_terminator('\n') {
        let wrong = |why: &str| format!("{why}: {line:?}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, _) = rest.split_once(' ').ok_or(wrong("no help"))?;
            helped = Some(name.to_owned());
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or(wrong("no type"))?;
            if helped.take().as_deref() != Some(name) {
                return Err(wrong("a type without its help before it"));
            }
            if families.insert(name.to_owned(), kind.to_owned()).is_some() {
                return Err(wrong("a family in two places"));
            }
            current = Some((name.to_owned(), kind.to_owned()));
            continue;
        }
        let sample = sample(line).map_err(|why| wrong(&why))?;
        let (family, kind) = current.as_ref().ok_or(wrong("a sample without a type"))?;
        check_name(&sample, family, kind, open_metrics).map_err(|why| wrong(&why))?;
        let key = (sample.name.clone(), sample.labels.clone());
        if !seen.insert(key) {
            return Err(wrong("the same series twice"));
        }
        samples.push(sample);
    }
    check_histograms(&samples, &families)?;
    Ok(samples)
}

fn check_name(sample: &Sample, family: &str, kind: &str, open_metrics: bool) -> Result<(), String> {
    let suffix = sample
        .name
        .strip_prefix(family)
        .ok_or("a sample of another family")?;
    let allowed: &[&str] = match (kind, open_metrics) {
        ("counter", false) if family.ends_with("_total") => &[""],
        ("counter", true) if !family.ends_with("_total") => &["_total"],
        ("info", true) => &["_info"],
        ("gauge", _) => &[""],
        ("histogram", _) => &["_bucket", "_sum", "_count"],
        _ => return Err(format!("no such type here: {kind}")),
    };
    if !allowed.contains(&suffix) {
        return Err(format!("a {kind} has no {suffix:?}"));
    }
    if kind != "gauge" && sample.value < 0.0 {
        return Err("less than nothing".to_owned());
    }
    Ok(())
}

/// Buckets rise, end with +Inf, and that is the count.
fn check_histograms(samples: &[Sample], families: &BTreeMap<String, String>) -> Result<(), String> {
    for (family, _) in families.iter().filter(|(_, kind)| *kind == "histogram") {
        let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        let bucket = format!("{family}_bucket");
        for sample in samples.iter().filter(|sample| sample.name == bucket) {
            let bound = match sample.label("le").ok_or("a bucket without le")? {
                "+Inf" => f64::INFINITY,
                bound => bound.parse().map_err(|error| format!("{bound}: {error}"))?,
            };
            let mut labels = sample.labels.clone();
            labels.retain(|(name, _)| name != "le");
            series
                .entry(labels)
                .or_default()
                .push((bound, sample.value));
        }
        for (labels, buckets) in series {
            let rises = buckets.is_sorted();
            let last = buckets.last().copied();
            let count = format!("{family}_count");
            let count = samples
                .iter()
                .find(|s| s.name == count && s.labels == labels);
            let count = count.ok_or("a histogram without a count")?.value;
            if !rises || last != Some((f64::INFINITY, count)) {
                return Err(format!("{family} {labels:?}: {buckets:?} and {count}"));
            }
        }
    }
    Ok(())
}

fn sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name) {
        return Err(format!("no name: {name:?}"));
    }
    let mut labels: Vec<(String, String)> = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or("no label")?;
            if !is_name(label) || label.contains(':') {
                return Err(format!("no label name: {label:?}"));
            }
            if labels.iter().any(|(name, _)| name == label) {
                return Err(format!("twice the label {label}"));
            }
            let (value, after) = quoted(after)?;
            labels.push((label.to_owned(), value));
            match after.strip_prefix(',') {
                Some(after) => rest = after,
                None => {
                    rest = after.strip_prefix('}').ok_or("no end of the labels")?;
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
    let is_plain = value
        .bytes()
        .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    match value.parse() {
        Ok(number) if is_plain => Ok(Sample {
            name: name.to_owned(),
            labels,
            value: number,
        }),
        _ => Err(format!("no number: {value:?}")),
    }
}

/// The value up to its closing quote, and what follows.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, '\\')) => value.push('\\'),
                Some((_, '"')) => value.push('"'),
                Some((_, 'n')) => value.push('\n'),
                other => return Err(format!("no such escape: {other:?}")),
            },
            other => value.push(other),
        }
    }
    Err("no closing quote".to_owned())
}

fn is_name(name: &str) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    !name.is_empty() && name.chars().all(ok) && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[test]
fn it_refuses_what_is_wrong() {
    let head = "# HELP a A.\n# TYPE a gauge\n";
    assert_eq!(
        parse(&format!("{head}a{{x=\"\"}} 1\n"), false)
            .unwrap()
            .len(),
        1
    );
    for wrong in [
        "a 1\n",
        "# TYPE a gauge\na 1\n",
        "# HELP a A.\n# TYPE a gauge\na 1",
        "# HELP a A.\n# TYPE a gauge\na 1\na 2\n",
        "# HELP a A.\n# TYPE a gauge\nb 1\n",
        "# HELP a A.\n# TYPE a counter\na 1\n",
        "# HELP a A.\n# TYPE a gauge\na{x=\"\n\"} 1\n",
        "# HELP a A.\n# TYPE a gauge\na{x=\"\\t\"} 1\n",
        "# HELP a A.\n# TYPE a gauge\na{1=\"\"} 1\n",
        "# HELP a A.\n# TYPE a gauge\na{x=\"\",} 1\n",
        "# HELP a A.\n# TYPE a gauge\na 1 \n",
        "# HELP a A.\n# TYPE a gauge\na one\n",
        "# HELP a A.\n# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 2\n",
    ] {
        assert!(parse(wrong, false).is_err(), "{wrong:?}");
    }
    assert!(parse(&format!("{head}a 1\n"), true).is_err());
}
