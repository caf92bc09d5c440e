//! Puts variables into every value of a file; keys stay as they are (Compose
//! Specification, Interpolation).

use super::super::document::{Node, Problems, Value};
use super::template;
use super::variables::Variables;

/// Completes the app's name, which is a variable in all else.
pub(super) fn name(root: &mut Node, variables: &mut Variables<'_>, problems: &Problems) {
    top(root, variables, problems, |key| key == "name");
}

/// Completes all else. What is at `x-` keys is used only where an alias brought it to.
pub(super) fn all_but_name(root: &mut Node, variables: &mut Variables<'_>, problems: &Problems) {
    let used = |key: &str| key != "name" && !key.starts_with("x-");
    top(root, variables, problems, used);
}

fn top(
    root: &mut Node,
    variables: &mut Variables<'_>,
    problems: &Problems,
    which: impl Fn(&str) -> bool,
) {
    let mut walk = Walk {
        path: String::new(),
        variables,
        problems,
    };
    if let Value::Map(entries) = &mut root.value {
        for entry in entries.iter_mut().filter(|entry| which(&entry.key)) {
            walk.below(&mut entry.value, &entry.key);
        }
    }
}

/// The way through a file.
struct Walk<'w, 'v> {
    /// Where it is.
    path: String,
    variables: &'w mut Variables<'v>,
    problems: &'w Problems,
}

impl Walk<'_, '_> {
    fn below(&mut self, node: &mut Node, step: &str) {
        let above = self.path.len();
        self.path.push_str(step);
        match &mut node.value {
            Value::Text(text) if text.contains('$') => {
                match template::complete(text, self.variables) {
                    Ok(completed) => *text = completed,
                    Err(error) => {
                        let path = &self.path;
                        self.problems
                            .note(node.place, format_args!("{path}: {error}"));
                    }
                }
            }
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.below(item, &format!("[{index}]"));
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    self.below(&mut entry.value, &format!(".{}", entry.key));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => {}
        }
        self.path.truncate(above);
    }
}
