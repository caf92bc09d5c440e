//! Metrics as text: the exposition format 0.0.4 of Prometheus, or OpenMetrics 1.0.
//!
//! Written here and not by a crate: those there are keep the values themselves and
//! write one of the two formats, while ours are the kernel's, read at each scrape.

use std::fmt::{Display, Write};

/// Bytes of a label's value; what is longer is cut (P15).
pub(super) const MAX_LABEL: usize = 256;

/// How a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`.
    Text,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

impl Format {
    /// The one that an `Accept` header likes best, the text format where it does not say
    /// (RFC 9110, section 12.5.1).
    pub fn of(accept: Option<&str>) -> Self {
        let (mut open, mut text) = (0.0, 0.0);
        for range in accept.unwrap_or("*/*").split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut version) = (1.0_f32, "1.0.0");
            for part in parts {
                match part.split_once('=') {
                    Some(("q", value)) => quality = value.parse().unwrap_or(0.0),
                    Some(("version", value)) => version = value.trim_matches('"'),
                    _ => {}
                }
            }
            match kind.as_str() {
                "application/openmetrics-text" if version == "1.0.0" => open = quality.max(open),
                "text/plain" | "text/*" | "*/*" => text = quality.max(text),
                _ => {}
            }
        }
        match open > 0.0 && open >= text {
            true => Self::OpenMetrics,
            false => Self::Text,
        }
    }

    /// The `Content-Type` of such a page.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What the values of a family are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, but for restarts; its samples are called `…_total`.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Always 1, said by its labels; its samples are called `…_info`.
    Info,
    /// Buckets, sum and count.
    Histogram,
}

/// The label names and values of one sample.
pub(super) type Labels<'a> = &'a [(&'static str, &'a str)];

/// A page that is being written.
#[derive(Debug)]
pub struct Page {
    text: String,
    format: Format,
}

/// One family of a page; its samples follow each other.
#[derive(Debug)]
pub struct Family<'a> {
    page: &'a mut Page,
    name: &'static str,
    kind: Kind,
    begun: Option<&'static str>,
}

impl Page {
    /// An empty page.
    pub fn new(format: Format) -> Self {
        Self {
            text: String::new(),
            format,
        }
    }

    /// Begins a family. `name` is without the suffix that its kind gives; `help` is one line.
    /// A family without samples is left out.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> Family<'_> {
        Family {
            page: self,
            name,
            kind,
            begun: Some(help),
        }
    }

    /// A family of one sample without labels; none where there is no value.
    pub fn single(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &'static str,
        value: Option<impl Display>,
    ) {
        let mut family = self.family(name, kind, help);
        if let Some(value) = value {
            family.sample(&[], value);
        }
    }

    /// The whole page.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

impl Family<'_> {
    /// One sample. The value is a number as `Display` writes it.
    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.line(suffix, labels, value);
    }

    /// One histogram. `buckets` are upper bounds with how many values were not above them,
    /// rising in both; `count` is how many there were.
    pub fn histogram(
        &mut self,
        labels: Labels<'_>,
        buckets: impl IntoIterator<Item = (&'static str, u64)>,
        sum: f64,
        count: u64,
    ) {
        for (bound, below) in buckets.into_iter().chain([("+Inf", count)]) {
            let labels = [labels, &[("le", bound)]].concat();
            self.line("_bucket", &labels, below);
        }
        self.line("_sum", labels, sum);
        self.line("_count", labels, count);
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, value: impl Display) {
        self.begin();
        let text = &mut self.page.text;
        text.push_str(self.name);
        text.push_str(suffix);
        let mut open = '{';
        for (name, value) in labels {
            text.push(open);
            text.push_str(name);
            text.push_str("=\"");
            escape(text, bounded(value));
            text.push('"');
            open = ',';
        }
        if open == ',' {
            text.push('}');
        }
        if writeln!(text, " {value}").is_err() {
            tracing::trace!("a String takes everything");
        }
    }

    fn begin(&mut self) {
        let Some(help) = self.begun.take() else {
            return;
        };
        let (kind, suffix) = match (self.kind, self.page.format) {
            (Kind::Counter, Format::Text) => ("counter", "_total"),
            (Kind::Counter, Format::OpenMetrics) => ("counter", ""),
            (Kind::Gauge, _) => ("gauge", ""),
            (Kind::Info, Format::Text) => ("gauge", "_info"),
            (Kind::Info, Format::OpenMetrics) => ("info", ""),
            (Kind::Histogram, _) => ("histogram", ""),
        };
        let text = &mut self.page.text;
        for (word, rest) in [("HELP", help), ("TYPE", kind)] {
            for part in ["# ", word, " ", self.name, suffix, " ", rest, "\n"] {
                text.push_str(part);
            }
        }
    }
}

