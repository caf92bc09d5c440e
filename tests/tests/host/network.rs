//! Addresses, names, ports.

use std::net::UdpSocket;
use std::time::Duration;

use dyno_tests::host::{Host, http_get};
use dyno_tests::until;

const SERVE: &str = "echo $0 > /tmp/index.html; exec httpd -f -p 80 -h /tmp";

fn serve(host: &Host, name: &str, port: &str) {
    host.ok(&[
        "run", "-d", "--name", name, "-p", port, "busybox", "sh", "-c", SERVE, name,
    ]);
}

#[test]
fn a_published_port_answers_on_127_0_0_1_and_on_the_machines_address() {
    let host = Host::with_busybox();
    host.add_address("198.51.100.7/24");
    serve(&host, "web", "8080:80");
    for address in ["127.0.0.1:8080", "198.51.100.7:8080", "[::1]:8080"] {
        let get = || http_get(address.parse().unwrap(), "/");
        until(&format!("{address} answers"), || get().is_ok());
        assert_eq!(get().unwrap(), "web\n");
    }
}

#[test]
fn a_published_udp_port_answers() {
    let host = Host::with_busybox();
    let echo = format!(
        "{}:/echo:ro",
        dyno_tests::programs().join("udp-echo").display()
    );
    host.ok(&[
        "run",
        "-d",
        "-v",
        &echo,
        "-p",
        "9999:9999/udp",
        "busybox",
        "/echo",
        "9999",
    ]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    socket.connect("127.0.0.1:9999").unwrap();
    let mut answer = [0; 16];
    until("it echoes", || {
        socket.send(b"ping").is_ok()
            && socket
                .recv(&mut answer)
                .is_ok_and(|length| &answer[..length] == b"ping")
    });
}

#[test]
fn a_port_on_127_0_0_1_only_is_not_reached_from_elsewhere() {
    let host = Host::with_busybox();
    serve(&host, "web", "127.0.0.1:8080:80");
    until("it answers", || {
        http_get("127.0.0.1:8080".parse().unwrap(), "/").is_ok()
    });
    let gateway = gateway(&host);
    let wget = format!("wget -q -T 1 -O - http://{gateway}:8080/");
    let output = host.run(&["run", "--rm", "busybox", "sh", "-c", &wget]);
    assert!(!output.status.success(), "{output:?}");
}

fn gateway(host: &Host) -> String {
    host.ok(&[
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "ip route | sed -n 's/default via \\([0-9.]*\\) .*/\\1/p'",
    ])
}

/// Debian's static busybox has no resolver but this one.
const LOOK_UP: &str =
    "nslookup web.dyno.internal 2>/dev/null | grep -A1 Name: | sed -n 's/Address.*: //p'";

#[test]
fn dynos_find_each_other_by_name_and_no_longer_once_gone() {
    let host = Host::with_busybox();
    serve(&host, "web", "80");
    let address = host.inspect("web")["status"]["ipv4"]
        .as_str()
        .unwrap()
        .to_owned();
    let look_up = || host.ok(&["run", "--rm", "busybox", "sh", "-c", LOOK_UP]);
    until("the name answers", || look_up().contains(&address));
    let get = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {address} 80 | tail -1");
    assert_eq!(
        host.ok(&["run", "--rm", "busybox", "sh", "-c", &get]),
        "web"
    );
    host.ok(&["rm", "-f", "web"]);
    until("the name is gone", || look_up().is_empty());
}

#[test]
fn names_and_ports_are_answered_while_hostd_is_away() {
    let mut host = Host::with_busybox();
    serve(&host, "web", "8080:80");
    let signals = host.path().join("signals");
    std::fs::create_dir(&signals).unwrap();
    let volume = format!("{}:/signals:ro", signals.display());
    let script = format!("until [ -e /signals/go ]; do sleep 0.05; done; {LOOK_UP}; sleep 1000");
    let id = host.ok(&["run", "-d", "-v", &volume, "busybox", "sh", "-c", &script]);
    host.kill();
    std::fs::File::create(signals.join("go")).unwrap();
    assert_eq!(
        http_get("127.0.0.1:8080".parse().unwrap(), "/").unwrap(),
        "web\n"
    );
    let log = host.path().join("state/dynos").join(&id).join("log");
    let found = || {
        std::fs::read_to_string(&log)
            .unwrap_or_default()
            .contains(" F 10.")
    };
    until("it found the name", found);
    host.spawn_again();
    host.until_it_answers();
}

#[test]
fn a_dyno_without_a_network_has_loopback_only() {
    let host = Host::with_busybox();
    let script = "ip -o link | cut -d: -f2 | tr -d ' '; ip -o addr show dev lo | grep -c 127.0.0.1";
    assert_eq!(
        host.ok(&[
            "run", "--rm", "--net", "none", "busybox", "sh", "-c", script
        ]),
        "lo\n1"
    );
}

#[test]
fn a_dyno_on_the_hosts_network_sees_the_hosts_links() {
    let host = Host::with_busybox();
    let ours = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let theirs = host.ok(&[
        "run",
        "--rm",
        "--net",
        "host",
        "busybox",
        "readlink",
        "/proc/self/ns/net",
    ]);
    assert_eq!(ours.to_string_lossy(), theirs);
}

#[test]
fn the_hosts_own_services_are_closed_to_dynos() {
    let host = Host::with_busybox();
    let gateway = gateway(&host);
    let listener = std::net::TcpListener::bind("0.0.0.0:7777").unwrap();
    let connect = format!("nc -w 1 {gateway} 7777 < /dev/null");
    let output = host.run(&["run", "--rm", "busybox", "sh", "-c", &connect]);
    assert!(
        !output.status.success(),
        "a dyno reached a service of the host: {output:?}"
    );
    // The control: from the host itself it is open.
    std::net::TcpStream::connect(format!("{gateway}:7777")).unwrap();
    drop(listener);
}

#[test]
fn a_chosen_port_is_shown_and_freed_with_its_dyno() {
    let host = Host::with_busybox();
    serve(&host, "web", "80");
    let port = host.inspect("web")["status"]["ports"][0]["host_port"]
        .as_u64()
        .unwrap();
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    until("it answers", || http_get(address, "/").is_ok());
    host.ok(&["rm", "-f", "web"]);
    serve(&host, "next", &format!("{port}:80"));
    until("the next one answers", || {
        http_get(address, "/").is_ok_and(|body| body == "next\n")
    });
}

#[test]
fn a_port_that_another_program_took_meanwhile_is_not_taken_from_it() {
    let host = Host::with_busybox();
    serve(&host, "web", "8080:80");
    host.ok(&["stop", "web"]);
    let listener = std::net::TcpListener::bind("0.0.0.0:8080").unwrap();
    let (error, _) = host.fails(&["start", "web"]);
    assert!(error.contains("8080"), "{error}");
    drop(listener);
    host.ok(&["start", "web"]);
    until("it answers again", || {
        http_get("127.0.0.1:8080".parse().unwrap(), "/").is_ok()
    });
}

/// nft holds the table for itself as long as it lives: hostd cannot change it.
struct Locked(std::process::Child);

impl Locked {
    fn rules_of(host: &Host) -> Self {
        let info: serde_json::Value = serde_json::from_str(&host.ok(&["info", "--json"])).unwrap();
        let table = format!("inet dyno-{}", info["id"].as_str().unwrap());
        let mut nft = std::process::Command::new("nft")
            .arg("-i")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let line = format!("delete table {table}; add table {table} {{ flags owner; }}\n");
        let stdin = nft.stdin.as_mut().unwrap();
        std::io::Write::write_all(stdin, line.as_bytes()).unwrap();
        let locked = Self(nft);
        until("nft has the table", || {
            let mut list = std::process::Command::new("nft");
            let rules = list.args(["list", "ruleset"]).output().unwrap().stdout;
            String::from_utf8(rules).unwrap().contains("flags owner")
        });
        locked
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn an_address_that_something_leads_to_is_nobody_elses() {
    let host = Host::with_busybox();
    serve(&host, "old", "8080:80");
    let page = |address: &str| http_get(address.parse().unwrap(), "/");
    until("it serves", || page("127.0.0.1:8080").is_ok());
    let address = |name: &str| host.inspect(name)["status"]["ipv4"].clone();
    let old = address("old");
    let locked = Locked::rules_of(&host);
    host.ok(&["rm", "-f", "old"]);
    until("taking it off the network has failed", || {
        let log = std::fs::read_to_string(host.path().join("hostd.log")).unwrap();
        log.contains("stays until the next repair")
    });
    drop(locked);
    // The rules still lead from port 8080 to the old address.
    host.ok(&[
        "run", "-d", "--name", "new", "busybox", "sh", "-c", SERVE, "new",
    ]);
    let direct = format!("{}:80", address("new").as_str().unwrap());
    until("the new one serves", || page(&direct).is_ok());
    assert!(page("127.0.0.1:8080").is_err(), "it got another's visitors");
    until("a repair has made the address free", || {
        host.ok(&["run", "-d", "--name", "next", "busybox", "sleep", "1000"]);
        let free = [address("new"), address("next")].contains(&old);
        host.ok(&["rm", "-f", "next"]);
        free
    });
}
