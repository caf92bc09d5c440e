//! Every write of a disk in order, as QEMU's `blklogwrites` driver records it,
//! and what the disk holds after some of them.
//!
//! ```text
//! │ superblock │ entry │ its data │ entry │ its data │ …     in sectors of the log
//! ```
//! The format is that of dm-log-writes
//! (`Documentation/admin-guide/device-mapper/log-writes.rst`).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;

/// Flags of an entry.
const FLUSH: u64 = 1;
const FUA: u64 = 1 << 1;
const DISCARD: u64 = 1 << 2;

/// What the guest asked its disk to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    flags: u64,
    /// Where on the disk, in bytes.
    offset: u64,
    /// How much was written there.
    length: u64,
    /// Where that is in the log.
    data: u64,
    /// Where the log goes on.
    end: u64,
}

/// A log that nobody writes to any more.
#[derive(Debug)]
pub struct WriteLog {
    file: File,
    entries: Vec<Entry>,
}

impl WriteLog {
    /// Reads the entries that are there as a whole: the last ones were cut off
    /// together with the power.
    ///
    /// # Errors
    /// When it cannot be read or is no such log.
    pub fn open(path: &Path) -> Result<Self> {
        let reading = || format!("reading {}", path.display());
        let file = File::open(path).with_context(reading)?;
        let length = file.metadata().with_context(reading)?.len();
        let entries = entries(&file, length).with_context(reading)?;
        Ok(Self { file, entries })
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The numbers of entries after which all before is on the disk for good.
    #[must_use]
    pub fn flushes(&self) -> Vec<usize> {
        let flushes = |entry: &Entry| entry.flags & (FLUSH | FUA) != 0;
        let numbered = self.entries.iter().zip(1..);
        numbered
            .filter_map(|(entry, count)| flushes(entry).then_some(count))
            .collect()
    }

    /// How long the log was when the first `count` entries were in it.
    #[must_use]
    pub fn length_after(&self, count: usize) -> u64 {
        count
            .checked_sub(1)
            .and_then(|last| self.entries.get(last))
            .map_or(0, |entry| entry.end)
    }

    /// Does to `disk` what the entry of this number, from 0, did.
    ///
    /// # Errors
    /// When the log cannot be read or the disk not be written.
    pub fn replay(&self, number: usize, disk: &File) -> Result<()> {
        let entry = self.entries.get(number).context("no such entry")?;
        // What a discarded block holds is not defined: it may well be the old.
        if entry.flags & DISCARD != 0 {
            return Ok(());
        }
        let length = usize::try_from(entry.length).context("a write of that size")?;
        let mut data = vec![0; length];
        self.file
            .read_exact_at(&mut data, entry.data)
            .context("reading what was written")?;
        disk.write_all_at(&data, entry.offset)
            .context("writing it again")
    }
}

fn entries(log: &File, length: u64) -> Result<Vec<Entry>> {
    let mut superblock = [0; 28];
    log.read_exact_at(&mut superblock, 0)?;
    let (magic, version) = (number(&superblock, 0), number(&superblock, 1));
    ensure!(
        magic == MAGIC && version == VERSION,
        "no log of writes: magic {magic:#x}, version {version}"
    );
    let promised = number(&superblock, 2);
    // The last field has four bytes.
    let sector = u64::from(u32::from_le_bytes(
        superblock[24..].try_into().context("a sector size")?,
    ));
    ensure!(
        sector >= 512 && sector.is_power_of_two(),
        "sectors of {sector} bytes"
    );
    let mut entries = Vec::new();
    let mut at = sector;
    while at + sector <= length {
        let mut header = [0; 32];
        log.read_exact_at(&mut header, at)?;
        let [first, sectors, flags] = [0, 1, 2].map(|field| number(&header, field));
        if [first, sectors, flags] == [0; 3] {
            break;
        }
        if flags & !(FLUSH | FUA | DISCARD) != 0 {
            bail!("an entry with the flags {flags:#x} at {at}");
        }
        let written = if flags & DISCARD == 0 { sectors } else { 0 };
        let overflow = || format!("a write of {sectors} sectors at {at}");
        let length_of = |sectors: u64| sectors.checked_mul(sector).with_context(overflow);
        let data = at + sector;
        let entry = Entry {
            flags,
            offset: length_of(first)?,
            length: length_of(written)?,
            data,
            end: data
                .checked_add(length_of(written)?)
                .with_context(overflow)?,
        };
        if entry.end > length {
            break;
        }
        at = entry.end;
        entries.push(entry);
    }
    ensure!(
        entries.len() as u64 >= promised,
        "{} entries of {promised}",
        entries.len()
    );
    Ok(entries)
}

/// The field of this number, from 0.
fn number(block: &[u8], field: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&block[field * 8..field * 8 + 8]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A log in memory, that is, in a file without a name.
    fn log(promised: u64, writes: &[(u64, u64, u64, &[u8])]) -> File {
        let mut bytes = Vec::new();
        for field in [MAGIC, VERSION, promised] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(512_u32.to_le_bytes());
        bytes.resize(512, 0);
        for (sector, sectors, flags, data) in writes {
            let begin = bytes.len();
            for field in [*sector, *sectors, *flags, 0] {
                bytes.extend(field.to_le_bytes());
            }
            bytes.resize(begin + 512, 0);
            bytes.extend(*data);
        }
        let mut file = anonymous();
        file.write_all(&bytes).unwrap();
        file
    }

    fn anonymous() -> File {
        rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC)
            .unwrap()
            .into()
    }

