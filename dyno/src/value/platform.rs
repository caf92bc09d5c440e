//! Platforms of images: `os/architecture[/variant]`.

/// Why a text is not a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("accepted is os/architecture[/variant], such as linux/amd64 or linux/arm/v7")]
pub(crate) struct PlatformError;

/// A platform, as text; which ones an image has is the registry's to say.
pub(crate) fn parse(text: &str) -> Result<String, PlatformError> {
    let parts = text.split('/').count();
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    if (2..=3).contains(&parts) && text.split('/').all(part) {
        Ok(text.to_owned())
    } else {
        Err(PlatformError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_has_two_or_three_parts() {
        for good in ["linux/amd64", "linux/arm/v7"] {
            assert_eq!(parse(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "amd64",
            "linux/",
            "linux/arm/v7/x",
            "Linux/amd64",
            "linux/../x",
        ] {
            assert_eq!(parse(bad), Err(PlatformError), "{bad:?}");
        }
    }
}
