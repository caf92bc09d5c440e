//! A screen of dynos: a line each, a graph for each thing that is measured.

use super::Sort;
use super::history::{History, Seen};
use super::sample::Sample;
use crate::command::usage::Use;
use crate::output::Table;
use crate::output::table::Cell;
use crate::value::size;

/// Columns of a value.
const VALUE: usize = 9;
/// Columns of a name, at most: so many, and that part of the screen.
const NAME: (usize, usize) = (24, 6);
/// A graph is not drawn with less columns than this.
const LEAST_GRAPH: usize = 2;
const MOST_GRAPH: usize = 24;
/// From nothing to full.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// One thing that is measured.
struct Metric {
    heading: &'static str,
    sort: Sort,
    /// As people read it.
    text: fn(&Sample) -> String,
    /// As it is drawn, in parts of `full`.
    value: fn(&Sample) -> f64,
    /// What fills a graph at the least; else the highest value in it does.
    full: fn(&Sample) -> f64,
}

const METRICS: [Metric; 5] = [
    Metric {
        heading: "CPU",
        sort: Sort::Cpu,
        text: |sample| format!("{:.1}%", sample.cpu_percent),
        value: |sample| sample.cpu_percent,
        full: |_| 100.0,
    },
    Metric {
        heading: "MEMORY",
        sort: Sort::Memory,
        text: |sample| short(sample.memory_bytes),
        value: |sample| float(sample.memory_bytes),
        full: |sample| sample.memory_max_bytes.map_or(1.0, float),
    },
    Metric {
        heading: "PRESSURE",
        sort: Sort::Pressure,
        text: |sample| format!("{:.1}%", sample.pressure()),
        value: Sample::pressure,
        full: |_| 100.0,
    },
    Metric {
        heading: "IO/S",
        sort: Sort::Io,
        text: |sample| short(sample.io_bytes_per_second),
        value: |sample| float(sample.io_bytes_per_second),
        full: |_| 64.0 * 1024.0,
    },
    Metric {
        heading: "NET/S",
        sort: Sort::Net,
        text: |sample| short(sample.net_bytes_per_second),
        value: |sample| float(sample.net_bytes_per_second),
        full: |_| 64.0 * 1024.0,
    },
];

#[expect(clippy::cast_precision_loss, reason = "it is drawn in eight steps")]
fn float(value: u64) -> f64 {
    value as f64
}

/// `1.5G`: a size in few columns.
fn short(bytes: u64) -> String {
    size::human(bytes).replace([' ', 'i'], "").replace('B', "")
}

/// What fills a terminal of this size: lines without their ends, none wider.
pub(super) fn screen(history: &History, sort: Sort, rows: usize, columns: usize) -> Vec<String> {
    let dynos = history.sorted(sort);
    let longest = dynos.iter().map(|seen| seen.name.chars().count()).max();
    let most = NAME.0.min(columns / NAME.1).max(4);
    let name = longest.unwrap_or(0).clamp(4, most);
    let metrics = METRICS.len();
    let values = metrics * (VALUE + 1) + 6;
    let graph = columns.saturating_sub(name + values) / metrics;
    let graph = if graph < LEAST_GRAPH {
        0
    } else {
        graph.min(MOST_GRAPH)
    };
    let mut lines = vec![format!(
        "{} dynos   sort: c cpu  m memory  p pressure  i io  n net  a name   q quit",
        dynos.len()
    )];
    let mut heading = format!("{:name$} {:>5}", "NAME", "PIDS");
    for metric in &METRICS {
        let mark = if metric.sort == sort { "▼" } else { "" };
        let title = format!("{}{mark}", metric.heading);
        heading.push_str(&format!("{title:>VALUE$} {:graph$}", ""));
    }
    lines.push(heading);
    for seen in dynos {
        lines.push(line(seen, name, graph));
    }
    lines.truncate(rows);
    lines
        .into_iter()
        .map(|line| line.chars().take(columns).collect())
        .collect()
}

fn line(seen: &Seen, name: usize, graph: usize) -> String {
    let shown: String = seen.name.chars().take(name).collect();
    let mut line = format!("{shown:name$} {:>5}", seen.pids);
    for metric in &METRICS {
        let text = (metric.text)(&seen.now());
        line.push_str(&format!(
            "{text:>VALUE$} {:>graph$}",
            drawn(seen, metric, graph)
        ));
    }
    line
}

