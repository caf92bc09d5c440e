//! The daemon `hostd`.

fn main() {}
