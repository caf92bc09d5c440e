//! The terminal that a person sits at.

mod raw;
mod screen;
mod typed;

use std::io::{self, IsTerminal};

use rustix::termios;

pub(crate) use raw::RawMode;
pub(crate) use screen::Screen;
pub(crate) use typed::typed;

/// Whether the standard input is a terminal.
pub(crate) fn is_interactive() -> bool {
    io::stdin().is_terminal()
}

/// Rows and columns of the terminal, where there is one.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(io::stdout())
        .or_else(|_no_terminal| termios::tcgetwinsize(io::stdin()))
        .ok()?;
    // A pty that nobody gave a size has 0 × 0.
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}
