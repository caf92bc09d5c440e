//! Tells the linker where `dyno-runtime` begins (`src/sys/entry.rs`), what the C
//! library calls then (`src/sys/start.rs`), and that it has its place in memory: the
//! quarter of a megabyte that a start would relocate, a monitor would keep for itself
//! (docs/performance.md). Its stack, heap and mappings are at random places all the
//! same. And what a start executes lies side by side (`hot.ld`).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
        println!("cargo::rustc-link-arg-bin=dyno-runtime=-Wl,--entry=dyno_runtime_start");
    }
    println!("cargo::rustc-link-arg-bin=dyno-runtime=-Wl,--defsym=main=dyno_runtime_main");
    for argument in ["-static", "-no-pie"] {
        println!("cargo::rustc-link-arg-bin=dyno-runtime={argument}");
    }
    let order = format!("{}/hot.ld", env!("CARGO_MANIFEST_DIR"));
    println!("cargo::rerun-if-changed={order}");
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo::rustc-link-arg-bin=dyno-runtime=-Wl,-T,{order}");
    }
}
