//! Limits that change while a dyno runs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{IoLimits, Limits, Ulimit};

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
    /// Reading and writing, each by itself.
    pub io: Option<IoLimits>,
    /// Bytes on disk of what it writes to its own `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Open files of each process: `nofile` of its
    /// [`ulimits`](super::DynoSpec::ulimits). Where both values are 0, the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nofile: Option<Ulimit>,
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
            disk_bytes: one(self.disk_bytes, limits.disk_bytes),
            // Once there were any, they are told to the kernel each time: those that are
            // gone as well.
            io: match self.io {
                None => limits.io,
                Some(asked) => {
                    let before = limits.io.unwrap_or_default();
                    Some(IoLimits {
                        read_bytes: one(asked.read_bytes, before.read_bytes),
                        write_bytes: one(asked.write_bytes, before.write_bytes),
                        read_ops: one(asked.read_ops, before.read_ops),
                        write_ops: one(asked.write_ops, before.write_ops),
                    })
                }
            },
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
            disk_bytes: Some(1 << 30),
            io: Some(IoLimits {
                read_bytes: Some(1 << 20),
                write_bytes: Some(2 << 20),
                ..IoLimits::default()
            }),
        };
        let request = LimitRequest {
            memory_bytes: Some(0),
            cpu_millis: None,
            pids: Some(7),
            disk_bytes: None,
            io: Some(IoLimits {
                read_bytes: Some(0),
                write_ops: Some(50),
                ..IoLimits::default()
            }),
            nofile: None,
        };
        let after = Limits {
            memory_bytes: None,
            cpu_millis: Some(500),
            pids: Some(7),
            disk_bytes: Some(1 << 30),
            io: Some(IoLimits {
                write_bytes: Some(2 << 20),
                write_ops: Some(50),
                ..IoLimits::default()
            }),
        };
        assert_eq!(request.over(before), after);
        assert_eq!(LimitRequest::default().over(before), before);
    }
}
