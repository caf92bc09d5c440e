//! Tells the linker where `dyno-runtime` begins, see `src/sys/entry.rs`, and that
//! it has its place in memory: the quarter of a megabyte that a start would
//! relocate, a monitor would keep for itself (docs/performance.md). Its stack,
//! heap and mappings are at random places all the same.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
        println!("cargo::rustc-link-arg-bin=dyno-runtime=-Wl,--entry=dyno_runtime_start");
    }
    for argument in ["-static", "-no-pie"] {
        println!("cargo::rustc-link-arg-bin=dyno-runtime={argument}");
    }
}
