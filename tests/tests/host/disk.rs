//! What a dyno writes to its own `/`, limited; and file systems that can do that.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use dyno_tests::host::Host;
use dyno_tests::skip;
use serde_json::{Value, json};

/// ext4 with what quotas of projects need.
pub(crate) const EXT4: [&str; 5] = ["mkfs.ext4", "-q", "-F", "-O", "project,quota"];

/// A file system of its own for a folder of a host's state in which nothing is yet.
pub(crate) struct Disk {
    pub(crate) folder: PathBuf,
}

impl Disk {
    /// `None` where this machine cannot make or mount one.
    pub(crate) fn mount(host: &Host, folder: &str, make: &[&str], options: &str) -> Option<Self> {
        let image = host.path().join("disk.img");
        fs::File::create(&image)
            .unwrap()
            .set_len(400 << 20)
            .unwrap();
        let folder = host.path().join("state").join(folder);
        fs::create_dir_all(&folder).unwrap();
        let quiet = |mut command: Command| {
            let command = command.stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let mut mkfs = Command::new(make[0]);
        mkfs.args(&make[1..]).arg(&image);
        let mut mount = Command::new("mount");
        mount.args(["-o", options]).arg(&image).arg(&folder);
        (quiet(mkfs) && quiet(mount)).then(|| Self { folder })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.folder).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn stats(host: &Host, id: &str) -> Value {
    let stats = host.ok(&["stats", "--no-stream", "--json", id]);
    serde_json::from_str::<Value>(&stats).unwrap()[0].clone()
}

/// Writes so many MiB to a file of its own, which it removes before; how many it could.
fn written(host: &Host, id: &str, mebibytes: u64) -> u64 {
    let script = format!(
        "rm -f /big; dd if=/dev/zero of=/big bs=65536 count={} 2>/dev/null; stat -c %s /big",
        mebibytes * 16
    );
    let bytes: u64 = host.ok(&["exec", id, "sh", "-c", &script]).parse().unwrap();
    bytes >> 20
}

#[test]
fn what_a_dyno_writes_is_limited_or_the_limit_is_refused() {
    let mut host = Host::with_busybox();
    let sleep = ["busybox", "sleep", "1000"];
    let run = |host: &Host, flags: &[&str]| {
        host.ok(&[&["run", "-d", "--restart", "always"], flags, &sleep].concat())
    };
    let Some(_disk) = Disk::mount(&host, "dynos", &EXT4, "loop,prjquota") else {
        let (error, code) = host.fails(&["run", "--disk", "8M", "busybox", "true"]);
        assert!(
            error.contains("no project quotas") && code == 125,
            "{error}"
        );
        assert_eq!(host.ok(&["ps", "-aq"]), "");
        let id = run(&host, &[]);
        let (error, code) = host.fails(&["limit", "--disk", "8M", "-m", "64M", &id]);
        assert!(error.contains("no project quotas") && code == 7, "{error}");
        let told = (host.inspect(&id), stats(&host, &id));
        assert_eq!(told.0["spec"]["limits"]["disk_bytes"], Value::Null);
        assert_eq!(told.0["spec"]["limits"]["memory_bytes"], Value::Null);
        assert_eq!(told.1["memory_max_bytes"], Value::Null);
        assert_eq!(told.1["disk_bytes"], Value::Null);
        skip("this kernel has no quotas on ext4; that they are refused was tested");
        return;
    };
    let id = run(&host, &["--disk", "8M"]);
    let free = run(&host, &[]);
    assert!((4..8).contains(&written(&host, &id, 20)));
    assert_eq!(written(&host, &free, 20), 20);
    let told = stats(&host, &id);
    assert_eq!(told["disk_max_bytes"], 8 << 20);
    assert!(
        (4 << 20..=8 << 20).contains(&told["disk_bytes"].as_u64().unwrap()),
        "{told}"
    );
    assert!(stats(&host, &free)["disk_bytes"].as_u64() >= Some(20 << 20));
    assert_eq!(stats(&host, &free)["disk_max_bytes"], Value::Null);
    assert!(host.ok(&["why", &id]).contains("on disk"));
    // A file of its image counts once it is changed.
    host.ok(&["exec", &id, "rm", "/big"]);
    let before = stats(&host, &id)["disk_bytes"].as_u64().unwrap();
    host.ok(&[
        "exec",
        &id,
        "sh",
        "-c",
        "chmod 755 $(readlink -f /bin/busybox); sync",
    ]);
    assert!(stats(&host, &id)["disk_bytes"].as_u64().unwrap() > before + (500 << 10));

    // Without a restart, up and down, and for good.
    let pid = host.inspect(&id)["status"]["pid"].clone();
    host.ok(&["limit", "--disk", "16M", &id]);
    assert!((10..16).contains(&written(&host, &id, 20)));
    let (error, code) = host.fails(&["limit", "--disk", "1M", &id]);
    assert!(error.contains("has written") && code == 4, "{error}");
    assert_eq!(host.inspect(&id)["spec"]["limits"]["disk_bytes"], 16 << 20);
    assert_eq!(host.inspect(&id)["status"]["pid"], pid);
    host.kill_and_restart();
    assert!((10..16).contains(&written(&host, &id, 20)));
    host.ok(&["restart", "-t", "0", &id]);
    assert!((10..16).contains(&written(&host, &id, 20)));
    // So is one that was made without.
    host.ok(&["exec", &free, "rm", "/big"]);
    host.ok(&["limit", "--disk", "4M", &free]);
    assert!(written(&host, &free, 20) < 4);
    // What is copied into it counts, whoever does it.
    let big = host.path().join("big");
    fs::File::create(&big).unwrap().set_len(0).unwrap();
    let fill = Command::new("dd")
        .args(["if=/dev/urandom", "bs=1M", "count=20", "status=none"])
        .arg(format!("of={}", big.display()))
        .status();
    assert!(fill.unwrap().success());
    host.fails(&["cp", &big.to_string_lossy(), &format!("{free}:/copy")]);
    assert!(stats(&host, &free)["disk_bytes"].as_u64() <= Some(4 << 20));
    host.ok(&["limit", "--disk", "none", &id]);
    assert_eq!(written(&host, &id, 20), 20);
    assert_eq!(stats(&host, &id)["disk_max_bytes"], Value::Null);
    assert_eq!(
        host.inspect(&id)["spec"]["limits"]["disk_bytes"],
        json!(null)
    );
    host.ok(&["rm", "-f", &id, &free]);
}
