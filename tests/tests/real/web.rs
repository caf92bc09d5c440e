//! Web services: nginx by a page, Python by what it says of itself.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};

use dyno_tests::debian::{Debian, run};
use dyno_tests::host::{Host, http_get};
use dyno_tests::until;
use serde_json::Value;

/// Another network that reaches this one by a link, as the world outside does.
struct Outside(Child);

impl Outside {
    /// Here is 198.51.100.1, there 198.51.100.2.
    fn new() -> Self {
        let holder = Command::new("unshare")
            .args(["--net", "sleep", "1000"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let outside = Self(holder);
        let pid = outside.0.id().to_string();
        let ours = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let theirs = format!("/proc/{pid}/ns/net");
        until("it has a network", || {
            std::fs::read_link(&theirs).is_ok_and(|theirs| theirs != ours)
        });
        let ip = |arguments: &str| run("ip", &arguments.split(' ').collect::<Vec<_>>());
        ip(&format!(
            "link add uplink type veth peer name eth0 netns {pid}"
        ));
        ip("addr add 198.51.100.1/24 dev uplink");
        ip("link set uplink up");
        outside.run("ip addr add 198.51.100.2/24 dev eth0");
        outside.run("ip link set eth0 up");
        outside
    }

    /// What a command there prints, which must succeed.
    fn run(&self, command: &str) -> String {
        let pid = self.0.id().to_string();
        let words: Vec<&str> = command.split(' ').collect();
        run("nsenter", &[&["-t", &pid, "-n"][..], &words].concat())
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn nginx_serves_a_page_to_the_machine_and_to_the_world() {
    let debian = Debian::prepare();
    let host = Host::start();
    let image = debian.serve(host.path()).image_pulled(&host, "nginx");
    let outside = Outside::new();
    host.ok(&["run", "-d", "--name", "web", "-p", "8080:80", &image]);
    let local = "127.0.0.1:8080".parse().unwrap();
    until("nginx answers", || http_get(local, "/").is_ok());
    assert_eq!(http_get(local, "/").unwrap(), "a page by nginx\n");
    let curl = "curl -sS --max-time 10 http://198.51.100.1:8080/";
    assert_eq!(outside.run(curl), "a page by nginx\n");
    // Debian's own page is below and whited out.
    assert!(http_get(local, "/index.nginx-debian.html").is_err());

    // It dropped to its user by itself, and its log goes through /dev/stdout.
    let workers = "ps=$(grep -l '^nginx: worker' /proc/[0-9]*/cmdline | head -1); \
                   stat -c %U $(dirname $ps)";
    assert_eq!(host.ok(&["exec", "web", "sh", "-c", workers]), "www-data");
    until("the requests are in the log", || {
        let log = host.ok(&["logs", "web"]);
        log.contains("198.51.100.2") && log.contains("GET / HTTP/1.1\" 200")
    });
    host.ok(&["stop", "web"]);
    let exit = host.inspect("web")["status"]["exit"].clone();
    assert_eq!(exit["code"], 0, "nginx ends well by SIGQUIT: {exit}");
}

#[test]
fn a_python_service_starts_from_layers_that_are_there_already() {
    let debian = Debian::prepare();
    let host = Host::start();
    let registry = debian.serve(host.path());
    host.ok(&["pull", &registry.image("nginx")]);
    let first = registry.fetched();
    let image = registry.image("python");
    host.ok(&["pull", &image]);
    let second = registry.fetched().split_off(first.len());
    let again = second.iter().filter(|blob| first.contains(blob)).count();
    assert_eq!(again, 0, "the base was fetched again: {second:?}");
    // The base, and of each image a config and a layer.
    let distinct = |blobs: Vec<String>| blobs.into_iter().collect::<BTreeSet<_>>().len();
    assert_eq!((distinct(first), distinct(second)), (3, 2));
    drop(registry);

    host.ok(&["run", "-d", "--name", "app", "-p", "8000:80", &image]);
    let address = "127.0.0.1:8000".parse().unwrap();
    until("the service answers", || http_get(address, "/").is_ok());
    let answer: Value = serde_json::from_str(&http_get(address, "/a?b=c").unwrap()).unwrap();
    assert_eq!(answer["path"], "/a?b=c");
    assert_eq!(answer["uid"], 65534, "the image's user is nobody: {answer}");
    assert_eq!(answer["pid"], 1);
}
