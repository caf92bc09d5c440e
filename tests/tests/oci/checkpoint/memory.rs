//! Memory that is saved in several goes: `--pre-dump`, `--parent-path`, `--auto-dedup`.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::*;

/// Bytes that it has in memory and never changes.
const HELD: u64 = 3_000_000;

/// As [`counting`], with much in memory; how much is told to who asks.
fn holding() -> Bundle {
    let script = format!(
        "x=$(yes 0123456789 2>/dev/null | head -c {HELD}); n=0; while :; do n=$((n+1)); \
         echo $n >/count.new; mv /count.new /count; \
         if [ -e /ask ]; then echo ${{#x}} >/answer; fi; sleep 0.1; done"
    );
    plain(Bundle::script(&script))
}

fn pages(bundle: &Bundle, images: &str) -> PathBuf {
    bundle.path().join(images).join("pages-1.img")
}

fn size(bundle: &Bundle, images: &str) -> u64 {
    std::fs::metadata(pages(bundle, images)).unwrap().len()
}

/// Bytes on disk: holes take none.
fn taken(bundle: &Bundle, images: &str) -> u64 {
    std::fs::metadata(pages(bundle, images)).unwrap().blocks() * 512
}

fn save(bundle: &Bundle, images: &str, flags: &[&str]) {
    let path = bundle.path().join(images).to_string_lossy().into_owned();
    let words = ["checkpoint", "--image-path", &path, "--empty-ns", "network"];
    let output = bundle.call(&[&words, flags, &[bundle.id()]].concat());
    let log = std::fs::read_to_string(bundle.path().join(images).join("dump.log"));
    let log = log.unwrap_or_default();
    let lines: Vec<_> = log.lines().rev().take(25).collect();
    assert!(output.status.success(), "{}\n{lines:#?}", stderr(&output));
}

fn counts_on(bundle: &Bundle) {
    let before = count(bundle);
    until("it goes on", || count(bundle) > before + 1);
}

#[test]
fn what_was_saved_before_is_not_saved_again_and_comes_back() {
    if skipped() {
        return;
    }
    let bundle = holding();
    bundle.run_detached();
    counts_on(&bundle);
    save(&bundle, "before", &["--pre-dump"]);
    assert_eq!(bundle.state()["status"], "running");
    counts_on(&bundle);
    assert!(size(&bundle, "before") > HELD);
    let alone = bundle.path().join("before").to_string_lossy().into_owned();
    let mut alone = bundle.command(&["restore", "--detach", "--image-path", &alone]);
    let alone = alone.output().unwrap();
    assert_eq!(alone.status.code(), Some(1), "memory alone: {alone:?}");
    assert!(stderr(&alone).contains("dyno-runtime.json"), "{alone:?}");
    // The control: all of it is saved where nothing is built on.
    save(&bundle, "whole", &["--leave-running"]);
    assert!(size(&bundle, "whole") > HELD);
    save(&bundle, "image", &["--parent-path", "../before"]);
    assert!(
        size(&bundle, "image") < HELD / 2,
        "{}",
        size(&bundle, "image")
    );
    succeeded(&restore(&bundle), &bundle, "restore.log");
    counts_on(&bundle);
    dyno_tests::write_file(&bundle.path().join("layer/ask"), "");
    let answer = || std::fs::read_to_string(bundle.path().join("layer/answer"));
    let whole = format!("{HELD}\n");
    until("it has it all", || answer().is_ok_and(|text| text == whole));
}

#[test]
fn what_is_saved_anew_is_dropped_from_older_images() {
    if skipped() {
        return;
    }
    let bundle = counting();
    bundle.run_detached();
    counts_on(&bundle);
    save(&bundle, "before", &["--pre-dump"]);
    let older = taken(&bundle, "before");
    counts_on(&bundle);
    save(
        &bundle,
        "between",
        &["--pre-dump", "--parent-path", "../before"],
    );
    assert_eq!(
        taken(&bundle, "before"),
        older,
        "the control: nothing is dropped"
    );
    counts_on(&bundle);
    let both = older + taken(&bundle, "between");
    let flags = ["--parent-path", "../between", "--auto-dedup"];
    save(&bundle, "image", &flags);
    let left = taken(&bundle, "before") + taken(&bundle, "between");
    assert!(left < both, "{left} of {both}");
    let saved = taken(&bundle, "image");
    succeeded(&restore(&bundle), &bundle, "restore.log");
    counts_on(&bundle);
    assert_eq!(
        taken(&bundle, "image"),
        saved,
        "the control: nothing is dropped"
    );
    let delete = bundle.call(&["delete", "--force", bundle.id()]);
    assert!(delete.status.success(), "{delete:?}");
    let flags = ["--empty-ns", "network", "--auto-dedup"];
    succeeded(&restore_with(&bundle, &flags), &bundle, "restore.log");
    counts_on(&bundle);
    let left = taken(&bundle, "image");
    assert!(left < saved, "{left} of {saved}");
}
