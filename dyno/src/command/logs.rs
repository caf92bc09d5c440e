//! `dyno logs`: what a dyno wrote.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use dyno_api::dyno::{LogLine, Stream};
use dyno_api::query::LogsQuery;
use jiff::Timestamp;

use super::Context;
use crate::failure::Failure;
use crate::value::duration::{self, Since};

/// Show what a dyno wrote: its standard output to ours, its standard error to ours
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Go on with new lines until the dyno has ended
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines
    #[arg(short = 'n', long, value_name = "N")]
    tail: Option<usize>,
    /// Only lines from then on: a duration ago (10m) or a time (RFC 3339)
    #[arg(long, value_name = "WHEN", value_parser = duration::parse_since)]
    since: Option<Since>,
    /// Only lines from before then: a duration ago (10m) or a time (RFC 3339)
    #[arg(long, value_name = "WHEN", value_parser = duration::parse_since)]
    until: Option<Since>,
    /// Only one stream [default: both, in their order]
    #[arg(long, value_enum)]
    stream: Option<Choice>,
    /// Put its time before each line
    #[arg(short, long)]
    timestamps: bool,
    /// Id or name
    dyno: String,
}

/// A stream by its name.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Choice {
    /// The standard output, or the terminal
    Stdout,
    /// The standard error
    Stderr,
}

impl From<Choice> for Stream {
    fn from(choice: Choice) -> Self {
        match choice {
            Choice::Stdout => Self::Stdout,
            Choice::Stderr => Self::Stderr,
        }
    }
}

impl Logs {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let now = Timestamp::now();
        let query = LogsQuery {
            follow: self.follow,
            tail: self.tail,
            since: self.since.map(|since| since.at(now)),
            until: self.until.map(|until| until.at(now)),
            stream: self.stream.map(Stream::from),
        };
        let client = context.client().await?;
        let mut lines = client.logs(&self.dyno, &query).await?;
        let mut begun = Begun::default();
        while let Some(line) = lines.next().await? {
            if context.output.json {
                context.output.json_line(&line)?;
            } else {
                self.show(&line, &mut begun)?;
            }
        }
        Ok(0)
    }

    fn show(&self, line: &LogLine, begun: &mut Begun) -> io::Result<()> {
        let (to, begun): (&mut dyn Write, _) = match line.stream {
            Stream::Stdout => (&mut io::stdout().lock(), &mut begun.stdout),
            Stream::Stderr => (&mut io::stderr().lock(), &mut begun.stderr),
        };
        to.write_all(text(line, self.timestamps && !*begun).as_bytes())?;
        *begun = line.partial;
        to.flush()
    }
}

/// Which streams are in the middle of a line.
#[derive(Debug, Default)]
struct Begun {
    stdout: bool,
    stderr: bool,
}

/// The entry as it is written; a part of a line ends without a newline.
fn text(line: &LogLine, timestamp: bool) -> String {
    let end = if line.partial { "" } else { "\n" };
    if timestamp {
        format!("{:.9} {}{end}", line.time, line.line)
    } else {
        format!("{}{end}", line.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_line_ends_without_a_newline() {
        let mut line = LogLine {
            time: Timestamp::UNIX_EPOCH,
            stream: Stream::Stdout,
            line: "hello".to_owned(),
            partial: true,
        };
        assert_eq!(text(&line, false), "hello");
        line.partial = false;
        assert_eq!(text(&line, false), "hello\n");
        assert_eq!(text(&line, true), "1970-01-01T00:00:00.000000000Z hello\n");
    }
}