fn bounded(value: &str) -> &str {
    value
        .get(..value.floor_char_boundary(MAX_LABEL))
        .unwrap_or_default()
}

fn escape(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::check::{Sample, parse};
    use super::*;

    const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
        application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,\
        text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

    #[test]
    fn the_format_is_the_one_that_is_asked_for() {
        for (accept, format) in [
            (None, Format::Text),
            (Some("*/*"), Format::Text),
            (Some("text/plain"), Format::Text),
            (Some("application/json"), Format::Text),
            (Some("application/openmetrics-text"), Format::OpenMetrics),
            (
                Some("application/openmetrics-text; version=0.0.1"),
                Format::Text,
            ),
            (Some("application/openmetrics-text;q=0"), Format::Text),
            (
                Some("application/openmetrics-text;q=0.1, text/plain"),
                Format::Text,
            ),
            (Some(PROMETHEUS), Format::OpenMetrics),
        ] {
            assert_eq!(Format::of(accept), format, "{accept:?}");
        }
    }

    #[test]
    fn a_page_is_what_the_two_formats_say() {
        let write = |format| {
            let mut page = Page::new(format);
            page.single("dyno_a", Kind::Gauge, "One thing.", Some(1.5));
            page.single("dyno_none", Kind::Gauge, "Nothing.", None::<u64>);
            let mut family = page.family("dyno_b", Kind::Counter, "Another.");
            family.sample(&[("dyno", "web"), ("to", "a\"b\\c\nd")], 7);
            page.finish()
        };
        let samples = "dyno_b_total{dyno=\"web\",to=\"a\\\"b\\\\c\\nd\"} 7\n";
        assert_eq!(
            write(Format::Text),
            format!(
                "# HELP dyno_a One thing.\n# TYPE dyno_a gauge\ndyno_a 1.5\n\
                 # HELP dyno_b_total Another.\n# TYPE dyno_b_total counter\n{samples}"
            )
        );
        assert_eq!(
            write(Format::OpenMetrics),
            format!(
                "# HELP dyno_a One thing.\n# TYPE dyno_a gauge\ndyno_a 1.5\n\
                 # HELP dyno_b Another.\n# TYPE dyno_b counter\n{samples}# EOF\n"
            )
        );
    }

    proptest! {
        /// P15: whatever a label says, it is one line, comes back, and is bounded.
        #[test]
        fn any_label_comes_back(value in "\\PC{0,40}|[\"\\\\\n\r\t{},=# é]{0,300}", other: String) {
            for format in [Format::Text, Format::OpenMetrics] {
                let mut page = Page::new(format);
                let mut family = page.family("dyno_x", Kind::Gauge, "X.");
                family.sample(&[("a", &value), ("b", &other)], 3);
                let samples = parse(&page.finish(), format == Format::OpenMetrics).unwrap();
                prop_assert_eq!(&samples, &[Sample {
                    name: "dyno_x".to_owned(),
                    labels: vec![
                        ("a".to_owned(), bounded(&value).to_owned()),
                        ("b".to_owned(), bounded(&other).to_owned()),
                    ],
                    value: 3.0,
                }]);
                prop_assert!(samples[0].labels.iter().all(|(_, value)| value.len() <= MAX_LABEL));
            }
        }
    }
}
