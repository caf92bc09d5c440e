//! What the OCI runtime spec promises, asked of any runtime.
//!
//! `RUNTIME_UNDER_TEST` names the runtime, a program in `PATH` or a path; without
//! it ours is tested. The tests use nothing but the spec and the command line that
//! runc, crun and ours share, and read the truth from inside the container. Other
//! runtimes' failures are listed in `expected/`, and a check compares the lists
//! both ways; ours has none.
#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

mod hooks;
mod lifecycle;
mod limits;
mod mounts;
mod namespaces;
mod process;
mod rig;
mod seccomp;
