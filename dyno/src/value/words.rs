//! Lines that are split into words as a shell does it: `pg_dumpall -U "the owner"`.

/// Why a line cannot be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WordsError {
    #[error("a quotation mark is not closed")]
    Quote,
    #[error("nothing follows the last backslash")]
    Backslash,
}

/// The words of a line; `none` is no words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Words(pub(crate) Vec<String>);

/// A command, or `none`.
pub(crate) fn parse(text: &str) -> Result<Words, WordsError> {
    match text {
        "none" => Ok(Words(Vec::new())),
        line => split(line).map(Words),
    }
}

/// The words of a line: white space divides, quotation marks and backslashes hold
/// together, nothing is expanded (POSIX shell, 2.2 Quoting).
pub(crate) fn split(line: &str) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(mark), c) if c == mark => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '\\') => {
                let next = chars.next().ok_or(WordsError::Backslash)?;
                word.get_or_insert_default().push(next);
            }
            (Some('"'), '\\') => {
                let word = word.get_or_insert_default();
                match chars.next().ok_or(WordsError::Quote)? {
                    c @ ('"' | '\\' | '$' | '`') => word.push(c),
                    other => word.extend(['\\', other]),
                }
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(WordsError::Quote);
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_split_as_a_shell_does() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            (" a  b\tc ", &["a", "b", "c"]),
            (
                r#"sh -c "echo 'x' \"y\" \n""#,
                &["sh", "-c", r#"echo 'x' "y" \n"#],
            ),
            (r"a\ b '\' ''", &["a b", r"\", ""]),
            ("a'b'\"c\"", &["abc"]),
        ];
        for (line, words) in cases {
            assert_eq!(split(line).unwrap(), *words, "{line}");
        }
        assert_eq!(split("a 'b"), Err(WordsError::Quote));
        assert_eq!(split("a \\"), Err(WordsError::Backslash));
    }

    proptest! {
        #[test]
        fn quoted_words_come_back(words in prop::collection::vec("[^']{0,8}", 0..5)) {
            let line: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
            prop_assert_eq!(split(&line.join(" ")).unwrap(), words);
        }
    }
}
