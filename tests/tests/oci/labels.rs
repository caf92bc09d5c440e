//! A label of a security module, where `/proc/self/attr` leads elsewhere: it goes to
//! the kernel or nowhere (P2, P18).
//!
//! The label is a profile that does not exist. Whoever hands it to the kernel is told
//! so and starts nothing; whoever writes it elsewhere starts a program without one.

use std::os::unix::fs::symlink;
use std::path::Path;

use dyno_tests::bundle::Bundle;
use dyno_tests::{until, write_file};
use serde_json::json;

/// A profile that nobody has loaded.
const ABSENT: &str = "dyno-no-such-profile";

/// Files of a thread that a label is written to.
const FILES: [&str; 2] = ["attr/apparmor/exec", "attr/exec"];

/// Whether AppArmor is in this kernel; a test that needs it returns otherwise.
pub(crate) fn is_there() -> bool {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let enabled = enabled.is_ok_and(|enabled| enabled.starts_with('Y'));
    if !enabled {
        dyno_tests::skip("AppArmor is not in this kernel; it is in that of the guest");
    }
    enabled
}

/// Makes a folder look like `/proc`, its labels to be written to a file of ours.
pub(crate) fn forge(proc: &Path, label: &Path) {
    for thread in ["self", "thread-self"] {
        for file in FILES {
            let file = proc.join(thread).join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            symlink(label, file).unwrap();
        }
    }
}

/// A bundle whose `/proc` is the image's; the true one is on `/true-proc`.
fn with_proc_of_the_image(host_root: bool, label: &Path) -> Bundle {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    if host_root {
        bundle = bundle.as_host_root();
    }
    for mount in bundle.config["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/proc" {
            mount["destination"] = json!("/true-proc");
        }
    }
    bundle.config["linux"]["maskedPaths"] = json!([]);
    bundle.config["linux"]["readonlyPaths"] = json!([]);
    let layer = bundle.path().join("layer");
    forge(&layer.join("proc"), label);
    write_file(&layer.join("etc/label"), "");
    bundle
}

/// What was written to the forged file, in the layer or over it.
fn written(bundle: &Bundle) -> Vec<u8> {
    let upper = std::fs::read(bundle.path().join("upper/etc/label"));
    upper.unwrap_or_default()
}

/// That a further process with a label that is none is refused, and nothing written.
fn assert_refused(bundle: &Bundle, who: &str) {
    let apparmor = ["exec", "--apparmor", ABSENT, bundle.id(), "true"];
    let exec = bundle.call(&apparmor);
    let told = String::from_utf8_lossy(&exec.stderr);
    assert!(!exec.status.success(), "{who}: {exec:?}");
    assert!(told.contains("apparmorProfile"), "{who}: {told}");
    assert!(written(bundle).is_empty(), "{who}: a label was written");
}

/// The control: who writes to the path is led to the forged file.
fn assert_forged(bundle: &Bundle, who: &str) {
    let naive = "echo naive > /proc/thread-self/attr/exec";
    let exec = bundle.call(&["exec", bundle.id(), "sh", "-c", naive]);
    assert!(exec.status.success(), "{who}: {exec:?}");
    assert_eq!(written(bundle), b"naive\n", "{who}");
}

#[test]
fn a_label_goes_to_the_kernel_whatever_an_image_has_for_proc() {
    if !is_there() {
        return;
    }
    // A file, and a file of procfs that takes any word.
    for label in ["/etc/label", "/true-proc/thread-self/comm"] {
        for host_root in [false, true] {
            let who = format!("{label}, root of the host {host_root}");
            let mut bundle = with_proc_of_the_image(host_root, Path::new(label));
            bundle.config["process"]["apparmorProfile"] = json!(ABSENT);
            let run = bundle.run();
            assert!(!run.create.status.success(), "{who}: {run:?}");
            assert!(run.stderr.contains("apparmorProfile"), "{who}: {run:?}");
            assert!(written(&bundle).is_empty(), "{who}: a label was written");

            bundle.config["process"]["apparmorProfile"] = json!("unconfined");
            bundle.run_detached();
            assert_refused(&bundle, &who);
            if label == "/etc/label" {
                assert_forged(&bundle, &who);
            }
        }
    }
}

#[test]
fn a_label_of_a_further_process_goes_to_no_file_that_a_process_puts_there() {
    if !is_there() {
        return;
    }
    // Root of the user namespace mounts what he likes over his own /proc.
    let forgeries = [
        "mount -t tmpfs x /proc; for t in self thread-self; do mkdir -p /proc/$t/attr/apparmor; \
         ln -s /etc/label /proc/$t/attr/exec; ln -s /etc/label /proc/$t/attr/apparmor/exec; done",
        "mkdir /p; for t in self thread-self; do mkdir -p /p/$t/attr/apparmor; \
         ln -s /etc/label /p/$t/attr/exec; ln -s /etc/label /p/$t/attr/apparmor/exec; done; \
         mount -o bind /p /proc",
    ];
    for forgery in forgeries {
        let script = format!("{forgery}; touch /made; exec sleep 1000");
        let mut bundle = Bundle::script(&script);
        let capabilities = json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
        for set in ["bounding", "effective", "permitted"] {
            bundle.config["process"]["capabilities"][set] = capabilities.clone();
        }
        write_file(&bundle.path().join("layer/etc/label"), "");
        bundle.run_detached();
        let made = bundle.path().join("upper/made");
        until("it makes its own /proc", || made.exists());
        assert_refused(&bundle, forgery);
        assert_forged(&bundle, forgery);
    }
}
