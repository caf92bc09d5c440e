//! `dyno_runtime::fuzz::config`, driven by libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dyno_runtime::fuzz::config(bytes));
