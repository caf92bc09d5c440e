//! Groups and payloads that are gone with the test.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dyno_runtime::cgroup::{Cgroup, Layout, detect, prune};
use oci_spec::runtime::LinuxResources;
use rustix::process::Pid;
use serde_json::Value;

pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A cgroup under an outer folder of its own; both are gone afterwards.
pub(crate) struct Group {
    pub(crate) layout: Layout,
    pub(crate) outer: String,
    pub(crate) cgroup: Cgroup,
}

impl Group {
    pub(crate) fn new(resources: Value) -> Self {
        Self::on(detect().unwrap(), resources)
    }

    pub(crate) fn on(layout: Layout, resources: Value) -> Self {
        let outer = outer();
        let cgroup = Cgroup::create(&layout, &format!("{outer}/dynos/a"), &parse(resources));
        Self {
            layout,
            outer,
            cgroup: cgroup.unwrap(),
        }
    }

    /// Runs a shell line that waits until it is in the group.
    pub(crate) fn run(&self, line: &str) -> Running {
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("read go; {line}")])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        self.cgroup.add(Pid::from_child(&child)).unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        Running(child)
    }

    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        let record = self.cgroup.record();
        record
            .v2
            .iter()
            .chain(record.v1.values())
            .cloned()
            .collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.cgroup.kill().unwrap();
        self.cgroup.wait_empty(LONG).unwrap();
        self.cgroup.remove(LONG).unwrap();
        prune(&self.layout, &self.outer).unwrap();
        assert_nothing_left(&self.layout, &self.outer);
    }
}

/// A payload, killed and reaped with the test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn end(mut self) -> std::process::ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

pub(crate) fn outer() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "/dyno-test-cgroup-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

pub(crate) fn parse(resources: Value) -> LinuxResources {
    serde_json::from_value(resources).unwrap()
}

pub(crate) fn bases(layout: &Layout) -> Vec<PathBuf> {
    let v1 = match layout {
        Layout::Unified { .. } => BTreeMap::new(),
        Layout::Hybrid { controllers, .. } | Layout::Legacy { controllers } => controllers.clone(),
    };
    layout
        .v2()
        .map(Path::to_owned)
        .into_iter()
        .chain(v1.into_values())
        .collect()
}

pub(crate) fn assert_nothing_left(layout: &Layout, outer: &str) {
    for base in bases(layout) {
        let folder = base.join(outer.trim_start_matches('/'));
        assert!(!folder.exists(), "{} is left", folder.display());
    }
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
