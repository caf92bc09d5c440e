//! The whole screen, for what is drawn anew again and again. What was there
//! before comes back on every way out, panics included.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use super::RawMode;

/// The alternate screen, without a cursor or line wraps (xterm's control sequences).
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// The alternate screen is shown.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// The screen is ours as long as this lives.
#[derive(Debug)]
pub(crate) struct Screen {
    _raw: RawMode,
}

impl Screen {
    /// Takes the screen and the keys.
    ///
    /// # Errors
    /// What tcsetattr(3) or the writing says; it is no terminal.
    pub(crate) fn enter() -> io::Result<Self> {
        let screen = Self {
            _raw: RawMode::enter()?,
        };
        SHOWN.store(true, Ordering::SeqCst);
        write(ENTER)?;
        Ok(screen)
    }

    /// Shows these lines and nothing else.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(crate) fn show(&self, lines: &[String]) -> io::Result<()> {
        // From the top, each line to its end, then what is below: nothing flickers.
        let mut text = "\x1b[H".to_owned();
        for (line, number) in lines.iter().zip(1..) {
            text.push_str(line);
            text.push_str(if number < lines.len() {
                "\x1b[K\r\n"
            } else {
                "\x1b[K"
            });
        }
        text.push_str("\x1b[J");
        write(&text)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// Gives the screen back where it is ours; twice does no harm.
pub(super) fn leave() {
    if SHOWN.swap(false, Ordering::SeqCst) {
        // A terminal that is gone needs no restoring.
        write(LEAVE).unwrap_or_default();
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
