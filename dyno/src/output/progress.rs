//! Progress of pulls, loads and imports: bars where standard error is a
//! terminal, a line per finished step where it is not, JSON lines on request.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};

use dyno_api::client::Lines;
use dyno_api::image::{Image, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::Output;
use crate::failure::Failure;
use crate::value::size;

/// Where the steps are told.
#[derive(Debug)]
pub(crate) enum Told {
    /// Bars on the terminal, by step and digest.
    Bars(MultiProgress, BTreeMap<(Step, String), ProgressBar>),
    /// A line per finished step on standard error.
    Plain(BTreeSet<(Step, String)>),
    /// JSON lines on standard output.
    Json(Output),
}

/// The two things that happen to a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Download,
    Unpack,
}

impl Step {
    fn verb(self) -> &'static str {
        match self {
            Self::Download => "download",
            Self::Unpack => "unpack",
        }
    }
}

impl Told {
    /// For people: bars or lines on standard error.
    pub(crate) fn people() -> Self {
        if std::io::stderr().is_terminal() {
            Self::Bars(MultiProgress::new(), BTreeMap::new())
        } else {
            Self::Plain(BTreeSet::new())
        }
    }

    /// As the output wants it.
    pub(crate) fn for_output(output: Output) -> Self {
        if output.json {
            Self::Json(output)
        } else {
            Self::people()
        }
    }

    /// Tells each step until the last; the images that are ready.
    pub(crate) async fn follow(
        mut self,
        mut lines: Lines<Progress>,
    ) -> Result<Vec<Image>, Failure> {
        let mut ready = Vec::new();
        let followed = loop {
            match lines.next().await {
                Ok(Some(progress)) => {
                    self.tell(&progress)?;
                    match progress {
                        Progress::Done { image } => ready.push(image),
                        Progress::Failed { error } => break Err(Failure::from(error)),
                        _ => {}
                    }
                }
                Ok(None) if ready.is_empty() => {
                    break Err(Failure::new("hostd ended the answer without a result"));
                }
                Ok(None) => break Ok(ready),
                Err(error) => break Err(error.into()),
            }
        };
        self.clear();
        followed
    }

    fn tell(&mut self, progress: &Progress) -> Result<(), Failure> {
        if let Self::Json(output) = self {
            return output.json_line(progress);
        }
        match progress {
            Progress::Download {
                digest,
                done_bytes,
                total_bytes,
            } => {
                self.step(Step::Download, digest, *done_bytes, *total_bytes);
            }
            Progress::Unpack {
                digest,
                done_bytes,
                total_bytes,
            } => {
                self.step(Step::Unpack, digest, *done_bytes, *total_bytes);
            }
            Progress::Exists { digest } => self.note(&format!("{} is here already", short(digest))),
            Progress::Done { .. } | Progress::Failed { .. } => {}
        }
        Ok(())
    }

    fn step(&mut self, step: Step, digest: &str, done: u64, total: u64) {
        let key = (step, digest.to_owned());
        match self {
            Self::Bars(bars, known) => {
                let sized = total > 0;
                let bar = known
                    .entry(key)
                    .or_insert_with(|| bars.add(bar(step, digest, sized)));
                bar.set_length(total);
                bar.set_position(done);
                if sized && done >= total {
                    bar.finish();
                }
            }
            Self::Plain(told) if total > 0 && done >= total => {
                if told.insert(key) {
                    let (verb, digest) = (step.verb(), short(digest));
                    self.note(&format!("{verb}ed {digest} ({})", size::human(total)));
                }
            }
            Self::Plain(_) | Self::Json(_) => {}
        }
    }

    fn note(&self, line: &str) {
        let told = match self {
            Self::Bars(bars, _) => bars.println(line),
            Self::Plain(_) => writeln!(std::io::stderr().lock(), "{line}"),
            Self::Json(_) => Ok(()),
        };
        // Progress that cannot be shown stops nothing.
        told.unwrap_or_default();
    }

    fn clear(&self) {
        if let Self::Bars(bars, _) = self {
            bars.clear().unwrap_or_default();
        }
    }
}

/// A bar; only a count of bytes where nobody knows how many there will be, as
/// of an archive that is read from a pipe.
fn bar(step: Step, digest: &str, sized: bool) -> ProgressBar {
    let template = if sized {
        "{prefix} {msg} {bar:30} {bytes:>10}/{total_bytes:<10}"
    } else {
        "{prefix} {msg} {bytes:>10}"
    };
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_template| ProgressStyle::default_bar());
    let what = if sized {
        short(digest)
    } else {
        "archive".to_owned()
    };
    ProgressBar::new(0)
        .with_style(style)
        .with_prefix(format!("{:<8}", step.verb()))
        .with_message(what)
}

/// The first digits of a digest, enough to tell layers apart.
pub(crate) fn short(digest: &str) -> String {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_shortened_to_twelve_digits() {
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short("short"), "short");
        assert_eq!(short(""), "");
    }
}
