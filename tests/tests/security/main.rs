//! The running product, attacked: by images, by dynos, by clients (docs/security.md).
//!
//! Every attack that aims at the host has a canary that must stay as it is, and
//! a control that shows that the attack would work where nothing stands in its way.
#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

mod api;
mod audit;
mod contract;
mod dynos;
mod floods;
mod image_configs;
mod image_roots;
mod malformed;
mod network;
mod remote;
mod rig;
mod slow;
mod system_calls;
mod tls;
