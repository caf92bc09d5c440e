//! Block devices: v1's tables, and v2's `io.stat` brought into their form.

use super::super::error::Result;
use super::read::Folder;
use super::{Blkio, BlkioEntry};

/// Which files there are depends on scheduler and kernel. Of each pair, the first whose
/// bytes list any device serves, in runc's order.
const V1: [&str; 5] = [
    "blkio.bfq.",
    "blkio.",
    "blkio.throttle.",
    "blkio.bfq.",
    "blkio.throttle.",
];

pub(super) fn v1(folder: Folder<'_>) -> Result<Blkio> {
    let mut found = Blkio::default();
    for (index, prefix) in V1.into_iter().enumerate() {
        let end = if index < 3 { "_recursive" } else { "" };
        let read =
            |name: &str| -> Result<_> { Ok(table(&folder.text(&format!("{prefix}{name}{end}"))?)) };
        let bytes = read("io_service_bytes")?;
        if bytes.is_empty() {
            continue;
        }
        found = Blkio {
            io_service_bytes_recursive: bytes,
            io_serviced_recursive: read("io_serviced")?,
            io_queue_recursive: read("io_queued")?,
            io_service_time_recursive: read("io_service_time")?,
            io_wait_time_recursive: read("io_wait_time")?,
            io_merged_recursive: read("io_merged")?,
            io_time_recursive: read("time")?,
            sectors_recursive: read("sectors")?,
            psi: None,
        };
        break;
    }
    Ok(found)
}

/// Lines `8:0 Read 1` or `8:0 1`, and one `Total 3`.
fn table(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let mut fields = line.split([' ', ':']);
        let (major, minor) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let (first, second) = (fields.next()?, fields.next());
        let (op, value) = second.map_or(("", first), |value| (first, value));
        Some(BlkioEntry {
            major,
            minor,
            op: op.to_owned(),
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

/// Lines `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
pub(super) fn v2(text: &str) -> Blkio {
    let mut found = Blkio::default();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let numbers = fields.next().and_then(|device| device.split_once(':'));
        let Some((Ok(major), Ok(minor))) =
            numbers.map(|(major, minor)| (major.parse(), minor.parse()))
        else {
            continue;
        };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let (table, op) = match key {
                "rbytes" => (&mut found.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut found.io_service_bytes_recursive, "Write"),
                "rios" => (&mut found.io_serviced_recursive, "Read"),
                "wios" => (&mut found.io_serviced_recursive, "Write"),
                _ => continue,
            };
            let Ok(value) = value.parse() else {
                continue;
            };
            table.push(BlkioEntry {
                major,
                minor,
                op: op.to_owned(),
                value,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_give_the_same_tables() {
        let entry = |op: &str, value| BlkioEntry {
            major: 8,
            minor: 16,
            op: op.into(),
            value,
        };
        let v1 = table("8:16 Read 10\n8:16 Write 20\nTotal 30");
        assert_eq!(v1, [entry("Read", 10), entry("Write", 20)]);
        assert_eq!(table("8:16 7"), [entry("", 7)]);
        let v2 = v2("8:16 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n254:0");
        assert_eq!(v2.io_service_bytes_recursive, v1);
        assert_eq!(
            v2.io_serviced_recursive,
            [entry("Read", 1), entry("Write", 2)]
        );
    }
}
