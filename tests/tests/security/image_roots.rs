//! Root file systems that were made to lead hostd, monitor and runtime out of them (P1, P19).

use std::fs;
use std::path::Path;
use std::process::Command;

use dyno_tests::host::Host;

use super::rig::{Canary, Hostile, text};

#[test]
fn what_is_mounted_over_a_link_never_lands_outside() {
    let host = Host::start();
    let canary = Canary::new(&host);
    let before = mounts();
    for name in [
        "dev",
        "proc",
        "sys",
        "etc",
        "etc/hosts",
        "etc/resolv.conf",
        "etc/hostname",
        "tmp",
    ] {
        for target in [canary.path().to_owned(), canary.file("hosts")] {
            let relative =
                Path::new("../../../../../../../..").join(target.strip_prefix("/").unwrap());
            for target in [&target, &relative] {
                let image = Hostile::new(&host, "link");
                image.link(name, target);
                let output = image.run(
                    &host,
                    &["sh", "-c", "echo x >> /etc/hosts; cat /tmp/secret"],
                );
                let output = text(&output);
                assert!(!output.contains("7777"), "/{name} -> {target:?}: {output}");
                canary.assert_untouched();
                assert_eq!(mounts(), before, "/{name} -> {target:?}");
            }
        }
    }
    // The control: on the host such a link leads to the canary.
    let image = Hostile::new(&host, "control");
    image.link("etc/hosts", &canary.file("hosts"));
    let led_to = fs::canonicalize(image.root().join("etc/hosts")).unwrap();
    assert_eq!(led_to, canary.file("hosts"));
}

/// What is done to a root, in words and in deed.
type Way<'a> = (&'a str, &'a dyn Fn(&Path));

/// The mounts of the host where an image's links might lead.
fn mounts() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let place = |line: &str| line.split(' ').nth(4).map(str::to_owned);
    let mut places: Vec<String> = mounts.lines().filter_map(place).collect();
    places.retain(|place| place.contains("canary") || place.starts_with("/etc"));
    places
}

#[test]
fn links_into_the_kernels_file_systems_are_no_way_out() {
    let host = Host::start();
    let canary = Canary::new(&host);
    for (name, target) in [
        ("dev", "/proc/self/root/dev"),
        ("etc", "/proc/1/root/etc"),
        ("etc/hosts", "/proc/self/fd/3"),
        ("etc/hosts", "/proc/1/root/etc/hosts"),
        ("etc/hosts", "/dev/kmsg"),
        ("etc/resolv.conf", "/proc/sys/kernel/core_pattern"),
        ("etc/hostname", "/proc/sysrq-trigger"),
        ("proc", "/sys"),
        ("sys", "/proc"),
        ("proc", "proc"),
    ] {
        let pattern = || fs::read("/proc/sys/kernel/core_pattern").unwrap();
        let before = pattern();
        let image = Hostile::new(&host, "kernel");
        image.link(name, target.as_ref());
        image.run(&host, &["sh", "-c", "echo x > /etc/hosts"]);
        canary.assert_untouched();
        assert_eq!(pattern(), before, "/{name} -> {target}");
    }
}

#[test]
fn a_root_with_things_in_the_way_is_refused_or_confined() {
    let host = Host::start();
    let ways: [Way<'_>; 8] = [
        ("hosts is a folder", &|root| {
            fs::create_dir_all(root.join("etc/hosts/x")).unwrap()
        }),
        ("proc is a file", &|root| make(root, &["touch", "proc"])),
        ("dev is a fifo", &|root| make(root, &["mkfifo", "dev"])),
        ("etc is a file", &|root| {
            fs::remove_dir_all(root.join("etc")).unwrap();
            make(root, &["touch", "etc"]);
        }),
        ("hosts is a fifo", &|root| {
            make(root, &["mkfifo", "etc/hosts"])
        }),
        ("hosts is a device", &|root| {
            make(root, &["mknod", "etc/hosts", "b", "8", "0"])
        }),
        ("the root cannot be entered", &|root| {
            make(root, &["chmod", "0", "."])
        }),
        ("everything is setuid", &|root| {
            make(root, &["chmod", "-R", "6777", "."])
        }),
    ];
    for (way, spoil) in ways {
        let image = Hostile::new(&host, "way");
        spoil(&image.root());
        let output = image.run(&host, &["sh", "-c", "id -u; cat /etc/hosts"]);
        // Refused with words, or it runs as the root of its own namespace.
        if output.status.success() {
            assert!(output.stdout.starts_with(b"0\n"), "{way}: {output:?}");
        } else {
            assert!(!output.stderr.is_empty(), "{way}: {output:?}");
        }
    }
    assert!(host.ids().is_empty(), "something was left");
}

fn make(root: &Path, command: &[&str]) {
    let mut program = Command::new(command[0]);
    let status = program.current_dir(root).args(&command[1..]).status();
    assert!(status.unwrap().success(), "{command:?}");
}

#[test]
fn a_device_of_an_image_opens_nothing() {
    let host = Host::start();
    let image = Hostile::new(&host, "device");
    make(&image.root(), &["mknod", "kmsg", "c", "1", "11"]);
    make(&image.root(), &["mknod", "mem", "c", "1", "1"]);
    // The control: to root of the host they are devices.
    fs::File::open(image.root().join("kmsg")).unwrap();
    let output = image.run(&host, &["sh", "-c", "head -c 1 /kmsg /mem && echo opened"]);
    assert!(!text(&output).contains("opened"), "{output:?}");
}
