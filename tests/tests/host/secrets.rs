//! Secrets and configuration files: who is given them, and where they are not.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use dyno_tests::host::Host;
use dyno_tests::{until, write_file};

const VALUE: &str = "hunter2-of-this-very-test";

fn feed(host: &Host, arguments: &[&str], input: &str) -> Output {
    let mut command = host.dyno(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    // One that refuses its arguments reads nothing.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).ok();
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn set(host: &Host, name: &str, value: &str) {
    let output = feed(host, &["secret", "set", name], value);
    assert!(output.status.success(), "{output:?}");
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

/// The files beneath a folder that hold the value; those of other file systems are
/// told apart by their device.
fn found(folder: &Path, found_in: &mut Vec<(PathBuf, u64)>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found(&path, found_in);
        } else if kind.is_file() && holds(&fs::read(&path).unwrap_or_default(), VALUE) {
            let device = fs::metadata(&path).unwrap().dev();
            found_in.push((path, device));
        }
    }
}

/// Of what a process was started with: arguments and variables.
fn started_with(pid: &str) -> Vec<u8> {
    let of = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    [of("cmdline"), of("environ")].concat()
}

#[test]
fn a_secret_is_nowhere_but_in_its_dyno() {
    let host = Host::with_busybox();
    set(&host, "db", VALUE);
    let script = "echo $DB; exec sleep 1000";
    let given = ["--secret", "db", "--secret-env", "DB=db"];
    let run = ["run", "-d", "--name", "app", "--restart", "always"];
    let words = ["busybox", "sh", "-c", script];
    let check = ["--readiness", "interval=100ms sh:test -n \"$DB\""];
    host.ok(&[&run[..], &given, &check, &words].concat());
    until("it has said the value", || {
        host.ok(&["logs", "app"]) == VALUE
    });
    until("its check has seen the variable", || {
        host.inspect("app")["status"]["health"] == "ready"
    });
    // The first line of its output is its own to write; this is its log no more.
    let dyno = host.inspect("app");
    let log = host
        .path()
        .join("state/dynos")
        .join(dyno["id"].as_str().unwrap());
    for file in fs::read_dir(&log).unwrap().flatten() {
        if file.file_name().to_string_lossy().starts_with("log.") {
            let plain = fs::File::options().write(true).open(file.path()).unwrap();
            plain.set_len(0).unwrap();
        }
    }

    // The control: it is found where it has to be, which is in memory.
    let mut places = Vec::new();
    found(host.path(), &mut places);
    let disk = fs::metadata(host.path()).unwrap().dev();
    let memory = host.path().join("run/secrets");
    assert_eq!(places.len(), 2, "{places:?}");
    for (path, device) in &places {
        assert!(
            path.starts_with(&memory) && *device != disk,
            "{path:?} is on the disk"
        );
    }
    assert_eq!(fs::metadata(&memory).unwrap().mode() & 0o7777, 0o700);

    let bundle = host.path().join("bundle.tar.gz");
    host.ok(&["debug", "bundle", "-o", &bundle.to_string_lossy()]);
    let unpacked = std::process::Command::new("gzip")
        .arg("-dc")
        .arg(&bundle)
        .output();
    assert!(
        !holds(&unpacked.unwrap().stdout, VALUE),
        "it is in the bundle"
    );
    for line in [
        &["inspect", "app"][..],
        &["ps", "-a", "--json"],
        &["why", "app", "--json"],
        &["secret", "ls", "--json"],
        &["secret", "info", "db"],
        &["events", "--since", "0", "--no-follow", "--json"],
        &["info", "--json"],
    ] {
        let output = host.run(line);
        assert!(output.status.success(), "{line:?}: {output:?}");
        assert!(!holds(&output.stdout, VALUE), "{line:?} tells it");
    }
    let monitor = dyno["status"]["monitor_pid"].to_string();
    for pid in [host.pid().to_string(), monitor] {
        assert!(!holds(&started_with(&pid), VALUE), "process {pid}");
    }
    let first = dyno["status"]["pid"].to_string();
    assert!(holds(&started_with(&first), VALUE), "the control has it");

    host.ok(&["rm", "-f", "app"]);
    let mut left = Vec::new();
    found(host.path(), &mut left);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_dyno_has_its_secrets_and_no_other_dyno_has() {
    let mut host = Host::with_busybox();
    set(&host, "db", VALUE);
    let given = [
        "--secret",
        "db",
        "--secret",
        "db:target=/etc/key,mode=0440,uid=7,gid=8",
    ];
    let run = [
        "run",
        "-d",
        "--name",
        "app",
        "--user",
        "1000",
        "--restart",
        "always",
    ];
    let variable = ["--secret-env", "DB=db"];
    let words = ["busybox", "sh", "-c", "sleep 1000"];
    host.ok(&[&run[..], &given, &variable, &words].concat());
    let look = "stat -c '%a %u %g' /run/secrets/db; stat -c '%a %u %g' /etc/key; cat /run/secrets/db; echo; echo $DB";
    let seen = format!("400 1000 1000\n440 7 8\n{VALUE}\n{VALUE}");
    let inside = |host: &Host, user: &str, script: &str| {
        host.run(&["exec", "--user", user, "app", "sh", "-c", script])
    };
    let output = |output: &Output| {
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    };
    assert_eq!(output(&inside(&host, "1000", look)), seen);
    // Neither its user nor its root changes it.
    for user in ["1000", "0"] {
        let change = "echo x > /run/secrets/db || chmod 777 /run/secrets/db || rm /run/secrets/db";
        assert!(
            !inside(&host, user, change).status.success(),
            "{user} changes it"
        );
    }
    assert!(
        !inside(&host, "2000", "cat /run/secrets/db")
            .status
            .success()
    );
    let other = host.run(&[
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "cat /run/secrets/*; echo $DB",
    ]);
    assert!(!holds(&other.stdout, VALUE), "{other:?}");

    // hostd is away, and its monitor starts it again.
    let first = host.inspect("app")["status"]["pid"].clone();
    host.kill();
    let pid = i32::try_from(first.as_i64().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    host.spawn_again();
    host.until_it_answers();
    until("it runs again", || {
        let status = &host.inspect("app")["status"];
        status["phase"] == "running" && status["pid"] != first
    });
    assert_eq!(output(&inside(&host, "1000", look)), seen);

    // A restart by request has the new value; until then nothing changes.
    set(&host, "db", "another");
    assert_eq!(output(&inside(&host, "1000", "cat /run/secrets/db")), VALUE);
    host.ok(&["restart", "-t", "0", "app"]);
    let both = "cat /run/secrets/db; echo $DB";
    assert_eq!(output(&inside(&host, "1000", both)), "anotheranother");

    let (error, code) = host.fails(&["secret", "rm", "db"]);
    assert!(error.contains("app") && code == 4, "{error}");
    host.ok(&["secret", "rm", "-f", "db"]);
    host.ok(&["stop", "-t", "0", "app"]);
    let (error, _) = host.fails(&["start", "app"]);
    assert!(error.contains("there is no secret db"), "{error}");
    let status = &host.inspect("app")["status"];
    assert_eq!(status["phase"], "failed");
    assert!(
        status["reason"].to_string().contains("no secret db"),
        "{status}"
    );
}

/// Whoever can write to the state folder, or has an old copy of it.
#[test]
fn a_record_that_was_changed_swapped_or_is_another_keys_starts_nothing() {
    let host = Host::with_busybox();
    for name in ["mine", "theirs", "spare"] {
        set(&host, name, VALUE);
    }
    let read = |name: &str| {
        let secret = ["run", "--rm", "--secret", name, "busybox"];
        host.run(&[&secret[..], &["sh", "-c", "cat /run/secrets/*"]].concat())
    };
    let refused = |name: &str, why: &str| {
        let output = read(name);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && error.contains(why),
            "{output:?}"
        );
        assert!(!error.contains(VALUE), "{error}");
    };
    let control = read("theirs");
    assert!(
        control.status.success() && holds(&control.stdout, VALUE),
        "{control:?}"
    );
    let record = |name: &str| host.path().join(format!("state/secrets/{name}.json"));
    assert_eq!(fs::metadata(record("mine")).unwrap().mode() & 0o777, 0o600);
    fs::copy(record("mine"), record("theirs")).unwrap();
    refused("theirs", "another secret's");
    let text = fs::read_to_string(record("mine")).unwrap();
    write_file(
        &record("mine"),
        &text.replacen("\"revision\": 1", "\"revision\": 2", 1),
    );
    refused("mine", "was changed");
    write_file(&record("mine"), "{");
    refused("mine", "is damaged");

    let key = host.path().join("secret.key");
    let kept = host.path().join("kept.key");
    fs::rename(&key, &kept).unwrap();
    refused("spare", "is gone");
    let lost = feed(&host, &["secret", "set", "new"], VALUE);
    assert!(!lost.status.success() && !key.exists(), "{lost:?}");
    let text = fs::read_to_string(&kept).unwrap();
    let other = text.replacen(&text[text.len() - 20..text.len() - 10], "AAAAAAAAAA", 1);
    write_file(&key, &other);
    refused("spare", "is not root's alone");
    fs::set_permissions(&key, fs::metadata(&kept).unwrap().permissions()).unwrap();
    refused("spare", "which the key file does not have");
    fs::rename(&kept, &key).unwrap();
    assert!(read("spare").status.success());

    for name in ["mine", "theirs"] {
        host.ok(&["secret", "rm", name]);
    }
    let before = fs::read(&key).unwrap();
    host.ok(&["secret", "rotate"]);
    assert_ne!(fs::read(&key).unwrap(), before);
    assert!(holds(&read("spare").stdout, VALUE));
}

#[test]
fn what_is_no_secret_is_refused_with_the_cause() {
    let host = Host::with_busybox();
    let (error, code) = host.fails(&["run", "--rm", "--secret", "nowhere", "busybox", "true"]);
    assert!(
        error.contains("no secret nowhere") && code == 125,
        "{error}"
    );
    let none = feed(&host, &["secret", "set", "empty"], "");
    assert_eq!(none.status.code(), Some(2), "{none:?}");
    let long = "x".repeat(256 * 1024 + 1);
    let long = feed(&host, &["secret", "set", "long"], &long);
    assert_eq!(long.status.code(), Some(2), "{long:?}");
    assert_eq!(host.fails(&["secret", "info", "none"]).1, 3);
    assert_eq!(host.fails(&["secret", "rm", "none"]).1, 3);
    // Nothing that is given as an argument is a value.
    assert_eq!(host.fails(&["secret", "set", "db", VALUE]).1, 2);
    set(&host, "binary", "a\0b");
    let (error, _) = host.fails(&["run", "--rm", "--secret-env", "X=binary", "busybox", "true"]);
    assert!(error.contains("is no text"), "{error}");
    assert_eq!(host.ok(&["secret", "ls", "-q"]), "binary");
}

#[test]
fn configuration_files_are_kept_with_their_dyno_and_shown() {
    let mut host = Host::with_busybox();
    let source = host.path().join("app.toml");
    write_file(&source, "answer = 42\n");
    let flag = format!("{}:/etc/app/app.toml", source.display());
    let run = ["run", "-d", "--name", "app", "--config-file", &flag];
    host.ok(&[&run[..], &["busybox", "sleep", "1000"]].concat());
    fs::remove_file(&source).unwrap();
    let look = "cat /etc/app/app.toml; stat -c '%a %u' /etc/app/app.toml";
    let seen = "answer = 42\n444 0";
    assert_eq!(host.ok(&["exec", "app", "sh", "-c", look]), seen);
    host.fails(&["exec", "app", "sh", "-c", "echo x > /etc/app/app.toml"]);
    host.kill_and_restart();
    host.ok(&["restart", "-t", "0", "app"]);
    assert_eq!(host.ok(&["exec", "app", "sh", "-c", look]), seen);
    let shown = &host.inspect("app")["spec"]["config_files"][0];
    assert_eq!(shown["content"], "answer = 42\n");
    let list = host.ok(&["ps", "-a", "--json"]);
    assert!(
        !list.contains("answer") && list.contains("/etc/app/app.toml"),
        "{list}"
    );
}
