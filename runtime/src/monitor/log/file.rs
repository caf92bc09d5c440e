//! The file behind a log, and its rotation: `log` → `log.1` → … → `log.N`.
//!
//! What is appended is whole entries. A follower that reaches the end of a
//! file and finds another inode under its name goes on there.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use crate::monitor::protocol::LogConfig;

/// An append-only file of bounded size.
#[derive(Debug)]
pub(super) struct LogFile {
    config: LogConfig,
    file: File,
    size: u64,
}

impl LogFile {
    /// Opens or makes the file; the end of a line that was cut short by a crash
    /// is supplied.
    pub(super) fn open(config: LogConfig) -> io::Result<Self> {
        let file = options().create(true).open(&config.path)?;
        let mut log = Self {
            config,
            file,
            size: 0,
        };
        log.mend()?;
        Ok(log)
    }

    /// Whether so many bytes more fit without rotation.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.size.saturating_add(bytes as u64) <= self.config.max_bytes
    }

    /// Appends whole entries, all of them or none.
    pub(super) fn append(&mut self, entries: &[u8]) -> io::Result<()> {
        if self.size > 0 && !self.has_room(entries.len()) {
            self.rotate()?;
        }
        match self.file.write_all(entries) {
            Ok(()) => {
                self.size += entries.len() as u64;
                Ok(())
            }
            Err(error) => {
                // What was written of them would be a line without an end.
                if self.file.set_len(self.size).is_err() {
                    self.mend()?;
                }
                Err(error)
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..=self.config.keep).rev() {
            let older = self.numbered(number);
            let newer = match number {
                1 => self.config.path.clone(),
                _ => self.numbered(number - 1),
            };
            missing_is_fine(fs::rename(newer, older))?;
        }
        if self.config.keep == 0 {
            missing_is_fine(fs::remove_file(&self.config.path))?;
        }
        self.file = options().create_new(true).open(&self.config.path)?;
        self.size = 0;
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.config.path);
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }

    fn mend(&mut self) -> io::Result<()> {
        self.size = self.file.metadata()?.len();
        let Some(last) = self.size.checked_sub(1) else {
            return Ok(());
        };
        let mut end = [b'\n'];
        self.file.seek(SeekFrom::Start(last))?;
        self.file.read_exact(&mut end)?;
        if end != *b"\n" {
            self.file.write_all(b"\n")?;
            self.size += 1;
        }
        Ok(())
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // 0600: what a dyno prints is its owner's business.
    options.read(true).append(true).mode(0o600);
    options
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
