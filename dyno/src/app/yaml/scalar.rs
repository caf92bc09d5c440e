//! What a scalar says (YAML 1.2.2, 10.3.2): nothing, a truth value, a number or a
//! text. `yes` and `22:22` are texts, other than in YAML 1.1. A number is what it is
//! written as.

use saphyr_parser::{ScalarStyle, Tag};

use super::super::document::Value;
use super::YamlError;

/// The value of a scalar, which its tag may not contradict.
pub(super) fn value(
    text: String,
    style: ScalarStyle,
    tag: Option<&Tag>,
) -> Result<Value, YamlError> {
    if style != ScalarStyle::Plain || tag.is_some_and(means_text) {
        return match tag {
            Some(tag) if !means_text(tag) => Err(YamlError::Tag(tag.to_string())),
            _ => Ok(Value::Text(text)),
        };
    }
    let value = plain(text);
    let Some(tag) = tag else {
        return Ok(value);
    };
    match (tag.is_yaml_core_schema(), tag.suffix.as_str(), &value) {
        (true, "null", Value::Null)
        | (true, "bool", Value::Bool(_))
        | (true, "int" | "float", Value::Number(_)) => Ok(value),
        _ => Err(YamlError::Tag(tag.to_string())),
    }
}

/// Whether this key is the merge key.
pub(super) fn merges(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> bool {
    text == "<<" && style == ScalarStyle::Plain && tag.is_none()
}

/// `!!str`, or `!`: whatever is there is a text.
fn means_text(tag: &Tag) -> bool {
    (tag.is_yaml_core_schema() && tag.suffix == "str")
        || (tag.handle.is_empty() && tag.suffix == "!")
}

fn plain(text: String) -> Value {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_number(&text) => Value::Number(text),
        _ => Value::Text(text),
    }
}

fn is_number(text: &str) -> bool {
    let of = |digits: &str, radix: u32| {
        !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix))
    };
    if let Some(digits) = text.strip_prefix("0o") {
        return of(digits, 8);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return of(digits, 16);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let whole = exponent
        .is_none_or(|exponent| of(exponent.strip_prefix(['+', '-']).unwrap_or(exponent), 10));
    let digits: String = mantissa.replacen('.', "", 1);
    whole && of(&digits, 10)
}
