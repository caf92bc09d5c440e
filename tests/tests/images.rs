//! Images from end to end: a real registry, a real archive, and what runs from them.
#![expect(
    clippy::unwrap_used,
    reason = "a rig that cannot be set up fails its test"
)]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use dyno_tests::host::Host;
use dyno_tests::root;
use serde_json::json;

/// bcrypt of `secret`.
const ANN: &str = "ann:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

fn write(path: &Path, content: &str) {
    File::create(path)
        .unwrap()
        .write_all(content.as_bytes())
        .unwrap();
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What `docker save` would write of a busybox image whose config says everything that counts.
fn docker_archive(folder: &Path, name: &str) -> PathBuf {
    let parts = folder.join("parts");
    std::fs::create_dir(&parts).unwrap();
    root::archive(&parts.join("layer.tar"));
    let sum = run("sha256sum", &[parts.join("layer.tar").to_str().unwrap()]);
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": {
            "Entrypoint": ["/bin/sh", "-c"],
            "Cmd": ["id -u; id -G; pwd; echo $GREETING"],
            "Env": ["GREETING=hello", "PATH=/bin"],
            "User": "user", "WorkingDir": "/srv",
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", &sum[..64])]},
    });
    write(&parts.join("config.json"), &config.to_string());
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    write(&parts.join("manifest.json"), &manifest.to_string());
    let archive = folder.join("image.tar");
    let files = ["manifest.json", "config.json", "layer.tar"];
    let place = [
        "-C",
        parts.to_str().unwrap(),
        "-cf",
        archive.to_str().unwrap(),
    ];
    run("tar", &[&place[..], &files].concat());
    archive
}

/// What the image's own command prints if all of its config is heeded.
const OUTPUT: &str = "1000\n1000 2000\n/srv\nhello";

/// A `docker-registry` that wants a password, in the network of this test.
struct Registry {
    process: Child,
    address: String,
}

impl Registry {
    fn start(folder: &Path) -> Registry {
        let (htpasswd, config) = (folder.join("htpasswd"), folder.join("registry.yml"));
        write(&htpasswd, ANN);
        let settings = format!(
            "version: 0.1\nlog: {{level: info, formatter: json}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n\
             auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            folder.join("registry").display(),
            htpasswd.display()
        );
        write(&config, &settings);
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert!(
                log.read_line(&mut line).unwrap() > 0,
                "the registry ended early"
            );
            if let Some((_, port)) = line.split_once("listening on 127.0.0.1:") {
                let port: String = port.chars().take_while(char::is_ascii_digit).collect();
                break format!("127.0.0.1:{port}");
            }
        };
        // A full pipe would stop it.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Registry { process, address }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
fn an_image_from_a_registry_runs_as_its_config_says() {
    let host = Host::start();
    let registry = Registry::start(host.path());
    let name = format!("{}/team/app:1", registry.address);
    let archive = docker_archive(host.path(), "app:1");
    let (from, to) = (
        format!("docker-archive:{}", archive.display()),
        format!("docker://{name}"),
    );
    let access = ["--dest-tls-verify=false", "--dest-creds", "ann:secret"];
    run(
        "skopeo",
        &[
            &["--insecure-policy", "copy", "-q"][..],
            &access,
            &[&from, &to],
        ]
        .concat(),
    );

    let (message, _) = host.fails(&["pull", &name]);
    assert!(
        message.contains("denied") && message.contains(&name),
        "{message}"
    );
    let mut pull = host.dyno(&["pull", "--username", "ann", "--password-stdin", &name]);
    let mut pull = pull.stdin(Stdio::piped()).spawn().unwrap();
    pull.stdin.take().unwrap().write_all(b"secret\n").unwrap();
    assert!(pull.wait().unwrap().success());
    assert_eq!(
        host.ok(&["images", "-q"])
            .lines()
            .filter(|line| *line == name)
            .count(),
        1
    );
    // From here on the registry is not needed.
    drop(registry);
    assert_eq!(host.ok(&["run", "--rm", &name]), OUTPUT);
    assert_eq!(
        host.ok(&["run", "--rm", "--user", "0", &name, "id -u"]),
        "0"
    );
    host.ok(&["rmi", &name]);
    assert!(!host.ok(&["images", "-q"]).contains(&name));
}

#[test]
fn an_archive_of_docker_save_loads_and_runs() {
    let host = Host::start();
    let archive = docker_archive(host.path(), "example.com/app:2");
    host.ok(&["load", "-i", archive.to_str().unwrap()]);
    assert_eq!(host.ok(&["run", "--rm", "example.com/app:2"]), OUTPUT);
}

#[test]
fn broken_archives_and_unknown_images_say_what_is_wrong() {
    let host = Host::start();
    let archive = docker_archive(host.path(), "app:1");
    let whole = std::fs::read(&archive).unwrap();
    let broken = host.path().join("broken.tar");
    File::create(&broken)
        .unwrap()
        .write_all(&whole[..whole.len() / 2])
        .unwrap();
    let (message, _) = host.fails(&["load", "-i", broken.to_str().unwrap()]);
    assert!(message.contains("ends within"), "{message}");
    let (message, _) = host.fails(&["run", "--rm", "not/there:1"]);
    assert!(message.contains("not/there:1"), "{message}");
    assert_eq!(
        host.ok(&["images", "-q"]).lines().collect::<Vec<_>>(),
        ["host"]
    );
    let left = std::fs::read_dir(host.path().join("state/images/tmp"))
        .unwrap()
        .count();
    assert_eq!(left, 0);
}
