//! `dyno diff`: what a dyno has changed of its image's files.

use clap::Args;
use dyno_api::dyno::{Change, ChangeKind};

use super::Context;
use crate::failure::Failure;

/// Show what a dyno, running or not, has changed of its image's files: A for
/// added, C for changed, D for deleted
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// Id or name
    dyno: String,
}

impl Diff {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut changes = context.client().await?.changes(&self.dyno).await?;
        while let Some(change) = changes.next().await? {
            if context.output.json {
                context.output.json_line(&change)?;
            } else {
                context.output.line(&text(&change))?;
            }
        }
        Ok(0)
    }
}

/// The dyno has made the name: what would move a terminal's cursor is escaped.
fn text(change: &Change) -> String {
    let kind = match change.kind {
        ChangeKind::Added => 'A',
        ChangeKind::Changed => 'C',
        ChangeKind::Deleted => 'D',
    };
    let mut text = format!("{kind} ");
    for character in change.path.chars() {
        match character.is_control() {
            true => text.extend(character.escape_default()),
            false => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_write_lines_of_its_own() {
        let change = Change {
            kind: ChangeKind::Deleted,
            path: "/a\nA /b\u{1b}[2J ü".to_owned(),
        };
        assert_eq!(text(&change), r"D /a\nA /b\u{1b}[2J ü");
    }
}
