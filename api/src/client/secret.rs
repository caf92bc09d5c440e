//! The secret of a token, on the side of whoever has it.

use std::fmt;
use std::str::FromStr;

use http::HeaderValue;

/// The longest secret, in bytes (P15); those of hostd have 48.
const SECRET_MAX: usize = 512;

/// The secret of a token. It is shown to nobody by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Why a text is no [`Secret`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a token is one word of at most {SECRET_MAX} letters, digits and signs of ASCII")]
pub struct SecretError;

impl Secret {
    /// As it is written to a file.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// RFC 6750 section 2.1.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl FromStr for Secret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let word = text.trim_ascii();
        let fits = word.bytes().all(|byte| byte.is_ascii_graphic());
        match fits && (1..=SECRET_MAX).contains(&word.len()) {
            true => Ok(Self(word.to_owned())),
            false => Err(SecretError),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_word_that_is_not_shown() {
        let secret: Secret = " dyno_hush\n".parse().unwrap();
        assert_eq!(secret.expose(), "dyno_hush");
        let header = secret.header().unwrap();
        assert_eq!(header, "Bearer dyno_hush");
        for shown in [format!("{secret:?}"), format!("{header:?}")] {
            assert!(!shown.contains("hush"), "{shown}");
        }
        for wrong in ["", "\n", "a b", "a\r\nX: y", "ä", &"x".repeat(513)] {
            assert!(wrong.parse::<Secret>().is_err(), "{wrong:?}");
        }
    }
}
