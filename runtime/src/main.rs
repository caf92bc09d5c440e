//! The binary `dyno-runtime`: it begins and ends in `dyno_runtime`'s `sys`.

#![no_main]

use dyno_runtime as _;
