//! The members of a tar stream, with long names, pax records and sparse maps applied.
//!
//! The tar crate parses header blocks; the walk from block to block is here, because every
//! buffer an archive can fill must have a bound and pax values may be binary.

use std::io::{self, Read};

use rustix::fs::Timespec;
use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use super::error::Refusal;
use super::pax::Pax;
use super::stream::Stream;
use crate::digest::Digest;

const BLOCK: u64 = 512;
/// P15: all extension headers of one member together.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;

/// One member: everything but its data, which is read from the archive next.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) kind: EntryType,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) mtime: Timespec,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Apparent size of the file.
    pub(super) size: u64,
    /// Where its stored bytes go; one extent for an ordinary file.
    pub(super) extents: Vec<Extent>,
}

/// A run of stored bytes of a file. What no extent covers is a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// Reads members one after the other.
pub(super) struct Archive<P> {
    stream: Stream<P>,
    /// Bytes of the current member's data not read yet.
    data: u64,
    /// Zeros that fill up its last block.
    padding: u64,
    /// What extension headers may still take, until the next member.
    budget: u64,
}

impl<P: FnMut(u64) -> io::Result<()>> Archive<P> {
    pub(super) fn new(stream: Stream<P>) -> Archive<P> {
        Archive {
            stream,
            data: 0,
            padding: 0,
            budget: 0,
        }
    }

    /// The next member. What of the previous one's data was not read is skipped.
    pub(super) fn next(&mut self) -> Result<Option<Member>, Refusal> {
        self.budget = MAX_EXTENSION_BYTES;
        let (mut pax, mut long_path, mut long_link) = (None, None, None);
        loop {
            self.skip_data()?;
            let Some(header) = self.header()? else {
                return match pax.is_none() && long_path.is_none() && long_link.is_none() {
                    true => Ok(None),
                    false => Err(Refusal::Format("extension header without a member")),
                };
            };
            let kind = header.entry_type();
            match kind {
                EntryType::XHeader => once(&mut pax, Pax::parse(&self.extension(&header)?)?)?,
                EntryType::GNULongName => once(&mut long_path, self.extension(&header)?)?,
                EntryType::GNULongLink => once(&mut long_link, self.extension(&header)?)?,
                // Defaults for all following members. None that matters is ever written there;
                // to ignore one that changes names or sizes would be to misread the archive.
                EntryType::XGlobalHeader => {
                    if Pax::parse(&self.extension(&header)?)? != Pax::default() {
                        return Err(Refusal::Format("global pax header that changes members"));
                    }
                }
                _ => {
                    let names = (long_path.map(until_nul), long_link.map(until_nul));
                    return self
                        .member(&header, pax.unwrap_or_default(), names)
                        .map(Some);
                }
            }
        }
    }

