//! Variables in values: `${NAME:-otherwise}` (Compose Specification, Interpolation).
//!
//! ```text
//! $NAME  ${NAME}         its value; nothing where it is not set
//! ${NAME:-text}          the text where it is not set, or empty
//! ${NAME-text}           the text where it is not set
//! ${NAME:?why} ${NAME?why}   refused then
//! ${NAME:+text} ${NAME+text} the text where it is set (and not empty), else nothing
//! $$                     $
//! ```
//! Texts can have variables of their own. What is not used is not asked for.

use super::variables::{Spent, Variables};

/// Variables within variables.
const MAX_DEPTH: usize = 16;

/// Why a text cannot be completed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TemplateError {
    #[error("no variable follows `$`; write $$ for a `$`")]
    Name,
    #[error("`${{` without its `}}`")]
    Open,
    #[error("{0:?} after the name of a variable; there are :- - :? ? :+ +")]
    Operator(char),
    #[error("nested deeper than {MAX_DEPTH} variables")]
    Deep,
    #[error("the variable {name} is required{}", because(.why))]
    Required { name: String, why: String },
    #[error(transparent)]
    Spent(#[from] Spent),
}

fn because(why: &str) -> String {
    match why {
        "" => String::new(),
        why => format!(": {why}"),
    }
}

/// The text with the values of its variables.
pub(super) fn complete(text: &str, variables: &mut Variables<'_>) -> Result<String, TemplateError> {
    let mut template = Template {
        rest: text,
        variables,
    };
    template.text(0, true)
}

struct Template<'t, 'v, 'o> {
    rest: &'t str,
    variables: &'v mut Variables<'o>,
}

impl Template<'_, '_, '_> {
    /// What comes up to the end, within a variable up to its `}`.
    fn text(&mut self, depth: usize, used: bool) -> Result<String, TemplateError> {
        if depth > MAX_DEPTH {
            return Err(TemplateError::Deep);
        }
        let stops: &[char] = if depth > 0 { &['$', '}'] } else { &['$'] };
        let mut made = String::new();
        loop {
            let Some(stop) = self.rest.find(stops) else {
                made.push_str(self.rest);
                self.rest = "";
                return match depth {
                    0 => Ok(made),
                    _ => Err(TemplateError::Open),
                };
            };
            made.push_str(&self.rest[..stop]);
            self.rest = &self.rest[stop..];
            if self.eats("}") {
                return Ok(made);
            } else if self.eats("$$") {
                made.push('$');
            } else if self.eats("${") {
                made.push_str(&self.braced(depth, used)?);
            } else {
                self.eats("$");
                let name = self.name()?;
                made.push_str(&self.value(name, used)?.unwrap_or_default());
            }
        }
    }

    /// What is behind `${`.
    fn braced(&mut self, depth: usize, used: bool) -> Result<String, TemplateError> {
        let name = self.name()?;
        if self.eats("}") {
            return Ok(self.value(name, used)?.unwrap_or_default());
        }
        let empty_is_unset = self.eats(":");
        let operator = self.rest.chars().next().ok_or(TemplateError::Open)?;
        if !matches!(operator, '-' | '?' | '+') {
            return Err(TemplateError::Operator(operator));
        }
        self.rest = &self.rest[1..];
        let value = match used {
            true => self.variables.get(name),
            false => None,
        };
        let value = value.filter(|value| !(empty_is_unset && value.is_empty()));
        let wants_text = match operator {
            '+' => value.is_some(),
            _ => value.is_none(),
        };
        let text = self.text(depth + 1, used && wants_text)?;
        match (operator, value) {
            _ if !used => Ok(String::new()),
            ('?', None) => Err(TemplateError::Required {
                name: name.to_owned(),
                why: text,
            }),
            ('+', _) | (_, None) => Ok(if wants_text { text } else { String::new() }),
            (_, Some(value)) => {
                self.variables.spend(value.len())?;
                Ok(value)
            }
        }
    }

    fn value(&mut self, name: &str, used: bool) -> Result<Option<String>, TemplateError> {
        match used {
            true => Ok(self.variables.value(name)?),
            false => Ok(None),
        }
    }
}

