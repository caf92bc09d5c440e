//! Limits that change while a dyno runs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Limits;

/// Other limits for a dyno, `POST /v1/dynos/{dyno}/limit`: what is absent stays, and
/// 0 is no limit (of processes: the default).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitRequest {
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

impl LimitRequest {
    /// These limits with what is asked for in their place.
    #[must_use]
    pub fn over(self, limits: Limits) -> Limits {
        fn one<T: Default + PartialEq>(asked: Option<T>, before: Option<T>) -> Option<T> {
            match asked {
                None => before,
                Some(asked) => Some(asked).filter(|asked| *asked != T::default()),
            }
        }
        Limits {
            memory_bytes: one(self.memory_bytes, limits.memory_bytes),
            cpu_millis: one(self.cpu_millis, limits.cpu_millis),
            pids: one(self.pids, limits.pids),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_not_asked_for_stays_and_zero_is_none() {
        let before = Limits {
            memory_bytes: Some(64 << 20),
            cpu_millis: Some(500),
            pids: None,
        };
        let request = LimitRequest {
            memory_bytes: Some(0),
            cpu_millis: None,
            pids: Some(7),
        };
        let after = Limits {
            memory_bytes: None,
            cpu_millis: Some(500),
            pids: Some(7),
        };
        assert_eq!(request.over(before), after);
        assert_eq!(LimitRequest::default().over(before), before);
    }
}
