//! A plan as a person reads it.

use std::fmt;

use serde_json::Value;

use super::document::clean;
use super::plan::{Action, Difference, Plan, Step};

/// The longest value that is shown whole, in characters.
const WIDEST: usize = 60;

/// A line for each thing, and what it comes to.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for volume in &self.volumes {
            writeln!(f, "+ volume {volume}   create")?;
        }
        for secret in &self.secrets {
            writeln!(f, "+ secret {secret}   set")?;
        }
        let names = self.dynos.iter().map(|step| step.name.as_str().len());
        let width = names.max().unwrap_or(0);
        for step in &self.dynos {
            writeln!(f, "{}", line(step, width))?;
            for one in &step.differences {
                writeln!(f, "{}", difference(one))?;
            }
        }
        write!(f, "{}", summary(self))
    }
}

fn line(step: &Step, width: usize) -> String {
    let (sign, word) = match step.action {
        Action::Create => ('+', "create"),
        Action::Replace => ('~', "replace"),
        Action::Start => ('^', "start"),
        Action::Keep => ('=', "unchanged"),
        Action::Remove => ('-', "remove"),
    };
    format!("{sign} {:width$}   {word}", step.name)
}

fn difference(Difference { field, old, new }: &Difference) -> String {
    clean(&format!("    {field}: {} → {}", value(old), value(new)))
}

fn value(value: &Value) -> String {
    let text = match value {
        Value::Null => return "nothing".to_owned(),
        value => value.to_string(),
    };
    if text.chars().count() <= WIDEST {
        return text;
    }
    let cut: String = text.chars().take(WIDEST - 1).collect();
    format!("{cut}…")
}

fn summary(plan: &Plan) -> String {
    let count = |action| {
        plan.dynos
            .iter()
            .filter(|step| step.action == action)
            .count()
    };
    let parts = [
        (Action::Create, "to create"),
        (Action::Replace, "to replace"),
        (Action::Start, "to start"),
        (Action::Remove, "to remove"),
        (Action::Keep, "unchanged"),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .map(|(action, word)| (count(action), word))
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    match parts.is_empty() {
        true => format!("app {}: no dynos", plan.app),
        false => format!("app {}: {}", plan.app, parts.join(", ")),
    }
}
