//! Root file systems for tests: busybox, and nothing else.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The applets that tests call.
const APPLETS: &[&str] = &[
    "cat", "chmod", "cut", "dd", "echo", "env", "false", "grep", "head", "hostname", "httpd", "id",
    "ip", "kill", "ln", "ls", "mkdir", "mkfifo", "mknod", "mount", "mv", "nc", "nslookup", "od",
    "ps", "pwd", "readlink", "rm", "sed", "seq", "sh", "sleep", "sort", "stat", "stty", "tail",
    "test", "timeout", "touch", "tr", "true", "tty", "umount", "uname", "unshare", "wc", "wget",
    "yes",
];

/// Where Debian's `busybox-static` has its program.
pub fn busybox() -> PathBuf {
    let found = ["/bin/busybox", "/usr/bin/busybox"]
        .map(PathBuf::from)
        .into_iter()
        .find(|p| p.exists());
    found.expect("busybox: apt-get install busybox-static")
}

/// Fills `folder` with `bin`, `etc/passwd`, `etc/group` and `tmp`.
pub fn fill(folder: &Path) {
    let make = |name: &str| std::fs::create_dir_all(folder.join(name)).expect("make a folder");
    ["bin", "etc", "tmp", "srv"].into_iter().for_each(make);
    std::fs::copy(busybox(), folder.join("bin/busybox")).expect("copy busybox");
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", folder.join("bin").join(applet))
            .expect("link an applet");
    }
    let write = |name: &str, text: &str| {
        let mut file = std::fs::File::create(folder.join(name)).expect("make a file");
        std::io::Write::write_all(&mut file, text.as_bytes()).expect("write a file");
    };
    write(
        "etc/passwd",
        "root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n",
    );
    write("etc/group", "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n");
}

/// A tar archive of such a root.
pub fn archive(at: &Path) {
    let folder = at.with_extension("root");
    std::fs::create_dir(&folder).expect("make a folder");
    fill(&folder);
    let status = Command::new("tar")
        .arg("-C")
        .arg(&folder)
        .arg("-cf")
        .arg(at)
        .args(["--owner=0", "--group=0", "."])
        .stdin(Stdio::null())
        .status()
        .expect("run tar");
    assert!(status.success(), "tar: {status}");
    std::fs::remove_dir_all(&folder).expect("remove the folder");
}
