//! A dyno's files from outside: copied in and out, compared with its image.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

use dyno_tests::host::Host;
use dyno_tests::until;

/// A dyno that does nothing, having run this.
fn dyno(host: &Host, script: &str) -> String {
    let script = format!("{script}; echo ready; exec sleep 1000");
    let id = host.ok(&["run", "-d", "busybox", "sh", "-c", &script]);
    until("it is ready", || host.ok(&["logs", &id]).ends_with("ready"));
    id
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::io::Write::write_all(&mut fs::File::create(path).unwrap(), text.as_bytes()).unwrap();
}

#[test]
fn a_folder_goes_into_a_dyno_and_comes_back_whether_it_runs_or_not() {
    let host = Host::with_busybox();
    let id = dyno(&host, "mkdir /data");
    let here = host.path().join("here");
    let long = "n".repeat(150);
    write(&here.join("inner/run"), "#!/bin/sh\n");
    write(&here.join(&long), "long");
    symlink("inner/run", here.join("link")).unwrap();
    let executable = fs::Permissions::from_mode(0o750);
    fs::set_permissions(here.join("inner/run"), executable).unwrap();
    let at = |name: &str| host.path().join(name).to_string_lossy().into_owned();
    let inside = |path: &str| format!("{id}:{path}");
    let same = |copy: &str| {
        let copy = host.path().join(copy);
        assert_eq!(fs::read_to_string(copy.join(&long)).unwrap(), "long");
        assert_eq!(
            fs::read_link(copy.join("link")).unwrap(),
            Path::new("inner/run")
        );
        let mode = fs::metadata(copy.join("inner/run")).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o750);
    };

    host.ok(&["cp", &at("here"), &inside("/data")]);
    let owner = host.ok(&[
        "exec",
        &id,
        "stat",
        "-c",
        "%u:%g %a",
        "/data/here/inner/run",
    ]);
    assert_eq!(owner, "0:0 750");
    host.ok(&["cp", &inside("/data/here"), &at("back")]);
    same("back");
    // From one place of the dyno to another, as a stream.
    let mut out = host.dyno(&["cp", &inside("/data/here"), "-"]);
    let mut out = out.stdout(Stdio::piped()).spawn().unwrap();
    let mut into = host.dyno(&["cp", "-", &inside("/data/moved")]);
    let into = into.stdin(out.stdout.take().unwrap()).status().unwrap();
    assert!(into.success() && out.wait().unwrap().success());

    host.ok(&["stop", "-t", "0", &id]);
    host.ok(&["cp", &inside("/data/moved"), &at("stopped")]);
    same("stopped");
    host.ok(&["cp", &at("here/inner/run"), &inside("/data/new")]);
    host.ok(&["cp", &at("here/inner/run"), &inside("/etc/passwd2")]);
    let (said, code) = host.fails(&["cp", &inside("/no/such"), &at("x")]);
    assert!(code == 3 && said.contains("/no/such"), "{code} {said}");
    let (said, code) = host.fails(&["cp", &at("here"), &inside("/no/such/folder")]);
    assert!(code == 2 && said.contains("/no/such"), "{code} {said}");
    // What was made for looking goes, and was never the dyno's life.
    assert_eq!(host.inspect(&id)["status"]["phase"], "exited");
    let bundle = host.path().join("run/dynos").join(&id);
    until("the container for looking is gone", || !bundle.exists());
    host.ok(&["start", &id]);
    assert_eq!(host.ok(&["exec", &id, "cat", "/data/new"]), "#!/bin/sh");
}

#[test]
fn a_hostile_root_leads_a_copy_nowhere_but_into_itself() {
    let host = Host::with_busybox();
    let outside = host.path().join("outside");
    write(&outside.join("canary"), "alive");
    let outside = outside.to_string_lossy().into_owned();
    let script = format!(
        "mkdir /d; ln -s {outside} /d/abs; ln -s ../../../../../..{outside} /d/rel; \
         mkfifo /d/pipe; echo s >/d/suid; chmod 6755 /d/suid; ln -s /proc/1/root/etc /d/magic"
    );
    let id = dyno(&host, &script);
    let inside = |path: &str| format!("{id}:{path}");
    let at = |name: &str| host.path().join(name).to_string_lossy().into_owned();
    for link in ["abs", "rel"] {
        // Inside there is no such path.
        let path = format!("/d/{link}/canary");
        assert_eq!(host.fails(&["cp", &inside(&path), &at("x")]).1, 3, "{path}");
        host.run(&[
            "cp",
            &at("outside/canary"),
            &inside(&format!("/d/{link}/new")),
        ]);
    }
    // The links themselves, and nothing that they lead to; a fifo holds up nobody.
    host.ok(&["cp", &inside("/d"), &at("copy")]);
    let copy = host.path().join("copy");
    assert!(copy.join("abs").is_symlink() && copy.join("magic").is_symlink());
    assert!(!copy.join("pipe").exists());
    let mode = fs::metadata(copy.join("suid"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o755);
    // A second copy writes through none of the links that the first has made.
    host.ok(&[
        "exec",
        &id,
        "sh",
        "-c",
        "rm /d/abs; mkdir /d/abs; echo x >/d/abs/canary",
    ]);
    fs::rename(&copy, host.path().join("d")).unwrap();
    host.fails(&["cp", &inside("/d"), &at("")]);
    let names = fs::read_dir(&outside).unwrap().count();
    let canary = fs::read_to_string(host.path().join("outside/canary")).unwrap();
    assert_eq!((names, canary.as_str()), (1, "alive"));
}

#[test]
fn diff_tells_what_was_added_changed_and_deleted() {
    let host = Host::with_busybox();
    let script = "mkdir -p /new/deep; echo x >/new/deep/file; rm /bin/tail; chmod 700 /bin/busybox";
    let id = dyno(&host, script);
    let expected = "C /bin\nC /bin/busybox\nD /bin/tail\nA /new\nA /new/deep\nA /new/deep/file";
    let told = |host: &Host| -> Vec<String> {
        let diff = host.ok(&["diff", &id]);
        let own = |line: &&str| {
            ["/bin", "/new"]
                .iter()
                .any(|path| line[2..].starts_with(path))
        };
        diff.lines().filter(own).map(str::to_owned).collect()
    };
    assert_eq!(told(&host).join("\n"), expected);
    host.ok(&["stop", "-t", "0", &id]);
    assert_eq!(told(&host).join("\n"), expected);
}

#[test]
fn a_copy_that_nobody_reads_ends_with_the_dyno() {
    let host = Host::with_busybox();
    let id = dyno(&host, "dd if=/dev/zero of=/big bs=1M count=8 2>/dev/null");
    let mut copy = host.dyno(&["cp", &format!("{id}:/big"), "-"]);
    copy.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut copy = copy.spawn().unwrap();
    let pid = host.inspect(&id)["status"]["pid"].to_string();
    let helpers = || {
        let words = ["inside", "--pid", &pid];
        let is_one = |process: &fs::DirEntry| {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(&words.join(" "))
        };
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter(is_one)
            .count()
    };
    until("a helper packs", || helpers() > 0);
    host.ok(&["stop", "-t", "0s", &id]);
    // It has the dyno's mounts, which the next run would share with it.
    until("it has ended", || helpers() == 0);
    host.ok(&["start", &id]);
    host.until_phase(&id, "running");
    copy.kill().unwrap();
    copy.wait().unwrap();
}