    fn parsed(file: File) -> Result<WriteLog> {
        let length = file.metadata()?.len();
        let entries = entries(&file, length)?;
        Ok(WriteLog { file, entries })
    }

    #[test]
    fn writes_are_replayed_where_they_went() {
        let (ones, twos) = ([1; 512], [2; 1024]);
        let log = parsed(log(
            3,
            &[(3, 1, 0, &ones), (0, 0, FLUSH, &[]), (1, 2, FUA, &twos)],
        ));
        let log = log.unwrap();
        assert_eq!(log.flushes(), [2, 3]);
        assert_eq!(log.length_after(0), 0);
        assert_eq!(log.length_after(1), 512 * 3);
        assert_eq!(log.length_after(2), 512 * 4);
        let disk = anonymous();
        for number in 0..log.len() {
            log.replay(number, &disk).unwrap();
        }
        let mut content = [0; 2048];
        disk.read_exact_at(&mut content, 0).unwrap();
        assert_eq!(content[..512], [0; 512]);
        assert_eq!(content[512..1536], twos);
        assert_eq!(content[1536..], ones);
    }

    #[test]
    fn a_discard_has_no_data_and_changes_nothing() {
        let data = [7; 512];
        let log = parsed(log(2, &[(0, 8, DISCARD, &[]), (0, 1, 0, &data)])).unwrap();
        assert_eq!(log.len(), 2);
        let disk = anonymous();
        log.replay(0, &disk).unwrap();
        assert_eq!(disk.metadata().unwrap().len(), 0);
    }

    #[test]
    fn what_was_cut_off_is_no_entry() {
        let whole = [1; 512];
        let cut = [2; 100];
        let log = parsed(log(1, &[(0, 1, 0, &whole), (1, 1, 0, &cut)])).unwrap();
        assert_eq!(log.len(), 1);
    }

    #[test]
    fn what_is_no_log_is_refused() {
        let refused = |file| parsed(file).unwrap_err().to_string();
        let mut file = anonymous();
        file.write_all(&[9; 4096]).unwrap();
        assert!(refused(file).contains("no log of writes"));
        assert!(refused(log(1, &[])).contains("0 entries of 1"));
        assert!(refused(log(0, &[(0, 0, 64, &[])])).contains("flags"));
        assert!(refused(log(0, &[(0, u64::MAX, 0, &[])])).contains("a write of"));
    }
}
