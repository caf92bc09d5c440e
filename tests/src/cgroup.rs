//! What the kernel says of a container's cgroup.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// A file of the cgroup of the container with this `state`, as the host sees it: by
/// its v2 name, or by the controller and name of v1.
pub fn limit_of(state: &Value, v2: &str, controller: &str, v1: &str) -> String {
    let file = file_of(state, v2, controller, v1);
    std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        .trim()
        .to_owned()
}

/// Where that file is.
pub fn file_of(state: &Value, v2: &str, controller: &str, v1: &str) -> PathBuf {
    let own = format!("/proc/{}/cgroup", state["pid"]);
    let own = std::fs::read_to_string(own).expect("its groups");
    let path = |wanted: &str| {
        own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let controllers = fields.nth(1)?;
            controllers
                .split(',')
                .any(|name| name == wanted)
                .then(|| fields.next())?
                .map(|path| path.trim_start_matches('/').to_owned())
        })
    };
    let top = Path::new("/sys/fs/cgroup");
    match path(controller) {
        Some(folder) => top.join(controller).join(folder).join(v1),
        None => top.join(path("").expect("a v2 group")).join(v2),
    }
}