impl<'t> Template<'t, '_, '_> {
    fn eats(&mut self, what: &str) -> bool {
        let rest = self.rest.strip_prefix(what);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn name(&mut self) -> Result<&'t str, TemplateError> {
        let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = self.rest.find(|c| !part(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(TemplateError::Name);
        }
        self.rest = rest;
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn own(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".to_owned()),
            "B_2" => Some("b".to_owned()),
            "EMPTY" => Some(String::new()),
            "LONG" => Some("x".repeat(1 << 20)),
            _ => None,
        }
    }

    fn completed(text: &str) -> Result<String, TemplateError> {
        complete(text, &mut Variables::new(&own))
    }

    #[test]
    fn every_documented_form_is_completed() {
        for (text, expected) in [
            ("", ""),
            ("plain {} text}", "plain {} text}"),
            ("$A-$B_2.", "a-b."),
            ("${A}${B_2}", "ab"),
            ("[$NONE${NONE}]", "[]"),
            ("$$A $${A} $$$A", "$A ${A} $a"),
            ("${A:-x} ${EMPTY:-x} ${NONE:-x}", "a x x"),
            ("${A-x} [${EMPTY-x}] ${NONE-x}", "a [] x"),
            ("${A:+x} [${EMPTY:+x}] [${NONE:+x}]", "x [] []"),
            ("${A+x} [${EMPTY+x}] [${NONE+x}]", "x [x] []"),
            ("${A:?why} [${EMPTY?why}]", "a []"),
            ("${NONE:-${EMPTY:-$A${B_2}}} ", "ab "),
            ("${NONE:-http://x:80/?a=$$b}", "http://x:80/?a=$b"),
            // What is not used is not asked for.
            ("${A:-${NONE:?why}} ${NONE:+${NONE:?why}}", "a "),
        ] {
            assert_eq!(completed(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        let required = |name: &str, why: &str| {
            Err(TemplateError::Required {
                name: name.to_owned(),
                why: why.to_owned(),
            })
        };
        assert_eq!(completed("${NONE:?no $A}"), required("NONE", "no a"));
        assert_eq!(completed("${NONE?}"), required("NONE", ""));
        assert_eq!(completed("${EMPTY:?}"), required("EMPTY", ""));
        for bad in ["$", "a$", "$ A", "${}", "${ A}", "$1", "${1:-x}", "$%"] {
            assert_eq!(completed(bad), Err(TemplateError::Name), "{bad}");
        }
        for bad in ["${A", "${A:", "${A:-x", "${A:-${A}"] {
            assert_eq!(completed(bad), Err(TemplateError::Open), "{bad}");
        }
        assert_eq!(completed("${A!}"), Err(TemplateError::Operator('!')));
        assert_eq!(completed("${A:=x}"), Err(TemplateError::Operator('=')));
        let nested = format!("{}{}", "${NONE:-".repeat(100_000), "}".repeat(100_000));
        assert_eq!(completed(&nested), Err(TemplateError::Deep));
    }

    #[test]
    fn a_short_text_does_not_become_endless() {
        let spent = completed(&"${LONG}$LONG${LONG:-x}".repeat(1000));
        assert!(matches!(spent, Err(TemplateError::Spent(_))), "{spent:?}");
    }

    proptest! {
        #[test]
        fn any_text_is_completed_or_refused(text in "[$A{}:?+a-]{0,24}") {
            completed(&text).ok();
        }

        #[test]
        fn a_text_without_variables_is_as_it_was(text in "[^$]{0,40}") {
            prop_assert_eq!(completed(&text), Ok(text));
        }
    }
}
