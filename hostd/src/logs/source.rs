//! One file of a log as lines, plain or compressed (RFC 1952).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use dyno_runtime::monitor::log::folder::{self, Part};
use flate2::read::MultiGzDecoder;

const CHUNK: usize = 64 * 1024;
/// P15: no line of a monitor is longer; a file without newlines is damaged.
const MAX_LINE: usize = 1 << 20;

/// An open file of a log, and how far it was read.
#[derive(Debug)]
pub(super) struct Source {
    /// Which file it is; it changes where a file without a number is given one.
    pub(super) part: Part,
    /// Cannot be reused while it is open.
    pub(super) inode: (u64, u64),
    file: Arc<File>,
    bytes: Bytes,
    pending: Vec<u8>,
    consumed: usize,
    /// Bytes of it, uncompressed, before the next line.
    pub(super) position: u64,
}

#[derive(Debug)]
enum Bytes {
    Plain(Section),
    /// Its decoder takes 80 KB: it is made when the file is read.
    Compressed(Option<Box<MultiGzDecoder<Section>>>),
    /// It cannot be read any further.
    Damaged,
}

/// A file from an offset of its own on, up to an end.
#[derive(Debug)]
struct Section {
    file: Arc<File>,
    offset: u64,
    /// Nothing from here on is read.
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.offset));
        let room = left.map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self
            .file
            .read_at(buffer.get_mut(..room).unwrap_or_default(), self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

impl Source {
    /// Opens this part of the log at `path`, in the form that is there; `None`
    /// where it was removed meanwhile.
    pub(super) fn open(path: &Path, part: Part) -> io::Result<Option<Self>> {
        // The plain form first: it goes only when the other one is whole.
        if let Some(file) = existing(&folder::plain(path, part))? {
            return Self::new(file, part, false).map(Some);
        }
        let Part::Numbered(number) = part else {
            return Ok(None);
        };
        match existing(&folder::compressed(path, number))? {
            Some(file) => Self::new(file, part, true).map(Some),
            None => Ok(None),
        }
    }

    fn new(file: File, part: Part, compressed: bool) -> io::Result<Self> {
        let meta = file.metadata()?;
        let file = Arc::new(file);
        Ok(Self {
            part,
            inode: (meta.dev(), meta.ino()),
            bytes: Bytes::of(&file, compressed),
            file,
            pending: Vec::new(),
            consumed: 0,
            position: 0,
        })
    }

    /// The same file from its beginning, up to the same end.
    pub(super) fn again(&self) -> Self {
        let mut bytes = Bytes::of(&self.file, !matches!(self.bytes, Bytes::Plain(_)));
        if let (Bytes::Plain(new), Bytes::Plain(own)) = (&mut bytes, &self.bytes) {
            new.end = own.end;
        }
        Self {
            part: self.part,
            inode: self.inode,
            file: self.file.clone(),
            bytes,
            pending: Vec::new(),
            consumed: 0,
            position: 0,
        }
    }

    /// From now on it ends where it ends now.
    pub(super) fn end_here(&mut self) -> io::Result<()> {
        if let Bytes::Plain(section) = &mut self.bytes {
            section.end = self.file.metadata()?.len();
        }
        Ok(())
    }

    /// Goes on from so many uncompressed bytes on, or from its end where it has less: a
    /// power cut may have taken some.
    pub(super) fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.position = match &mut self.bytes {
            Bytes::Plain(section) => {
                section.offset = bytes.min(self.file.metadata()?.len());
                section.offset
            }
            Bytes::Compressed(decoder) => {
                let decoder = decoder.get_or_insert_with(|| decoder_of(&self.file));
                io::copy(&mut decoder.as_mut().take(bytes), &mut io::sink())?
            }
            Bytes::Damaged => return Ok(()),
        };
        Ok(())
    }

    /// Whether an error of reading says that the file is not what was once written.
    pub(super) fn is_damaged(&self, error: &io::Error) -> bool {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        let is_compressed = matches!(self.bytes, Bytes::Compressed(_));
        is_compressed && matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
    }

    /// It ends here.
    pub(super) fn give_up(&mut self) {
        self.bytes = Bytes::Damaged;
        (self.pending, self.consumed) = (Vec::new(), 0);
    }

    /// Gives the memory back that holds what was read ahead; it is read again.
    pub(super) fn let_go(&mut self) {
        if let Bytes::Plain(section) = &mut self.bytes {
            section.offset = self.position;
            (self.pending, self.consumed) = (Vec::new(), 0);
        }
    }

    /// Uncompressed bytes that were not read yet.
    pub(super) fn unread(&self) -> io::Result<u64> {
        let length = self.file.metadata()?.len();
        let whole = match &self.bytes {
            Bytes::Damaged => 0,
            Bytes::Plain(_) => length,
            // Too short to be whole, which whoever reads it finds out.
            Bytes::Compressed(_) if length < 4 => 0,
            Bytes::Compressed(_) => {
                // RFC 1952, section 2.3.1: ISIZE, modulo 2³²; log files are smaller.
                let mut size = [0; 4];
                self.file
                    .read_exact_at(&mut size, length.saturating_sub(4))?;
                u32::from_le_bytes(size).into()
            }
        };
        Ok(whole.saturating_sub(self.position))
    }

    /// When it was last written.
    pub(super) fn written(&self) -> io::Result<SystemTime> {
        self.file.metadata()?.modified()
    }

    /// The next whole line without its newline; `None` where there is none yet.
    pub(super) fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut searched = self.consumed;
        loop {
            if let Some(length) = self.pending[searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let line = self.pending[self.consumed..searched + length].to_vec();
                self.consumed = searched + length + 1;
                self.position += line.len() as u64 + 1;
                return Ok(Some(line));
            }
            self.pending.drain(..self.consumed);
            self.consumed = 0;
            if self.pending.len() > MAX_LINE {
                self.position += self.pending.len() as u64;
                self.pending.clear();
            }
            searched = self.pending.len();
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    /// Bytes that are read at once, or as many as there are.
    fn room(&self) -> io::Result<usize> {
        let section = match &self.bytes {
            Bytes::Plain(section) => section,
            Bytes::Compressed(_) => return Ok(CHUNK),
            Bytes::Damaged => return Ok(0),
        };
        let end = section.file.metadata()?.len().min(section.end);
        let there = end.saturating_sub(section.offset);
        Ok(usize::try_from(there).map_or(CHUNK, |there| there.min(CHUNK)))
    }

    fn fill(&mut self) -> io::Result<usize> {
        let start = self.pending.len();
        let room = self.room()?;
        if room == 0 {
            // Who waits for more needs no memory for it.
            self.pending.shrink_to_fit();
            return Ok(0);
        }
        self.pending.resize(start + room, 0);
        let room = &mut self.pending[start..];
        let read = match &mut self.bytes {
            Bytes::Plain(section) => section.read(room),
            Bytes::Compressed(decoder) => decoder
                .get_or_insert_with(|| decoder_of(&self.file))
                .read(room),
            Bytes::Damaged => Ok(0),
        };
        let count = *read.as_ref().unwrap_or(&0);
        self.pending.truncate(start + count);
        read.map_err(|error| {
            let part = self.part;
            io::Error::new(error.kind(), format!("{part:?} of the log: {error}"))
        })
    }
}

impl Section {
    fn whole(file: &Arc<File>) -> Self {
        Self {
            file: file.clone(),
            offset: 0,
            end: u64::MAX,
        }
    }
}

impl Bytes {
    fn of(file: &Arc<File>, compressed: bool) -> Self {
        match compressed {
            true => Self::Compressed(None),
            false => Self::Plain(Section::whole(file)),
        }
    }
}

fn decoder_of(file: &Arc<File>) -> Box<MultiGzDecoder<Section>> {
    Box::new(MultiGzDecoder::new(Section::whole(file)))
}

fn existing(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