    /// Reads data of the current member; `Ok(0)` at its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Refusal> {
        let wanted = usize::try_from(self.data)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        match self
            .stream
            .read(&mut buffer[..wanted])
            .map_err(Refusal::Stream)?
        {
            0 => Err(Refusal::Format("it ends within a member")),
            read => {
                self.data -= read as u64;
                Ok(read)
            }
        }
    }

    /// Reads the rest of the stream, which must be the padding that tars write, and gives the
    /// digest of all of it. Members hidden behind the end would be seen by some readers only.
    pub(super) fn finish(mut self) -> Result<Digest, Refusal> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match self.stream.read(&mut buffer).map_err(Refusal::Stream)? {
                0 => return Ok(self.stream.finish()),
                read if buffer[..read].iter().all(|b| *b == 0) => {}
                _ => return Err(Refusal::Format("there is something after its end")),
            }
        }
    }

    /// The next header block; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, Refusal> {
        let mut header = Header::new_old();
        if !self.block(header.as_mut_bytes())? || header.as_bytes().iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let bytes = header.as_bytes();
        let sum =
            |range: std::ops::Range<usize>| bytes[range].iter().map(|b| u32::from(*b)).sum::<u32>();
        let sum = sum(0..148) + 8 * u32::from(b' ') + sum(156..512);
        match header.cksum() {
            Ok(expected) if expected == sum => Ok(Some(header)),
            _ => Err(Refusal::Format("bad header checksum")),
        }
    }

    /// Fills `block`; false if the stream ended before it.
    fn block(&mut self, block: &mut [u8]) -> Result<bool, Refusal> {
        let mut filled = 0;
        while filled < block.len() {
            match self
                .stream
                .read(&mut block[filled..])
                .map_err(Refusal::Stream)?
            {
                0 if filled == 0 => return Ok(false),
                0 => return Err(Refusal::Format("it ends within a header")),
                read => filled += read,
            }
        }
        Ok(true)
    }

    /// The data of an extension header.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, Refusal> {
        let size = header
            .entry_size()
            .ok()
            .ok_or(Refusal::Format("bad size field"))?;
        self.spend(size)?;
        self.begin_data(size)?;
        let mut data = vec![0; usize::try_from(size).unwrap_or(0)];
        let mut filled = 0;
        while filled < data.len() {
            filled += self.read(&mut data[filled..])?;
        }
        Ok(data)
    }

    fn spend(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.budget = self
            .budget
            .checked_sub(bytes.max(BLOCK))
            .ok_or(Refusal::Limit {
                what: "bytes of extension headers for one entry",
                limit: MAX_EXTENSION_BYTES,
            })?;
        Ok(())
    }

    fn begin_data(&mut self, size: u64) -> Result<(), Refusal> {
        let blocks = size
            .checked_next_multiple_of(BLOCK)
            .ok_or(Refusal::Format("bad size field"))?;
        self.data = size;
        self.padding = blocks - size;
        Ok(())
    }

    fn skip_data(&mut self) -> Result<(), Refusal> {
        let mut buffer = [0; 8 << 10];
        self.data += std::mem::take(&mut self.padding);
        while self.read(&mut buffer)? > 0 {}
        Ok(())
    }

    fn member(
        &mut self,
        header: &Header,
        pax: Pax,
        (long_path, long_link): (Option<Vec<u8>>, Option<Vec<u8>>),
    ) -> Result<Member, Refusal> {
        let path = long_path
            .or(pax.path)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = long_link
            .or(pax.link)
            .or_else(|| header.link_name_bytes().map(Into::into))
            .unwrap_or_default();
        let bad = |field| move |_| Refusal::Format(field);
        let fields = header.as_old();
        let kind = header.entry_type();
        let stored = match (kind, pax.size) {
            // Only files have data, whatever the size field says (as POSIX has it).
            (kind, _) if !(kind.is_file() || kind.is_gnu_sparse() || kind.is_contiguous()) => 0,
            (_, Some(size)) => size,
            _ => header.entry_size().map_err(bad("bad size field"))?,
        };
        self.begin_data(stored)?;
        let (size, extents) = match pax.sparse_size {
            _ if kind.is_gnu_sparse() => self.old_sparse_map(header, stored)?,
            Some(size) => (size, self.leading_sparse_map(size)?),
            None => (
                stored,
                vec![Extent {
                    offset: 0,
                    length: stored,
                }],
            ),
        };
        let mtime = header.mtime().map_err(bad("bad mtime field"))?;
        let mtime = Timespec {
            tv_sec: i64::try_from(mtime).unwrap_or(0),
            tv_nsec: 0,
        };
        Ok(Member {
            kind,
            mode: or_blank(&fields.mode, header.mode()).map_err(bad("bad mode field"))? & 0o7777,
            uid: pax
                .uid
                .map_or_else(|| or_blank(&fields.uid, header.uid()), Ok)
                .map_err(bad("bad uid field"))?,
            gid: pax
                .gid
                .map_or_else(|| or_blank(&fields.gid, header.gid()), Ok)
                .map_err(bad("bad gid field"))?,
            mtime: pax.mtime.unwrap_or(mtime),
            xattrs: pax.xattrs,
            path,
            link,
            size,
            extents,
        })
    }

    /// The map of a member of type `S`: in its header, continued in blocks after it.
    fn old_sparse_map(
        &mut self,
        header: &Header,
        stored: u64,
    ) -> Result<(u64, Vec<Extent>), Refusal> {
        let bad = |_| Refusal::Format("bad sparse map");
        let gnu = header
            .as_gnu()
            .ok_or(Refusal::Format("sparse member without a GNU header"))?;
        let mut extents = Vec::new();
        let mut add = |blocks: &[GnuSparseHeader]| -> io::Result<()> {
            for block in blocks.iter().filter(|block| !block.is_empty()) {
                extents.push(Extent {
                    offset: block.offset()?,
                    length: block.length()?,
                });
            }
            Ok(())
        };
        add(&gnu.sparse).map_err(bad)?;
        let mut more = gnu.is_extended();
        while more {
            self.spend(BLOCK)?;
            let mut extension = GnuExtSparseHeader::new();
            if !self.block(extension.as_mut_bytes())? {
                return Err(Refusal::Format("it ends within a header"));
            }
            add(&extension.sparse).map_err(bad)?;
            more = extension.is_extended();
        }
        let size = gnu.real_size().map_err(bad)?;
        check_map(&extents, size, stored)?;
        Ok((size, extents))
    }

    /// GNU's format 1.0: decimal numbers, one a line, before the data, filling whole blocks.
    fn leading_sparse_map(&mut self, size: u64) -> Result<Vec<Extent>, Refusal> {
        let mut numbers = Numbers {
            block: [0; 512],
            at: 512,
        };
        let count = numbers.next(self)?;
        let mut extents = Vec::new();
        for _ in 0..count {
            extents.push(Extent {
                offset: numbers.next(self)?,
                length: numbers.next(self)?,
            });
        }
        check_map(&extents, size, self.data)?;
        Ok(extents)
    }
}

/// Decimal lines in the blocks of a member's data.
struct Numbers {
    block: [u8; 512],
    at: usize,
}

