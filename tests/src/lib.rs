//! What the tests against the real kernel share.
//!
//! Each test is a process of its own (`cargo nextest`), has its own folders,
//! hostd, cgroups and, where it asks for it, network, and leaves nothing: the
//! types here clean up when dropped. What is tested are the programs, as
//! processes; where the machine lacks something, a test fails or says so by
//! [`skip`].
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test rig fails loudly"
)]

pub mod bundle;
pub mod cgroup;
pub mod debian;
pub mod host;
pub mod machine;
#[path = "../../hostd/src/metrics/check.rs"]
pub mod metrics;
pub mod random;
pub mod root;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The folder of the programs under test: that of this test's own `deps`.
pub fn programs() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    test.ancestors()
        .nth(2)
        .expect("a folder of programs")
        .to_owned()
}

/// Rounds of a test that needs many: twenty times as many as usual in `make soak`, four
/// tenths in a virtual machine without KVM, which says so by `DYNO_SLOW`.
pub fn rounds(usual: usize) -> usize {
    let is_set = |name| std::env::var_os(name).is_some();
    match (is_set("DYNO_SOAK"), is_set("DYNO_SLOW")) {
        (true, _) => usual * 20,
        (false, true) => usual * 2 / 5,
        (false, false) => usual,
    }
}

/// Waits until something is so, and fails after [`DEADLINE`].
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(
            begin.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The descriptor that comes with the next message of a socket, if any.
pub fn receive_fd(socket: impl rustix::fd::AsFd) -> Option<rustix::fd::OwnedFd> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; 4096];
    let mut slices = [std::io::IoSliceMut::new(&mut text)];
    let flags = rustix::net::RecvFlags::CMSG_CLOEXEC;
    rustix::net::recvmsg(socket, &mut slices, &mut ancillary, flags).expect("receive");
    ancillary.drain().find_map(|message| match message {
        rustix::net::RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

/// Makes a file that is only a test's.
pub fn write_file(path: &Path, text: &str) {
    let mut file = std::fs::File::create(path).expect("make a file");
    file.write_all(text.as_bytes()).expect("write a file");
}

/// Counts this test as skipped, with the reason. Return from it afterwards.
pub fn skip(reason: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    println_skip(&name, reason);
    if let Some(path) = std::env::var_os("DYNO_TEST_SKIPS") {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(path)
            .expect("the list of skips");
        writeln!(file, "{name}: {reason}").expect("note the skip");
    }
}

fn println_skip(name: &str, reason: &str) {
    writeln!(std::io::stderr(), "SKIPPED {name}: {reason}").expect("say that it is skipped");
}

/// Fails unless the test runs as root: a missing privilege is no reason to skip.
pub fn must_be_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "these tests run as root"
    );
}

/// A folder that is removed when dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A new folder among the temporary ones.
    #[expect(clippy::new_without_default, reason = "it acts on the machine")]
    pub fn new() -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dyno-test-{}-{count}", std::process::id()));
        std::fs::create_dir(&path).expect("make a folder");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0)
            && !std::thread::panicking()
        {
            panic!("remove {}: {error}", self.0.display());
        }
    }
}
