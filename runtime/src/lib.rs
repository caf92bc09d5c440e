//! The container runtime: from an OCI bundle to a running process.
//!
//! ```text
//!  spec      config.json, read and checked
//!  plan      everything the child will do, thought out and allocated beforehand
//!  child     walks the plan between clone3(2) and execve(2)
//!  container ties them together: new → create → start, exec
//!  cgroup    limits, freezing, killing, events, on v2 and on hybrid hosts
//!  seccomp   profile → BPF            device_filter  rules → eBPF
//!  intel_rdt classes of cache and memory bandwidth
//!  monitor   one process per dyno: owns stdio, logs, exit status, restarts
//!  jail      runs a stranger's-data program in a sealed folder
//!  inside    runs one among a container's files
//!  criu      saves a container's processes and brings them back
//!  rootless  an ordinary user becomes root of a user namespace of his own
//!  init      the first process of a dyno that wants one of ours
//!  own_file  keeps the file that we run from out of a container's reach
//!  quota     what one folder may take up of its file system
//!  features  what is supported, for callers that ask
//!  signal    names and numbers
//!  mountinfo what the kernel says of mounts
//!  netlink   messages to the kernel and from it
//!  replace   a file in the place of another
//!  clock     whether somebody keeps the machine's
//!  tcp       how much of a connection's bytes the peer has
//!  state     what the OCI command line keeps on disk between its calls
//!  command   the command line
//!  fuzz      where bytes that we did not write come in, for tests of that
//!  sys       one safe function per system call; the only unsafe code
//! ```
//!
//! The library is synchronous and its callers are single-threaded processes:
//! that is the contract that makes cloning safe.

pub mod cgroup;
pub mod clock;
pub mod command;
pub mod container;
pub mod device_filter;
pub mod features;
#[doc(hidden)]
pub mod fuzz;
pub mod inside;
pub mod intel_rdt;
pub mod jail;
pub mod monitor;
pub mod own_file;
pub mod quota;
pub mod replace;
pub mod seccomp;
pub mod signal;
pub mod spec;
pub mod state;
pub mod tcp;

mod child;
mod criu;
mod host_mounts;
mod init;
mod lsm;
mod mountinfo;
mod net_devices;
mod netlink;
mod plan;
mod rootless;
mod sys;
