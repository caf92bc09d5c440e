//! The binary `dyno-runtime`.

use std::process::ExitCode;

fn main() -> ExitCode {
    dyno_runtime::command::main()
}