impl Numbers {
    fn next<P: FnMut(u64) -> io::Result<()>>(
        &mut self,
        archive: &mut Archive<P>,
    ) -> Result<u64, Refusal> {
        let bad = Refusal::Format("bad sparse map");
        let mut value: u64 = 0;
        for digits in 0.. {
            if self.at == self.block.len() {
                archive.spend(BLOCK)?;
                let mut filled = 0;
                while filled < self.block.len() {
                    match archive.read(&mut self.block[filled..])? {
                        0 => return Err(bad),
                        read => filled += read,
                    }
                }
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' if digits > 0 => return Ok(value),
                b'0'..=b'9' if digits < 19 => value = value * 10 + u64::from(byte - b'0'),
                _ => return Err(bad),
            }
        }
        Err(bad)
    }
}

/// Extents must be in order, apart, within the file, and account for every stored byte.
fn check_map(extents: &[Extent], size: u64, stored: u64) -> Result<(), Refusal> {
    let (mut end, mut total) = (0, 0);
    for extent in extents {
        if extent.offset < end {
            return Err(Refusal::Format("sparse map out of order"));
        }
        end = extent
            .offset
            .checked_add(extent.length)
            .ok_or(Refusal::Format("bad sparse map"))?;
        total += extent.length;
    }
    match end <= size && total == stored {
        true => Ok(()),
        false => Err(Refusal::Format("sparse map and size disagree")),
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Refusal> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refusal::Format(
            "two extension headers of a kind for one member",
        )),
    }
}

/// Long names end with a zero byte.
fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    if let Some(end) = name.iter().position(|b| *b == 0) {
        name.truncate(end);
    }
    name
}

/// A field left blank means 0, as other readers have it.
fn or_blank<T: Default>(field: &[u8], parsed: io::Result<T>) -> io::Result<T> {
    match field.iter().all(|b| matches!(b, 0 | b' ')) {
        true => Ok(T::default()),
        false => parsed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Walks an archive to its end, reading every byte of data.
    fn walk(bytes: &[u8]) -> Result<Vec<Member>, Refusal> {
        let input = io::Cursor::new(bytes.to_vec());
        let stream = Stream::new(input, 1 << 30, |_| Ok(())).map_err(Refusal::Stream)?;
        let mut archive = Archive::new(stream);
        let mut members = Vec::new();
        while let Some(member) = archive.next()? {
            while archive.read(&mut [0; 100])? > 0 {}
            members.push(member);
        }
        archive.finish()?;
        Ok(members)
    }

    fn honest() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(700);
        header.set_mode(0o644);
        let long = "long/".repeat(60);
        builder
            .append_data(&mut header.clone(), "short", &[1; 700][..])
            .unwrap();
        builder
            .append_data(&mut header.clone(), format!("{long}a"), &[2; 700][..])
            .unwrap();
        builder
            .append_pax_extensions([("SCHILY.xattr.user.x", &b"y"[..])])
            .unwrap();
        builder
            .append_data(&mut header, "with-pax", &[3; 700][..])
            .unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn members_come_with_all_that_precedes_them() {
        let members = walk(&honest()).unwrap();
        let paths: Vec<_> = members.iter().map(|member| member.path.len()).collect();
        assert_eq!(paths, [5, 301, 8]);
        assert_eq!(members[2].xattrs, [(b"user.x".to_vec(), b"y".to_vec())]);
        assert_eq!(
            members[1].extents,
            [Extent {
                offset: 0,
                length: 700
            }]
        );
    }

    #[test]
    fn sparse_maps_must_add_up() {
        let extent = |offset, length| Extent { offset, length };
        assert!(check_map(&[extent(0, 5), extent(10, 5)], 20, 10).is_ok());
        for (map, size, stored) in [
            (vec![extent(10, 5), extent(0, 5)], 20, 10),
            (vec![extent(0, 5), extent(4, 5)], 20, 10),
            (vec![extent(0, 5)], 20, 6),
            (vec![extent(10, 11)], 20, 11),
            (vec![extent(u64::MAX, 2)], 20, 2),
        ] {
            assert!(check_map(&map, size, stored).is_err(), "{map:?}");
        }
    }

    proptest! {
        // Confined or refused, never a panic, whatever is damaged; checksums are set right so
        // that the damage gets past them.
        #[test]
        fn no_damage_makes_it_panic(changes in prop::collection::vec((0_usize..5000, any::<u8>()), 1..12)) {
            let mut bytes = honest();
            for (at, value) in changes {
                let length = bytes.len();
                bytes[at % length] = value;
            }
            for block in bytes.chunks_exact_mut(512) {
                let mut header = Header::new_old();
                header.as_mut_bytes().copy_from_slice(block);
                if &header.as_ustar().map_or([0; 6], |ustar| ustar.magic)[..5] == b"ustar"
                    || header.as_gnu().is_some()
                {
                    header.set_cksum();
                    block.copy_from_slice(header.as_bytes());
                }
            }
            walk(&bytes).ok();
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            walk(&bytes).ok();
        }
    }
}
