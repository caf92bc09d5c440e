//! `dyno why`: why a dyno is as it is.

use clap::Args;
use dyno_api::why::{Finding, Why};

use super::Context;
use crate::failure::Failure;

/// Explain why a dyno restarts, waits, is held back or has ended
#[derive(Debug, Args)]
pub(crate) struct WhyCommand {
    /// Id or name
    dyno: String,
}

impl WhyCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let why = context.client().await?.why(&self.dyno).await?;
        if context.output.json {
            context.output.document(&why)?;
        } else {
            context.output.line(&text(&why))?;
        }
        Ok(0)
    }
}

fn text(why: &Why) -> String {
    let mut lines = vec![format!("{}:", why.name)];
    lines.extend(why.findings.iter().map(sentence));
    if !why.log.is_empty() {
        lines.push("last lines:".to_owned());
        // What a dyno writes steers no terminal here.
        let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        let line = |line: &str| format!("  | {}", line.chars().map(clean).collect::<String>());
        lines.extend(why.log.iter().map(|entry| line(&entry.line)));
    }
    lines.join("\n")
}

fn sentence(finding: &Finding) -> String {
    match &finding.hint {
        Some(hint) => format!("  {} ({hint})", finding.message),
        None => format!("  {}", finding.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_hints_and_last_lines_are_told_and_steer_no_terminal() {
        let why: Why = serde_json::from_value(serde_json::json!({
            "dyno": "0123456789ab", "name": "web", "restart": {"policy": "no"}, "stats": null,
            "findings": [
                {"cause": "exited", "message": "it ended with exit code 3"},
                {"cause": "policy", "message": "it stays ended", "hint": "dyno start web"},
            ],
            "status": {
                "phase": "exited", "pid": null, "monitor_pid": null, "ipv4": null, "ipv6": null,
                "ports": [], "started": null, "exit": null, "restarts": 0, "reason": null,
            },
            "log": [{"time": "2026-01-01T00:00:00Z", "stream": "stdout", "line": "a\u{1b}[2J"}],
        }))
        .unwrap();
        let expected = "web:\n  it ended with exit code 3\n  it stays ended (dyno start web)\n\
                        last lines:\n  | a\u{fffd}[2J";
        assert_eq!(text(&why), expected);
    }
}
