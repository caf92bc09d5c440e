//! The decompressed bytes of a layer: hashed, counted and bounded as they pass.

use std::io::{self, BufRead, BufReader, Read};

use crate::digest::{Digest, Hasher};

const BUFFER_BYTES: usize = 128 << 10;
/// A report per so many decompressed bytes.
const REPORT_EVERY_BYTES: u64 = 8 << 20;
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// A zstd skippable frame has one of 16 magics, 0x184D2A5?, and may come first.
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];
/// P15: memory that a zstd frame may demand: 128 MiB, what `zstd -d` allows without being asked.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// A layer's tar stream, whatever it was compressed with.
pub(super) struct Stream<P> {
    decoder: Box<dyn Read>,
    hasher: Hasher,
    limit: u64,
    progress: P,
    next_report: u64,
}

impl<P: FnMut(u64) -> io::Result<()>> Stream<P> {
    /// Looks at the first bytes to tell gzip, zstd and plain tar apart. The media type is not
    /// asked: registries hold layers whose type is wrong, and the diffID decides in the end.
    pub(super) fn new(
        input: impl Read + 'static,
        limit: u64,
        progress: P,
    ) -> io::Result<Stream<P>> {
        let mut input = BufReader::with_capacity(BUFFER_BYTES, input);
        let start = input.fill_buf()?;
        let decoder: Box<dyn Read> = if start.starts_with(GZIP_MAGIC) {
            // Multi: parallel compressors and seekable layers write many members.
            Box::new(flate2::bufread::MultiGzDecoder::new(input))
        } else if start.starts_with(ZSTD_MAGIC) || start.get(1..4) == Some(ZSTD_SKIPPABLE) {
            let mut decoder = zstd::Decoder::with_buffer(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        } else {
            Box::new(input)
        };
        let decoder = Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder));
        let next_report = REPORT_EVERY_BYTES;
        Ok(Stream {
            decoder,
            hasher: Hasher::default(),
            limit,
            progress,
            next_report,
        })
    }

    /// Digest of everything read.
    pub(super) fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

impl<P: FnMut(u64) -> io::Result<()>> Read for Stream<P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        let length = self.hasher.length();
        if length > self.limit {
            let limit = self.limit;
            return Err(io::Error::other(format!(
                "it has more than {limit} bytes, the limit here"
            )));
        }
        if length >= self.next_report {
            self.next_report = length + REPORT_EVERY_BYTES;
            (self.progress)(length)?;
        }
        Ok(read)
    }
}
