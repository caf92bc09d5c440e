//! Health checks as the API describes and shows them.
//!
//! ```text
//!            startup passes          readiness passes
//!  starting ────────────────▶ unready ──────────────▶ ready
//!     │ not in time              │ ▲      fails         │
//!     ▼                          │ └───────────────────┘│
//!  unhealthy ◀──────── liveness fails ─────────────────┘
//!     └─ ended, and started again as the restart policy says
//! ```
//! A check that there is none of has passed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How it is found out whether a dyno works.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// Has to pass once before the others begin. Until then failures do not
    /// count; `start_timeout_ms` does.
    pub startup: Option<Check>,
    /// Where it fails, the dyno is ended as a failure, and its restart policy
    /// decides what follows.
    pub liveness: Option<Check>,
    /// Where it fails, the published ports take no new connection until it
    /// passes again. The image's own `HEALTHCHECK` when absent.
    pub readiness: Option<Check>,
    /// Milliseconds from the start of the command until the startup check has
    /// to have passed, and `READY=1` to have come; 60,000 when absent.
    pub start_timeout_ms: Option<u64>,
    /// The dyno says when it has started: `READY=1` on `$NOTIFY_SOCKET`, as
    /// sd_notify(3) has it, within the start timeout.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub notify: bool,
    /// Milliseconds from one `WATCHDOG=1` to the next; later, the dyno is ended
    /// as by its liveness check. With `notify` only; none needed when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog_ms: Option<u64>,
    /// Do not use the image's own `HEALTHCHECK`.
    pub ignore_image: bool,
}

impl Health {
    /// Whether nothing was asked for.
    pub fn is_unset(&self) -> bool {
        *self == Self::default()
    }
}

/// One check, made again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What is tried.
    pub probe: Probe,
    /// Milliseconds from the end of a check to the next; 10,000 when absent,
    /// 1,000 for the startup check.
    #[serde(default)]
    pub interval_ms: Option<u64>,
    /// Milliseconds that a check may take; 5,000 when absent.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Failures in a row that count as one; 3 when absent. The startup check
    /// has the start timeout instead.
    #[serde(default)]
    pub failures: Option<u32>,
    /// Passes in a row that end a failure; 1 when absent.
    #[serde(default)]
    pub successes: Option<u32>,
}

/// What a check tries. Connections go to the dyno's own address, from the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Probe {
    /// A TCP connection is accepted.
    Tcp {
        /// Port inside the dyno.
        port: u16,
    },
    /// An HTTP GET is answered with a status in range. Redirects are not
    /// followed: they are answers.
    Http(HttpProbe),
    /// A server of the gRPC health checking protocol says `SERVING`.
    Grpc(GrpcProbe),
    /// A program inside the dyno ends with 0; it runs as `exec` runs one.
    Command {
        /// Program and arguments.
        command: Vec<String>,
    },
}

/// A GET, and the answer that passes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpProbe {
    /// Port inside the dyno.
    pub port: u16,
    /// Over TLS. The certificate is not verified: it is the dyno's own address
    /// that is asked.
    #[serde(default)]
    pub tls: bool,
    /// Path and query; `/` when absent.
    #[serde(default)]
    pub path: Option<String>,
    /// The `Host` header; the dyno's address when absent.
    #[serde(default)]
    pub host: Option<String>,
    /// The lowest status that passes; 200 when absent.
    #[serde(default)]
    pub status_min: Option<u16>,
    /// The highest status that passes; 399 when absent.
    #[serde(default)]
    pub status_max: Option<u16>,
    /// What the first 64 KiB of the body have to contain.
    #[serde(default)]
    pub contains: Option<String>,
}

impl HttpProbe {
    /// The lowest and the highest status that pass.
    pub fn statuses(&self) -> (u16, u16) {
        (
            self.status_min.unwrap_or(200),
            self.status_max.unwrap_or(399),
        )
    }
}

/// A call of `grpc.health.v1.Health/Check`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpcProbe {
    /// Port inside the dyno.
    pub port: u16,
    /// Over TLS. The certificate is not verified: it is the dyno's own address
    /// that is asked.
    #[serde(default)]
    pub tls: bool,
    /// The service that is asked about; the server as a whole when absent.
    #[serde(default)]
    pub service: Option<String>,
    /// The `:authority` of the call; the dyno's address when absent.
    #[serde(default)]
    pub host: Option<String>,
}

/// What the checks of a dyno that runs say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// The startup check has not passed yet.
    Starting,
    /// The readiness check has not passed: out of service.
    Unready,
    /// In service.
    Ready,
    /// The startup or liveness check failed: it is being ended.
    Unhealthy,
}

/// Which check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// [`Health::startup`].
    Startup,
    /// [`Health::liveness`].
    Liveness,
    /// [`Health::readiness`].
    Readiness,
}

impl CheckKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }
}

/// A check that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FailedCheck {
    /// Which one.
    pub check: CheckKind,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// How often in a row.
    pub failures: u32,
    /// Why, with what the dyno said: at most 1 KiB, without control characters.
    pub reason: String,
}
