//! Tells the linker where `dyno-runtime` begins: see `src/sys/entry.rs`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
        println!("cargo::rustc-link-arg-bin=dyno-runtime=-Wl,--entry=dyno_runtime_start");
    }
}
