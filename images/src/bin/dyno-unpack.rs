//! `dyno-unpack BYTES ENTRIES DEPTH PATH_BYTES`: unpacks the layer on stdin into the current
//! folder. Made to be run by `dyno-runtime jail`.

fn main() -> std::process::ExitCode {
    dyno_images::unpack::main(std::env::args().skip(1))
}
