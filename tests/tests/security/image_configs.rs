//! Image configs that want more than an image may (P6, P7, P11).

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;

use dyno_tests::host::Host;
use dyno_tests::until;
use serde_json::{Value, json};

use super::rig::{Canary, Hostile, bounded, text};

/// What is done to an image, in words and in deed.
type Way<'a> = (&'a str, &'a dyn Fn(&Hostile));

/// An image whose config has this at that place.
fn spoilt(host: &Host, key: &str, value: Value) -> Hostile {
    let mut image = Hostile::new(host, "spoilt");
    image.config[key] = value;
    image
}

#[test]
fn an_odd_user_is_refused_and_never_becomes_root() {
    let host = Host::start();
    for user in [
        "0:0\n",
        "root ",
        " 0",
        "+0",
        "-1",
        "0x0",
        "65536",
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "nosuch",
        "user:nosuch",
        "0:-1",
        "root:root:root",
        "root\u{0}",
        "../root",
        "*",
    ] {
        let output = spoilt(&host, "User", json!(user)).run(&host, &["id"]);
        assert!(!output.status.success(), "{user:?} became {output:?}");
    }
    // The control: these are users.
    for (user, expected) in [("0", "uid=0(root)"), ("user", "uid=1000(user)")] {
        let output = spoilt(&host, "User", json!(user)).run(&host, &["id"]);
        assert!(text(&output).starts_with(expected), "{output:?}");
    }
}

#[test]
fn digits_are_a_number_even_where_a_user_has_that_name() {
    let host = Host::start();
    let image = spoilt(&host, "User", json!("1234"));
    let mut passwd = File::create(image.root().join("etc/passwd")).unwrap();
    passwd.write_all(b"1234:x:0:0:root:/:/bin/sh\n").unwrap();
    let output = image.run(&host, &["id", "-u"]);
    assert_eq!(text(&output), "1234\n");
}

#[test]
fn a_passwd_that_is_no_small_regular_file_names_nobody() {
    let host = Host::start();
    let canary = Canary::new(&host);
    let kinds: [Way<'_>; 6] = [
        ("a link to the host", &|image| {
            image.link("etc/passwd", &canary.file("passwd"));
        }),
        ("a link into the kernel", &|image| {
            image.link("etc/passwd", "/proc/self/environ".as_ref());
        }),
        ("a folder behind a link", &|image| {
            image.link("etc", canary.path());
        }),
        ("a fifo", &|image| node(image, &["mkfifo", "etc/passwd"])),
        ("a device", &|image| {
            node(image, &["mknod", "etc/passwd", "c", "1", "5"]);
        }),
        ("10 MiB", &|image| {
            let text = "secret:x:7777:7777::/:/bin/sh\n".repeat(350_000);
            let mut file = File::create(image.root().join("etc/passwd")).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }),
    ];
    for (kind, spoil) in kinds {
        let image = spoilt(&host, "User", json!("secret"));
        spoil(&image);
        let output = image.run(&host, &["id"]);
        assert!(!output.status.success(), "{kind}: {output:?}");
        assert!(!text(&output).contains("7777"), "{kind}: {output:?}");
        canary.assert_untouched();
    }
    // The control: in a file as it should be, that line is a user.
    let image = spoilt(&host, "User", json!("secret"));
    fs::copy(canary.file("passwd"), image.root().join("etc/passwd")).unwrap();
    assert_eq!(text(&image.run(&host, &["id", "-u"])), "7777\n");
}

fn node(image: &Hostile, command: &[&str]) {
    fs::remove_file(image.root().join(command[1])).unwrap();
    let mut program = Command::new(command[0]);
    let status = program.current_dir(image.root()).args(&command[1..]);
    assert!(status.status().unwrap().success());
}

#[test]
fn a_working_folder_leads_nowhere_but_into_the_image() {
    let host = Host::start();
    let canary = Canary::new(&host);
    let outside = canary.path().to_string_lossy().into_owned();
    for folder in [
        "/work",
        "/work/..",
        &format!("/../../../../../..{outside}"),
        &outside,
        "relative/../../..",
        "/proc/self/fd/3",
        "/proc/self/fd/7",
        "/proc/1/cwd",
        "/proc/1/root",
        "\u{0}",
    ] {
        let image = spoilt(&host, "WorkingDir", json!(folder));
        image.link("work", canary.path());
        assert!(image.root().join("work/secret").exists(), "the control");
        let output = image.run(&host, &["sh", "-c", "ls; cat secret ../canary/secret"]);
        assert!(!text(&output).contains("7777"), "{folder:?}: {output:?}");
        canary.assert_untouched();
    }
}

