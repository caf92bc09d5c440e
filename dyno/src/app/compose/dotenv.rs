//! `.env` and files of `env_file` (Compose Specification, Env_file format).
//!
//! ```text
//! # a comment
//! NAME=value with ${OTHER}   # another one
//! NAME="one line\nand another with ${OTHER}"
//! NAME='as it is, ${OTHER}, on as many lines as it takes'
//! export NAME=value
//! NAME                       the caller's own
//! ```

use super::template::{self, TemplateError};
use super::variables::Variables;
use crate::value::env::{self, Variable, VariableError};

/// Why a file of variables was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {source}")]
pub(super) struct DotenvError {
    line: usize,
    source: LineError,
}

/// Why a line was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum LineError {
    #[error(transparent)]
    Name(#[from] VariableError),
    #[error("a quotation mark is not closed")]
    Quote,
    #[error("{0:?} follows the quotation mark that ends a value")]
    Behind(String),
    #[error(transparent)]
    Value(#[from] TemplateError),
}

/// Names and values, in order; a name alone has none.
pub(super) fn parse(
    text: &str,
    variables: &mut Variables<'_>,
) -> Result<Vec<Variable>, DotenvError> {
    variables.forget_earlier();
    let mut lines = Lines {
        rest: text.strip_prefix('\u{feff}').unwrap_or(text),
        variables,
    };
    let mut given = Vec::new();
    while lines.skip_to_next() {
        let begin = text.len() - lines.rest.len();
        let variable = lines.variable().map_err(|source| DotenvError {
            line: 1 + text[..begin].matches('\n').count(),
            source,
        })?;
        if let Some(value) = &variable.value {
            lines.variables.set_earlier(&variable.name, value);
        }
        given.push(variable);
    }
    variables.forget_earlier();
    Ok(given)
}

struct Lines<'t, 'v, 'o> {
    rest: &'t str,
    variables: &'v mut Variables<'o>,
}

impl<'t> Lines<'t, '_, '_> {
    /// Whether there is another variable.
    fn skip_to_next(&mut self) -> bool {
        loop {
            self.rest = self.rest.trim_start();
            if !self.rest.starts_with('#') {
                return !self.rest.is_empty();
            }
            self.line();
        }
    }

    /// What is left of the line, which is taken.
    fn line(&mut self) -> &'t str {
        let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
        self.rest = rest;
        line
    }

    fn variable(&mut self) -> Result<Variable, LineError> {
        if let Some(exported) = self.rest.strip_prefix("export ") {
            self.rest = exported.trim_start_matches([' ', '\t']);
        }
        let end = self.rest.find(['=', '\n']).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        let Some(value) = rest.strip_prefix('=') else {
            let name = before_comment(self.line()).trim_end();
            return Ok(env::parse(name)?);
        };
        let name = env::parse(name.trim_end())?.name;
        self.rest = value.trim_start_matches([' ', '\t']);
        // A comment begins behind white space.
        if self.rest.len() < value.len() && self.rest.starts_with('#') {
            self.line();
            let value = Some(String::new());
            return Ok(Variable { name, value });
        }
        let value = match self.rest.chars().next() {
            Some('\'') => self.quoted('\'')?.replace("\\'", "'"),
            Some('"') => {
                let escaped = self.quoted('"')?;
                template::complete(&unescaped(escaped), self.variables)?
            }
            _ => {
                let value = before_comment(self.line()).trim_end();
                template::complete(value, self.variables)?
            }
        };
        // A NUL can be in no variable.
        Ok(env::parse(&format!("{name}={value}"))?)
    }

    /// What is between two of these marks; nothing but a comment may follow.
    fn quoted(&mut self, mark: char) -> Result<&'t str, LineError> {
        let inner = &self.rest[1..];
        let mut escaped = false;
        let end = inner.find(|c| {
            let ends = c == mark && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let (value, rest) = inner.split_at(end.ok_or(LineError::Quote)?);
        self.rest = &rest[1..];
        let behind = self.line().trim();
        match behind.is_empty() || behind.starts_with('#') {
            true => Ok(value),
            false => Err(LineError::Behind(behind.to_owned())),
        }
    }
}

/// The line up to a `#` behind white space.
fn before_comment(line: &str) -> &str {
    let comment = line
        .match_indices('#')
        .find(|(index, _)| line[..*index].ends_with([' ', '\t']));
    comment.map_or(line, |(index, _)| &line[..index])
}

/// What escapes stand for; `\$` is left to the template as `$$`.
fn unescaped(text: &str) -> String {
    let mut made = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some(next @ ('n' | 'r' | 't' | '"' | '\\' | '$'))) => {
                chars.next();
                match next {
                    'n' => made.push('\n'),
                    'r' => made.push('\r'),
                    't' => made.push('\t'),
                    '$' => made.push_str("$$"),
                    other => made.push(other),
                }
            }
            (c, _) => made.push(c),
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<Vec<(String, Option<String>)>, DotenvError> {
        let own = |name: &str| (name == "OWN").then(|| "mine".to_owned());
        let variables = parse(text, &mut Variables::new(&own))?;
        Ok(variables
            .into_iter()
            .map(|one| (one.name, one.value))
            .collect())
    }

    #[test]
    fn every_documented_form_is_read() {
        let text = "# comment\n\nA=1\r\nB = two words  # comment\nC=x#y\nD=\nE= # nothing\nF\n\
                    export G=${A}${OWN}$B\nOWN=other\nH=$OWN\nI='$A \\'\"'  # comment\n\
                    J=\"$A\\n\\\"\\$A\\\\\"\nK='two\nlines'\nL=a=b\n  M=http://x/#y";
        let expected = [
            ("A", Some("1")),
            ("B", Some("two words")),
            ("C", Some("x#y")),
            ("D", Some("")),
            ("E", Some("")),
            ("F", None),
            ("G", Some("1minetwo words")),
            ("OWN", Some("other")),
            // The environment wins.
            ("H", Some("mine")),
            ("I", Some("$A '\"")),
            ("J", Some("1\n\"$A\\")),
            ("K", Some("two\nlines")),
            ("L", Some("a=b")),
            ("M", Some("http://x/#y")),
        ];
        let owned =
            |(name, value): (&str, Option<&str>)| (name.to_owned(), value.map(str::to_owned));
        assert_eq!(parsed(text).unwrap(), expected.map(owned));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, told) in [
            ("A=1\n\n=2", "line 3: the name of a variable is missing"),
            (
                "A='x\ny'\nA B=1",
                "line 3: the name of a variable has no white space",
            ),
            ("A=\"x\n", "line 1: a quotation mark is not closed"),
            ("A='x' y", "line 1: \"y\" follows the quotation mark"),
            ("A=$", "line 1: no variable follows `$`"),
            (
                "A=${B:?set it}",
                "line 1: the variable B is required: set it",
            ),
        ] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(error.starts_with(told), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_short_file_does_not_become_endless() {
        let doubles = |line: usize| format!("A{}=${{A{line}}}${{A{line}}}\n", line + 1);
        let text: String = std::iter::once("A0=xxxxxxxx\n".to_owned())
            .chain((0..60).map(doubles))
            .collect();
        let error = parsed(&text).unwrap_err().to_string();
        assert!(error.contains("bytes of variables"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[A-C=$'\"\\\\# \n{}]{0,30}") {
            parsed(&text).ok();
        }

        #[test]
        fn a_quoted_value_comes_back(value in "[^'\\\\\0]{0,20}") {
            let read = parsed(&format!("A='{value}'")).unwrap();
            prop_assert_eq!(read, [("A".to_owned(), Some(value))]);
        }
    }
}
