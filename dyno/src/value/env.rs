//! Environment variables: `-e NAME=value`, `-e NAME`, and files of them.

/// One variable: its value, or that of the caller's own environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: String,
    /// The caller's own where absent.
    pub(crate) value: Option<String>,
}

/// Why a text is not a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VariableError {
    #[error("the name of a variable is missing; accepted are NAME=value and NAME")]
    Name,
    #[error("a variable cannot hold a NUL byte")]
    Nul,
    #[error("the name of a variable has no white space; accepted are NAME=value and NAME")]
    Space,
}

/// Why a file of variables was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {source}")]
pub(crate) struct FileError {
    line: usize,
    source: VariableError,
}

/// One variable.
pub(crate) fn parse(text: &str) -> Result<Variable, VariableError> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if name.is_empty() {
        Err(VariableError::Name)
    } else if text.contains('\0') {
        Err(VariableError::Nul)
    } else if name.contains(char::is_whitespace) {
        Err(VariableError::Space)
    } else {
        Ok(Variable {
            name: name.to_owned(),
            value,
        })
    }
}

/// The variables of a file: one per line, nothing quoted or expanded; blank
/// lines and lines that begin with `#` are comments.
pub(crate) fn parse_file(text: &str) -> Result<Vec<Variable>, FileError> {
    let lines = text.lines().enumerate();
    lines
        .map(|(index, line)| (index + 1, line.trim_start()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(line, text)| parse(text).map_err(|source| FileError { line, source }))
        .collect()
}

/// A label: `name=value`, or a name with an empty value.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), VariableError> {
    let variable = parse(text)?;
    Ok((variable.name, variable.value.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variable(name: &str, value: Option<&str>) -> Variable {
        Variable {
            name: name.to_owned(),
            value: value.map(str::to_owned),
        }
    }

    #[test]
    fn only_the_first_equals_sign_divides() {
        assert_eq!(parse("A=b=c"), Ok(variable("A", Some("b=c"))));
        assert_eq!(parse("A="), Ok(variable("A", Some(""))));
        assert_eq!(parse("A"), Ok(variable("A", None)));
        assert_eq!(parse("=b"), Err(VariableError::Name));
        assert_eq!(parse("A B=c"), Err(VariableError::Space));
    }

    #[test]
    fn a_file_has_comments_and_names_the_wrong_line() {
        let file = "# comment\n\nA=1\r\n  B=two words\nC\n";
        let expected = vec![
            variable("A", Some("1")),
            variable("B", Some("two words")),
            variable("C", None),
        ];
        assert_eq!(parse_file(file), Ok(expected));
        let refusal = parse_file("A=1\n=2\n").unwrap_err();
        assert!(refusal.to_string().starts_with("line 2: "), "{refusal}");
    }

    proptest! {
        #[test]
        fn any_value_survives(name in "[A-Z_]{1,9}", value in "[^\0\r\n]*") {
            let text = format!("{name}={value}");
            prop_assert_eq!(parse(&text), Ok(variable(&name, Some(&value))));
        }

        #[test]
        fn any_file_parses_or_is_refused(text in ".*") {
            drop(parse_file(&text));
        }
    }
}
