//! Boots a real kernel in QEMU and runs our static binaries on it.
//!
//! What needs its own kernel is tested here: pure cgroup v2 with every
//! controller, a host that reboots, a machine that loses its power.
//!
//! ```text
//!  dyno-vm-tests (main)                        the virtual machine
//!    kit        kernel, initramfs, disk image    initramfs: switch to /dev/vda
//!    vm         one QEMU process; run, cut power   busybox init
//!    scenarios  what is promised, as tests           dyno-vm-guest setup, agent
//!    report     pass, fail, skip and why             hostd, if asked for at boot
//!    figures    what a start takes there
//!        └──────── wire: frames over a virtio-serial port ────┘
//! ```
//!
//! `docs/vm-tests.md` tells how to use and debug it.

pub mod figures;
pub mod guest;
pub mod kit;
pub mod report;
pub mod scenarios;
pub mod vm;
pub mod wire;
pub mod write_log;
