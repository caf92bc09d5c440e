//! Limits: shares of CPU, such as `0.5` or `2`, and `none` where one is taken away.

use std::fmt::Display;

use super::decimal;

/// Why a text is not a number of CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CpuError {
    #[error("not a number of CPUs; accepted are numbers such as 0.5 or 2")]
    Syntax,
    #[error("at least 0.01 CPUs are needed; accepted are numbers such as 0.5 or 2")]
    TooSmall,
}

/// cpu.max accepts no quota below 1 ms of its period of 100 ms.
const CPU_MIN_MILLIS: u32 = 10;

/// Thousandths of a CPU.
pub(crate) fn parse_cpu(text: &str) -> Result<u32, CpuError> {
    let millis = decimal::parse_millis(text).and_then(|millis| u32::try_from(millis).ok());
    match millis {
        None => Err(CpuError::Syntax),
        Some(millis) if millis < CPU_MIN_MILLIS => Err(CpuError::TooSmall),
        Some(millis) => Ok(millis),
    }
}

/// A value, or 0 for none.
pub(crate) fn or_none<T: Default, E: Display>(
    parse: impl Fn(&str) -> Result<T, E> + Clone,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| match text {
        "none" => Ok(T::default()),
        text => parse(text).map_err(|error| format!("{error}; none takes the limit away")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_thousandths() {
        assert_eq!(parse_cpu("0.5"), Ok(500));
        assert_eq!(parse_cpu("2"), Ok(2000));
        assert_eq!(parse_cpu("0.01"), Ok(10));
    }

    #[test]
    fn no_cpu_at_all_is_refused() {
        assert_eq!(parse_cpu("0"), Err(CpuError::TooSmall));
        assert_eq!(parse_cpu("0.009"), Err(CpuError::TooSmall));
        for bad in ["", "half", "-1", "50%", "1.23456", "99999999999"] {
            assert_eq!(parse_cpu(bad), Err(CpuError::Syntax), "{bad:?}");
        }
    }
}