#[test]
fn variables_are_variables_or_refused() {
    let host = Host::start();
    let output = spoilt(&host, "Env", json!(["PATH=/bin", "A=1\nB=2"]))
        .run(&host, &["sh", "-c", "echo ${B-none}; echo \"$A\""]);
    assert_eq!(text(&output), "none\n1\nB=2\n");
    for line in ["A=1\u{0}B=2", "=value", "\u{0}"] {
        let output = spoilt(&host, "Env", json!([line])).run(&host, &["/bin/env"]);
        assert!(!output.status.success(), "{line:?}: {output:?}");
    }
}

#[test]
fn an_absurd_command_is_refused() {
    let host = Host::start();
    for entrypoint in [
        json!(["true", "x".repeat(1 << 20)]),
        json!(vec!["true"; 400_000]),
        json!([""]),
        json!(["/bin/true\u{0}"]),
        json!(["/etc/../../../../../../bin/mount"]),
        json!(["/proc/self/exe"]),
        json!(["/loop"]),
    ] {
        let image = spoilt(&host, "Entrypoint", entrypoint.clone());
        image.link("loop", "loop".as_ref());
        let output = image.run(&host, &[]);
        let what = entrypoint.to_string();
        let what = &what[..what.len().min(60)];
        assert!(!output.status.success(), "{what}: {output:?}");
        assert!(!output.stderr.is_empty(), "{what}: {output:?}");
    }
}

#[test]
fn volumes_labels_and_ports_of_an_image_give_it_nothing() {
    let host = Host::start();
    let canary = Canary::new(&host);
    let mut image = Hostile::new(&host, "greedy");
    image.config["Volumes"] = json!({
        "/": {}, "/proc": {}, "/sys": {}, "/dev": {}, "/etc": {}, "/../..": {},
        canary.path().to_string_lossy(): {}, "": {},
    });
    image.config["Labels"] = json!({
        "io.containers.capabilities": "ALL", "org.systemd.property.DeviceAllow": "['/dev/mem']",
        "run.oci.keep_original_groups": "1", "dyno.privileged": "true",
        "io.podman.annotations.privileged": "TRUE",
    });
    image.config["ExposedPorts"] = json!({"22/tcp": {}, "99999/tcp": {}, "../x": {}});
    image.config["StopSignal"] = json!("KILL; reboot");
    image.config["OnBuild"] = json!(["RUN reboot"]);
    let script =
        "grep CapBnd /proc/self/status | cut -f2; stat -f -c %T /proc; ls /; cat /dev/mem; true";
    let output = image.run(&host, &["sh", "-c", script]);
    if output.status.success() {
        let output = text(&output);
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(lines[0], "00000000800405fb", "{output}");
        assert_eq!(lines[1], "proc", "{output}");
        assert!(!output.contains("canary"), "{output}");
    }
    canary.assert_untouched();
    let published = bounded(&host, &["ps", "-a", "--json"]);
    assert!(!text(&published).contains("host_port"), "{published:?}");
}

#[test]
fn an_images_healthcheck_runs_inside_and_ends_nobody() {
    let host = Host::start();
    let canary = Canary::new(&host);
    let line = format!("echo not well; rm -rf {}; exit 1", canary.path().display());
    let check = json!({"Test": ["CMD-SHELL", line], "Interval": 1, "Timeout": -1, "Retries": 1});
    let image = spoilt(&host, "Healthcheck", check);
    let loaded = image.load(&host, "checked");
    assert!(loaded.status.success(), "{loaded:?}");
    let run = |name: &str, flags: &[&str]| {
        let words = ["run", "-d", "--name", name, "--restart", "always"];
        host.ok(&[&words[..], flags, &["checked", "sleep", "1000"]].concat());
    };
    run("checked", &[]);
    run("ignoring", &["--no-healthcheck"]);
    until("it was checked", || {
        host.inspect("checked")["status"]["failed_check"]["reason"] == "exit code 1: not well"
    });
    let status = host.inspect("checked")["status"].clone();
    assert_eq!(
        (&status["health"], &status["restarts"]),
        (&json!("unready"), &json!(0))
    );
    assert_eq!(host.inspect("ignoring")["status"]["health"], Value::Null);
    canary.assert_untouched();
}
