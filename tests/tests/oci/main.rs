//! `dyno-runtime` on OCI bundles, as containerd or Podman would call it.
//!
//! The truth is read from inside the container, never from its configuration (P18).
#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

mod attacks;
mod callers;
mod checkpoint;
mod commands;
mod console;
mod controls;
mod devices;
mod events;
mod exec;
mod features;
mod file_capabilities;
mod hooks;
mod hostile;
mod inside;
mod labels;
mod life;
mod mounts;
mod namespaces;
mod net_devices;
mod own_file;
mod pid_reuse;
mod plain;
mod probes;
mod races;
mod reach;
mod rootless;
mod scheduling;
mod seccomp;
mod switches;
mod terminals;
mod update;