/// The last samples, one character each.
fn drawn(seen: &Seen, metric: &Metric, width: usize) -> String {
    let skipped = seen.samples.len().saturating_sub(width);
    let samples = || seen.samples.iter().skip(skipped);
    let highest = samples().map(metric.value).fold(0.0, f64::max);
    let full = highest.max((metric.full)(&seen.now()));
    samples()
        .map(|sample| block((metric.value)(sample) / full))
        .collect()
}

/// A part of one as a block; nothing is a space.
fn block(part: f64) -> char {
    let mut steps = BLOCKS.iter().zip(1_u8..);
    let fits = |step: u8| part <= f64::from(step) / 8.0;
    match part {
        part if part <= 0.0 => ' ',
        _ => steps
            .find(|(_, step)| fits(*step))
            .map_or('█', |(block, _)| *block),
    }
}

/// The same as a table, without graphs.
pub(super) fn table(uses: &[Use]) -> Table {
    let mut table = Table::new(&[
        "NAME",
        ">PIDS",
        ">CPU",
        ">MEMORY",
        ">PRESSURE",
        ">IO/S",
        ">NET/S",
    ]);
    for one in uses {
        let sample = Sample::of(one);
        let values = METRICS.iter().map(|metric| (metric.text)(&sample));
        table.row(
            [
                Cell::from(one.name.as_str()),
                Cell::from(one.stats.pids.to_string()).right(),
            ]
            .into_iter()
            .chain(values.map(|text| Cell::from(text).right())),
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dyno_api::dyno::Stats;
    use dyno_api::name::DynoId;

    use super::*;

    fn history(dynos: &[(&str, f64, u64)], times: usize) -> History {
        let mut history = History::default();
        for _ in 0..times {
            let uses: Vec<Use> = dynos
                .iter()
                .zip(1..)
                .map(|((name, cpu_percent, memory_bytes), id)| Use {
                    id: DynoId::from_bytes([id; 6]),
                    name: name.parse().unwrap(),
                    cpu_percent: *cpu_percent,
                    stats: Stats {
                        memory_bytes: *memory_bytes,
                        ..Stats::default()
                    },
                    before: Some((Duration::from_secs(1), Stats::default())),
                })
                .collect();
            history.take(&uses);
        }
        history
    }

    fn names(lines: &[String]) -> Vec<&str> {
        let dynos = lines.iter().skip(2);
        dynos.map(|line| line.split(' ').next().unwrap()).collect()
    }

    #[test]
    fn a_key_chooses_the_order() {
        let history = history(&[("b", 5.0, 300), ("c", 90.0, 100), ("a", 5.0, 200)], 1);
        for (key, expected) in [
            (b'c', ["c", "a", "b"]),
            (b'M', ["b", "a", "c"]),
            (b'a', ["a", "b", "c"]),
        ] {
            let sort = Sort::of_key(key).unwrap();
            assert_eq!(names(&screen(&history, sort, 24, 80)), expected, "{key}");
        }
        assert_eq!(Sort::of_key(b'x'), None);
    }

    #[test]
    fn no_screen_is_larger_than_the_terminal() {
        let name = "n".repeat(60);
        let history = history(&[(&name, 250.0, 1 << 40), ("b", 0.0, 0)], 70);
        for (rows, columns) in [(1, 1), (3, 20), (24, 80), (50, 132), (10, 400)] {
            let lines = screen(&history, Sort::Cpu, rows, columns);
            assert!(lines.len() <= rows, "{rows} rows");
            let widest = lines.iter().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= columns, "{widest} columns of {columns}");
        }
        for columns in [80, 200] {
            let shown = screen(&history, Sort::Cpu, 24, columns).join("\n");
            assert!(
                shown.contains("250.0% ██") && shown.contains(" 1T █"),
                "{shown}"
            );
        }
    }

    #[test]
    fn a_graph_goes_from_nothing_to_full() {
        let drawn: String = [0.0, 0.01, 0.125, 0.5, 0.99, 1.0, 2.0]
            .map(block)
            .iter()
            .collect();
        assert_eq!(drawn, " ▁▁▄███");
    }
}
