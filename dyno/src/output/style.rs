//! Colour: only on a terminal, and never where `NO_COLOR` is set
//! (<https://no-color.org>).

use std::io::IsTerminal;

use anstyle::{AnsiColor, Reset, Style};

/// The word `error:`.
pub(crate) const ERROR: Style = AnsiColor::Red.on_default().bold();
/// What runs.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// What needs a look.
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default();
/// What failed.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// What matters less.
pub(crate) const FAINT: Style = Style::new().dimmed();
/// Headings.
pub(crate) const HEADING: Style = Style::new().bold();

/// Whether the standard output takes colour.
pub(crate) fn stdout_has_colour() -> bool {
    wanted(std::io::stdout().is_terminal())
}

/// The style's beginning and end for standard error, or nothing.
pub(crate) fn stderr(style: Style) -> (String, String) {
    if wanted(std::io::stderr().is_terminal()) {
        (style.render().to_string(), Reset.render().to_string())
    } else {
        (String::new(), String::new())
    }
}

fn wanted(terminal: bool) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    terminal && !set("NO_COLOR") && !dumb
}
