//! The host engine: image → bundle → monitor → network → start, and the HTTP
//! API over it.
//!
//! ```text
//! daemon ── builds the host, takes up its dynos, serves
//!   │
//! http ──▶ engine ──▶ supervisor (one task per dyno) ──▶ launch ──▶ bundle (pure)
//!             │         machine (pure), perform            │
//!             ▼                                            ├──▶ monitor   dyno-runtime monitor; spare, one ahead
//!  admission (pure), images, registry                      ├──▶ network   links, ports, names
//!                                                          └──▶ cgroups   kill, measure
//! desired, once, identity, uids, events, durable, trash what is on disk, written so that a crash leaves it whole
//! quota, room                                    what a folder may take up, and what is left to others
//! recovery                                       from what is on disk and in the kernel back to supervisors
//! edge, logs, stats, metrics                     DNS, output, measurements
//! drains                                         output, sent elsewhere
//! tokens, remote                                 who may ask from elsewhere, and how they get in
//! audit                                          who changed what
//! readiness                                      whether hostd itself does its work
//! config, man, systemd, journal, upgrade, teardown  command line, units, own log, programs, leaving a machine
//! ```
//!
//! A dyno belongs to its monitor and not to hostd: hostd may be killed at any
//! moment. It never forks itself, it executes the runtime.

pub mod admission;
pub mod audit;
pub mod boot_order;
pub mod bundle;
pub mod cgroups;
pub mod chance;
pub mod changes;
pub mod checkpoints;
pub mod config;
pub mod daemon;
pub mod desired;
pub mod doctor;
pub mod drains;
pub mod durable;
pub mod edge;
pub mod engine;
pub mod events;
pub mod exec;
pub mod facts;
pub mod files;
pub mod health;
pub mod host;
pub mod http;
pub mod identity;
pub mod images;
pub mod journal;
pub mod launch;
pub mod layer;
pub mod logs;
pub mod man;
pub mod metrics;
pub mod monitor;
pub mod network;
pub mod once;
pub mod paths;
mod quota;
pub mod readiness;
pub mod recovery;
pub mod registry;
pub mod remote;
mod room;
pub mod secrets;
pub mod signal;
pub mod spare;
pub mod stats;
pub mod supervisor;
mod sync;
pub mod systemd;
pub mod teardown;
pub mod tokens;
pub mod trash;
pub mod uids;
pub mod upgrade;
pub mod volumes;
pub mod why;
